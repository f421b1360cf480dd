"""The tables of the leaderboard: the summary, the aggregates, a world, and a line for each cell."""

import math
from statistics import fmean

from ad.evaluation.metrics import t_interval
from ad.reporting.tables import UNKNOWN, Table, interval, number
from ad.sweeps.leaderboard.plan import Board, MethodConfig
from ad.sweeps.leaderboard.scores import (
    METRICS,
    NORMALIZED,
    SCORE,
    TABULAR_LEARNER,
    Records,
    mean_text,
    references,
    tuning_scores,
    values_of,
)
from ad.sweeps.planned import settings_text

BELOW_LEARNER = " †"  # behind an NAUC that is below that of the tabular learner
INTERVALS = (SCORE, NORMALIZED, "nauc")  # scores that are shown with intervals
AGGREGATES = {
    "interquartile_mean": "interquartile mean",
    "optimality_gap": "optimality gap",
    "improvement": "probability to beat {}",
}


def summary_table(board: Board, cells: Records) -> Table:
    """Return a row for each method, with its score in each world, then the references."""
    problems = {(cell.world, cell.method): cell.problem for cell in board.cells}
    rows = []
    for method, entry in board.methods.items():
        scores = [
            "not applicable"
            if problems[world, method]
            else mean_text(cells.get((world, method)), SCORE)
            for world in board.worlds
        ]
        rows.append([method, *kind(entry), *scores])
    of_worlds = [references(board, cells, world) for world in board.worlds]
    for title in dict.fromkeys(title for found in of_worlds for title in found):
        scores = [found.get(title, {}).get(SCORE) for found in of_worlds]
        if any(score is not None for score in scores):
            texts = [number(score, ".3f") for score in scores]
            rows.append([f"*{title}*", *[UNKNOWN] * 3, *texts])
    return Table(["method", "histories of", "regime", "labels", *board.worlds], rows)


def short_table(board: Board, cells: Records) -> Table:
    """Return a row for each world: per cent of optimal of each method.

    A bracket has the number of runs, unless it is `Cell.num_first`, that without further runs.
    """
    planned = {(cell.world, cell.method): cell for cell in board.cells}

    def text(world: str, method: str) -> str:
        cell, values = planned[world, method], values_of(cells.get((world, method), []), SCORE)
        if not values:
            return "not applicable" if cell.problem else UNKNOWN
        mean = f"{100 * t_interval(values)['mean']:.1f}"
        return mean if len(values) == cell.num_first else f"{mean} ({len(values)})"

    rows = [[world, *(text(world, method) for method in board.methods)] for world in board.worlds]
    return Table(["world", *board.methods], rows)


def aggregates_table(board: Board, aggregates: dict[str, dict]) -> Table:
    """Return a row for each method with all runs, with its aggregates over worlds."""
    first = next(iter(board.methods))
    rows = [
        [
            method,
            str(entry["worlds"]),
            *(
                interval(entry[name][0], entry[name][1:], ".3f") if entry[name] else UNKNOWN
                for name in AGGREGATES
            ),
        ]
        for method, entry in aggregates.items()
    ]
    headings = [heading.format(first) for heading in AGGREGATES.values()]
    return Table(["method", "worlds", *headings], rows)


def tuning_table(board: Board, cells: Records) -> Table:
    """Return a row for each method whose settings have all been tried, with the best of them."""
    rows = []
    for method, scores in tuning_scores(board, cells).items():
        best = settings_text(board.methods[max(scores, key=scores.get)].tuned)
        ends = [number(end, ".3f") for end in (max(scores.values()), min(scores.values()))]
        rows.append([method, best, *ends, str(len(scores))])
    return Table(["method", "best settings", "their NAUC", "lowest NAUC", "tried"], rows)


def world_table(board: Board, cells: Records, world: str, compared: dict) -> Table:
    """Return all scores of each method in a world, then the references.

    BELOW_LEARNER marks a mean NAUC below that of the tabular learner.
    """
    first, rows, transitions = next(iter(board.methods)), [], _transitions(board)
    beside = references(board, cells, world)
    least = beside.get(TABULAR_LEARNER, {}).get("nauc", -math.inf)
    for method in board.methods:
        if made := cells.get((world, method)):
            scores = {name: mean_text(made, name, name in INTERVALS) for name in METRICS}
            if (naucs := values_of(made, "nauc")) and fmean(naucs) < least:
                scores["nauc"] += BELOW_LEARNER
            against = str(compared.get((world, method), UNKNOWN))
            taken = f"{transitions[world, method]:,}"
            rows.append([method, *scores.values(), against, taken, str(len(made))])
    for title, known in beside.items():
        scores = [number(known.get(metric), ".3f") for metric in METRICS]
        rows.append([f"*{title}*", *scores, UNKNOWN, UNKNOWN, UNKNOWN])
    headings = [heading for heading, _ in METRICS.values()]
    against = f"share of optimum minus that of {first}"
    return Table(["method", *headings, against, "source transitions", "runs"], rows)


def long_table(board: Board, cells: Records) -> Table:
    """Return a row for each cell with records: its method, source and mean scores."""
    rows, transitions = [], _transitions(board)
    for (world, method), made in cells.items():
        scores = [mean_text(made, name, is_bounded=False) for name in METRICS]
        counts = str(transitions[world, method]), str(len(made))
        rows.append([world, method, *kind(board.methods[method]), *scores, *counts])
    about = ("histories", "regime", "labels")
    return Table(["world", "method", *about, *METRICS, "transitions", "runs"], rows)


def _transitions(board: Board) -> dict[tuple[str, str], int]:
    """Return the number of transitions that each cell's runs learn from, by world and method."""
    return {(cell.world, cell.method): cell.transitions for cell in board.cells if cell.runs}


def kind(entry: MethodConfig) -> list[str]:
    """Return the columns that say what a method learns from."""
    return [entry.histories, entry.regime, entry.labels]
