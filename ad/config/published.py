"""The tasks on which published rows are scored, which `split.tuning` never holds out.

A setting that is chosen by its score on held-out tasks fits these tasks, so that it must be chosen
on tasks that are train tasks in all published rows, with source agents of other seeds.
"""

SEEDS = (0, 1, 2)  # of splits, source agents and trainings; other splits train on tuning tasks
TRAIN_FRACTION, MOST_TRAIN_TASKS = 57 / 80, 200  # of the tasks, in a split of each seed
SEED_EXPERIMENT = [  # the goals held out in configs/seed_darkroom.yaml, in a 9 x 9 room
    *([0, 2], [1, 1], [1, 2], [2, 0], [2, 3], [3, 0], [3, 6], [3, 7], [3, 8], [4, 0], [4, 1]),
    *([4, 7], [5, 0], [5, 3], [5, 4], [5, 5], [6, 4], [6, 7], [7, 4], [7, 7], [8, 4], [8, 5]),
    [8, 6],
]
