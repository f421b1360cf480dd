"""What stands beside the methods of a world: optimal and random play, searchers, source agents.

The scores are read from the records of the world's runs.
"""

from ad.evaluation.metrics import t_interval
from ad.sweeps.leaderboard.plan import Board
from ad.sweeps.leaderboard.scores import METRICS, NORMALIZED, SCORE, Records, values_of

OPTIMAL, TABULAR_LEARNER = "optimal policy", "tabular learner from nothing"
TITLES = {
    "random": "random actions",
    "tabular_learner": TABULAR_LEARNER,
    "explorer": "best known searcher",
}
SOURCE_TITLES = {  # by the histories that the source agents made
    "learner": "the learner itself, on train tasks",
    "searcher": "the searcher itself, on train tasks",
}
HISTORIES = ("learner", "none", "searcher")
# The tabular learner has the settings of the source if that is the same algorithm. The runs of
# online methods have the learner of the world as their source.
LEARNERS = ("learner", "none")
SHARES = [SCORE, "nauc", *(name for name in METRICS if name.startswith("at_"))]  # of the optimum


def references(board: Board, cells: Records, world: str) -> dict[str, dict[str, float]]:
    """Return the mean scores of each reference in a world, by title and by name of the score.

    A score that no record tells is left out, and so is a reference without scores. The share of
    source agents is that of the last ten episodes of their histories.
    """
    found = {}
    if max(_values(board, cells, world, "optimal_return"), default=0) > 0:
        found[OPTIMAL] = dict.fromkeys([NORMALIZED, *SHARES], 1.0)
    for name, title in TITLES.items():
        histories = LEARNERS if title == TABULAR_LEARNER else HISTORIES
        if naucs := _values(board, cells, world, f"{name}_nauc", histories):
            found[title] = {"nauc": t_interval(naucs)["mean"]}
    if random := found.get(TITLES["random"]):  # whose expected return is that of every episode
        random |= dict.fromkeys(SHARES, random["nauc"]) | {NORMALIZED: 0.0}
    for histories, title in SOURCE_TITLES.items():
        if shares := _values(board, cells, world, "source_share", (histories,)):
            found[title] = {SCORE: t_interval(shares)["mean"]}
    return found


def _values(
    board: Board, cells: Records, world: str, score: str, histories: tuple[str, ...] = HISTORIES
) -> list[float]:
    """Return the known values of a score in the runs of one method, that of the first that has any.

    Methods come in the order of `histories`, then of the board. One method is enough, since they
    share the references of a world, and it is the same for all runs: methods differ in the train
    tasks that they are evaluated on.
    """
    order = sorted(
        (method for method, entry in board.methods.items() if entry.histories in histories),
        key=lambda method: histories.index(board.methods[method].histories),
    )
    known = (values_of(cells.get((world, method), []), score) for method in order)
    return next(filter(None, known), [])
