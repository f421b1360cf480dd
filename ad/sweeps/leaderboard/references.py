"""What stands beside the methods of a world: optimal and random play, searchers, the source agents.

The scores are those of the records of a world's runs. The reports of single runs have the same
references (`ad.evaluation.references`).
"""

from ad.evaluation.metrics import t_interval
from ad.sweeps.leaderboard.plan import Board
from ad.sweeps.leaderboard.scores import NORMALIZED, SCORE, Records, values_of

OPTIMAL = "optimal policy"
TITLES = {
    "random": "random actions",
    "tabular_learner": "tabular learner from nothing",
    "explorer": "best known searcher",
}
SOURCES = {  # histories -> title of the agents that they are of
    "learner": "the learner itself, on train tasks",
    "searcher": "the searcher itself, on train tasks",
}


def references(board: Board, cells: Records, world: str) -> dict[str, dict[str, float]]:
    """Return the mean scores of each reference in a world, by title and by name of the score.

    A score that no record tells is left out, and so is a reference without scores. The share of
    source agents is that of the last ten episodes of their histories.
    """
    made = {"learner": [], "searcher": [], "none": []}
    for (place, method), records in cells.items():
        if place == world:
            made[board.methods[method].histories] += records
    # The tabular learner has the settings of a source that is the same algorithm.
    main = made["learner"] or made["searcher"] or made["none"]
    found = {}
    if values_of(main, "optimal_return"):
        found[OPTIMAL] = dict.fromkeys((SCORE, NORMALIZED, "nauc"), 1.0)
    naucs = {name: values_of(main, f"{name}_nauc") for name in TITLES}
    found |= {TITLES[name]: {"nauc": _mean(values)} for name, values in naucs.items() if values}
    if naucs["random"]:  # it is as good in every episode
        found[TITLES["random"]] |= {SCORE: _mean(naucs["random"]), NORMALIZED: 0.0}
    shares = {name: values_of(made[name], "source_share") for name in SOURCES}
    return found | {SOURCES[n]: {SCORE: _mean(values)} for n, values in shares.items() if values}


def _mean(values: list[float]) -> float:
    return t_interval(values)["mean"]
