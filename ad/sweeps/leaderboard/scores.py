"""The scores of a leaderboard's cells, from the records of their runs, and as text.

Beside the methods of a world stand references: optimal and random play, searchers, source agents.
"""

from collections.abc import Sequence

import numpy as np

from ad.evaluation.aggregates import (
    bootstrap_interval,
    interquartile_mean,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
)
from ad.evaluation.comparisons import Comparison, holm, pool
from ad.evaluation.metrics import t_interval
from ad.reporting.tables import bounds, interval, number
from ad.sweeps.leaderboard.plan import Board, Cell
from ad.sweeps.records import RunRecord, read_curve

SCORE = "share_of_optimum_last10"  # the score of a run: its mean over the held-out tasks
# SCORE / the share of optimum that the source agents reach at the end of the train tasks' histories
SHARE_OF_SOURCE = "share_of_source"
# the NAUC, 0 for that of random actions, 1 for that of an agent that learns the task from nothing
OVER_LEARNER = "between_random_and_learner"
NORMALIZED = "normalized_return_last10"  # between random and optimal, which worlds have in common
METRICS = {  # score -> heading and number format
    SCORE: ("share of optimum, last 10", ".3f"),
    NORMALIZED: ("between random and optimal", ".3f"),
    "nauc": ("NAUC", ".3f"),
    **{f"at_{e}": (f"share of optimum, episode {e}", ".3f") for e in (10, 25, 50, 100)},
    "episodes_to_80pct": ("80 % at episode", ".0f"),
    "tasks_solved": ("tasks solved", ".1f"),
    "train_nauc": ("NAUC, train tasks", ".3f"),
}
OTHER_SCORES = {  # of aims
    SHARE_OF_SOURCE: ("share of optimum / that of its source, last 10", ".3f"),
    OVER_LEARNER: ("NAUC between random actions and the tabular learner", ".3f"),
}
OPTIMAL, TABULAR_LEARNER = "optimal policy", "tabular learner from nothing"
REFERENCE_TITLES = {
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
THRESHOLDS = np.linspace(0, 1, 51)
Records = dict[tuple[str, str], list[RunRecord]]  # of a world and a method


def records_of_cells(board: Board, records: dict[str, RunRecord]) -> Records:
    """Return the records of each cell that has some, in the order of its runs."""
    found = {
        (cell.world, cell.method): [records[run.key] for run in cell.runs if run.key in records]
        for cell in board.cells
    }
    return {cell: made for cell, made in found.items() if made}


def values_of(made: Sequence[RunRecord], score: str) -> list[float]:
    """Return the known values of a score in the records of a cell.

    `at_<e>` is the share of the optimal return in episode e. SHARE_OF_SOURCE divides shares of the
    optimal return, since train and held-out tasks have different ones. OVER_LEARNER is 1 for a
    model that learns as fast as the tabular learner of the reports.
    """
    if score.startswith("at_"):
        found = [read_curve(record).get(int(score.removeprefix("at_"))) for record in made]
    elif score == SHARE_OF_SOURCE:
        known = [r for r in made if r[SCORE] is not None and r["source_share"]]
        found = [record[SCORE] / record["source_share"] for record in known]
    elif score == OVER_LEARNER:
        naucs = ("random_nauc", "nauc", "tabular_learner_nauc")
        three = [[record[name] for name in naucs] for record in made]
        found = [(own - low) / (high - low) for low, own, high in three if None not in (low, high)]
    else:
        found = [record[score] for record in made]
    return [value for value in found if value is not None]


def compare(board: Board, cells: Records) -> dict[tuple[str, str], Comparison]:
    """Return the comparison of each cell with that of the first method in its world.

    The standard deviation is pooled over the two cells, since those of different methods differ
    widely; Holm's correction counts the comparisons of the whole board.
    """
    reference, tests = next(iter(board.methods)), {}
    for world in board.worlds:
        scores = {m: values_of(cells.get((world, m), []), SCORE) for m in board.methods}
        base = scores[reference]
        for method, own in scores.items():
            deviation = pool([own, base])
            if deviation and own and base and method != reference:
                difference = float(np.mean(own) - np.mean(base))
                tests[world, method] = deviation, difference, (len(own), len(base))
    corrected = holm([own.p_value(mean, *counts) for own, mean, counts in tests.values()])
    return {
        cell: Comparison(mean, own.interval(mean, *counts), p)
        for (cell, (own, mean, counts)), p in zip(tests.items(), corrected, strict=True)
    }


def missing_cells(board: Board, cells: Records) -> list[Cell]:
    """Return the cells that could be made and lack records of some of their runs."""
    return [c for c in board.cells if len(cells.get((c.world, c.method), [])) < len(c.runs)]


def complete_scores(board: Board, cells: Records) -> dict[str, np.ndarray]:
    """Return the normalized returns [R, W] of each method with all first runs, the first one first.

    W are the worlds in which the first method has its first runs; a method that lacks one there is
    left out. R is the smallest number of runs of a cell.
    """
    first = {(cell.world, cell.method): cell.num_first for cell in board.cells}
    known = {cell: values_of(own, NORMALIZED) for cell, own in cells.items()}
    scores = {cell: values for cell, values in known.items() if len(values) >= first[cell]}
    reference = next(iter(board.methods))
    worlds = [world for world in board.worlds if (world, reference) in scores]
    methods = [m for m in board.methods if worlds and all((w, m) in scores for w in worlds)]
    runs = min((len(scores[w, m]) for w in worlds for m in methods), default=0)
    return {m: np.array([scores[w, m][:runs] for w in worlds]).T for m in methods}


def tuning_scores(board: Board, cells: Records) -> dict[str, dict[str, float]]:
    """Return the score of each row of a tuning board, by method and the row's title.

    It is the NAUC, as the mean over the worlds and their runs. A method is left out until all its
    rows have all their runs.
    """
    missing = {cell.method for cell in missing_cells(board, cells)}

    def score(row: str) -> float:
        made = [cells[world, row] for world in board.worlds if (world, row) in cells]
        return float(np.mean([np.mean(values_of(own, "nauc")) for own in made]))

    return {
        method: {row: score(row) for row in rows}
        for method, rows in board.tried.items()
        if not missing & set(rows)
    }


def aggregate(board: Board, cells: Records) -> dict[str, dict]:
    """Return the aggregates of each method of `complete_scores`.

    Each is (value, low, high): interquartile_mean, optimality_gap, and improvement, the probability
    to beat a run of the first method, which itself has None; `profile` has lists over THRESHOLDS.
    There are none for a board with one run a cell, which has no interval.
    """
    scores, reference = complete_scores(board, cells), next(iter(board.methods))
    if not scores or len(scores[reference]) < 2:
        return {}
    found = {m: _aggregates(own, scores[reference]) for m, own in scores.items()}
    found[reference]["improvement"] = None
    return found


def _aggregates(own: np.ndarray, reference: np.ndarray) -> dict:
    def profile(scores: np.ndarray) -> np.ndarray:
        return performance_profile(scores, THRESHOLDS)

    statistics = {
        "interquartile_mean": (interquartile_mean, (own,)),
        "optimality_gap": (optimality_gap, (own,)),
        "improvement": (probability_of_improvement, (own, reference)),
        "profile": (profile, (own,)),
    }
    return {
        name: tuple(
            np.asarray(x).tolist()
            for x in (statistic(*scores), *bootstrap_interval(statistic, *scores))
        )
        for name, (statistic, scores) in statistics.items()
    } | {"worlds": own.shape[1]}


def column_of(score: str) -> tuple[str, str]:
    """Return the heading and the number format of a score."""
    if score.startswith("at_"):
        return f"share of optimum, episode {score.removeprefix('at_')}", ".3f"
    return (METRICS | OTHER_SCORES)[score]


def mean_text(made: list[RunRecord] | None, name: str, is_bounded: bool = True) -> str:
    """Return the mean of a score over runs as text, with its interval if `is_bounded`."""
    style = column_of(name)[1]
    values = values_of(made or [], name)
    estimate = t_interval(values)
    some = f" ({len(values)} of {len(made)})" if made and 0 < len(values) < len(made) else ""
    if is_bounded:
        return interval(estimate["mean"], bounds(estimate), style) + some
    return number(estimate["mean"], style) + some


def references(board: Board, cells: Records, world: str) -> dict[str, dict[str, float]]:
    """Return the mean scores of each reference in a world, by title and by name of the score.

    A score that no record tells is left out, and so is a reference without scores. The share of
    source agents is that of the last ten episodes of their histories.
    """
    found = {}
    if max(_values(board, cells, world, "optimal_return"), default=0) > 0:
        found[OPTIMAL] = dict.fromkeys([NORMALIZED, *SHARES], 1.0)
    for name, title in REFERENCE_TITLES.items():
        histories = LEARNERS if title == TABULAR_LEARNER else HISTORIES
        if naucs := _values(board, cells, world, f"{name}_nauc", histories):
            found[title] = {"nauc": t_interval(naucs)["mean"]}
    if random := found.get(
        REFERENCE_TITLES["random"]
    ):  # whose expected return is that of every episode
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
