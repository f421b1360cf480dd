"""The tasks on which published rows are scored, which `split.tuning` never holds out.

A setting that is chosen by its score on held-out tasks fits these tasks, so that it must be chosen
on tasks that are train tasks in all published rows, with source agents of other seeds.
"""

from envs.oracle import TaskOracle
from envs.tasks import order_of_tasks

SEEDS = (0, 1, 2)  # of splits, source agents and trainings
TRAIN_FRACTION, MOST_TRAIN_TASKS = 57 / 80, 200  # of the tasks, in a split of each seed
SEED_EXPERIMENT = [  # the goals held out in configs/seed_darkroom.yaml, in a 9 x 9 room
    *([0, 2], [1, 1], [1, 2], [2, 0], [2, 3], [3, 0], [3, 6], [3, 7], [3, 8], [4, 0], [4, 1]),
    *([4, 7], [5, 0], [5, 3], [5, 4], [5, 5], [6, 4], [6, 7], [7, 4], [7, 7], [8, 4], [8, 5]),
    [8, 6],
]


def published_tasks(world: TaskOracle) -> list[list[int]]:
    """Return the tasks of `world` that are held out in any published row."""
    if (defined := world.held_out_tasks()) is not None:
        return defined.tolist()
    all_tasks = world.all_tasks()
    num_train_tasks = max(round(TRAIN_FRACTION * len(all_tasks)), 1)
    held_out = [
        all_tasks[k].tolist()
        for seed in SEEDS
        for k in order_of_tasks(seed, len(all_tasks))[min(num_train_tasks, MOST_TRAIN_TASKS) :]
    ]
    return held_out + (SEED_EXPERIMENT if world.task_grid == (9, 9) else [])
