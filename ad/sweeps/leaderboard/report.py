"""The files of the leaderboard: tables as Markdown, CSV and LaTeX, and one HTML page."""

import csv
import io
import json
from pathlib import Path

import jinja2

from ad.config.fields import as_yaml
from ad.evaluation.metrics import t_interval
from ad.methods import build_method
from ad.registry import SOURCES
from ad.reporting.tables import UNKNOWN, Table, bounds, interval, number
from ad.runtime.console import info, warn
from ad.runtime.files import write_text
from ad.runtime.locks import locked
from ad.sweeps.leaderboard.plan import Board, Cell, MethodConfig
from ad.sweeps.leaderboard.published import Published, read_published
from ad.sweeps.leaderboard.scores import (
    SCORE,
    THRESHOLDS,
    Records,
    aggregate,
    compare,
    missing_cells,
    records_of_cells,
    tuning_scores,
    values_of,
)
from ad.sweeps.planned import settings_text
from ad.sweeps.records import SECONDS, RunRecord, read_curve, read_per_task, read_records

METRICS = {  # score -> heading and number format
    SCORE: ("share of optimum, last 10", ".3f"),
    "normalized_return_last10": ("between random and optimal", ".3f"),
    "nauc": ("NAUC", ".3f"),
    **{f"at_{e}": (f"share of optimum, episode {e}", ".3f") for e in (10, 25, 50, 100)},
    "episodes_to_80pct": ("80 % at episode", ".0f"),
    "tasks_solved": ("tasks solved", ".1f"),
    "train_nauc": ("NAUC, train tasks", ".3f"),
}
INTERVALS = (SCORE, "normalized_return_last10", "nauc")  # scores that are shown with intervals
AGGREGATES = {
    "interquartile_mean": "interquartile mean",
    "optimality_gap": "optimality gap",
    "improvement": "probability to beat {}",
}
REFERENCES = {
    "random": "random actions",
    "tabular_learner": "tabular learner from nothing",
    "explorer": "best known searcher",
}


def write_leaderboard(board: Board, records_file: Path, folder: Path, name: str) -> None:
    """Write <name>.md, .csv, .tex and .html into `folder` from the records, and print the summary.

    Published results are read from published.csv beside the file of the leaderboard's plan.
    """
    cells = records_of_cells(board, read_records(records_file))
    published = read_published(board.path.with_name("published.csv"))
    published = [line for line in published if line.world in board.worlds]
    summary, aggregates = summary_table(board, cells), aggregate(board, cells)
    with locked(folder, wait=True):
        write_text(folder / f"{name}.md", markdown(board, cells, published, aggregates))
        write_text(folder / f"{name}.csv", as_csv(long_table(board, cells)))
        write_text(folder / f"{name}.tex", latex(summary))
        write_text(folder / f"{name}.html", html(board, cells, published, aggregates))
    info((tuning_table(board, cells) if board.tried else summary).markdown().rstrip())
    warn_of_untuned(board, cells)
    made = sum(len(runs) for runs in cells.values())
    info(f"leaderboard: {made} of {len(board.planned_runs())} runs in {folder / name}.html")


def markdown(board: Board, cells: Records, published: list[Published], aggregates: dict) -> str:
    """Return the page as Markdown: the summary, the aggregates and a table for each world."""
    parts = [
        "# Leaderboard\n",
        f"`{SCORE}` on held-out tasks: the mean return of the last ten in-context episodes, as a "
        "share of the optimal return. Brackets: 95 % intervals over runs (Student's t), whose "
        "seeds of the source agents and of training differ; all have one split of the tasks.\n",
        summary_table(board, cells).markdown(),
    ]
    if aggregates:
        parts += [
            "\nAggregates of returns between random (0) and optimal (1), over the worlds in which "
            "all of these methods have all runs; brackets are bootstrap intervals over runs "
            "(Agarwal et al. 2021).\n",
            aggregates_table(board, aggregates).markdown(),
        ]
    if board.tried:
        parts += [
            "\nThe best of the settings that each method has tried, by their NAUC on held-out "
            "tasks, as the mean over these worlds.\n",
            tuning_table(board, cells).markdown(),
        ]
    parts += [missing_text(board, cells)]
    compared = compare(board, cells)
    for world, entry in board.worlds.items():
        if any(own == world for own, _ in cells):
            table = world_table(board, cells, world, compared, published)
            parts += [f"\n## {world}\n", f"`{entry.experiment}`\n", table.compact().markdown()]
    return "\n".join(part for part in parts if part)


def summary_table(board: Board, cells: Records) -> Table:
    """Return a row for each method, with its score in each world."""
    problems = {(cell.world, cell.method): cell.problem for cell in board.cells}
    rows = []
    for method, entry in board.methods.items():
        scores = [
            "not applicable"
            if problems[world, method]
            else _mean(cells.get((world, method)), SCORE)
            for world in board.worlds
        ]
        rows.append([method, *_kind(entry), *scores])
    return Table(["method", "histories of", "regime", "labels", *board.worlds], rows)


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


def warn_of_untuned(board: Board, cells: Records) -> None:
    """Warn of methods for which the board's file names other settings than the best ones."""
    for method, scores in tuning_scores(board, cells).items():
        best = board.methods[max(scores, key=scores.get)].tuned
        if best != board.tuned[method]:
            warn(f"{board.path}: {method}: set tuned to {as_yaml(best)}, its best settings")


def world_table(
    board: Board, cells: Records, world: str, compared: dict, published: list[Published]
) -> Table:
    """Return all scores of each method in a world, then the references and published results."""
    first, rows = next(iter(board.methods)), []
    transitions = _transitions(board)
    for method in board.methods:
        if made := cells.get((world, method)):
            scores = [_mean(made, name, name in INTERVALS) for name in METRICS]
            against = str(compared.get((world, method), UNKNOWN))
            taken = f"{transitions[world, method]:,}"
            rows.append([method, *scores, against, taken, str(len(made))])
    for title, nauc in references(board, cells, world).items():
        scores = [number(nauc if metric == "nauc" else None, ".3f") for metric in METRICS]
        rows.append([f"*{title}*", *scores, UNKNOWN, UNKNOWN, UNKNOWN])
    for line in published:
        if line.world == world:
            about = f"{line.value} {line.metric}; {line.budget}; {line.regime}, {line.labels}"
            text = f"*{line.method}* ({line.source}, {line.read}): {about}. {line.difference}"
            rows.append([text.rstrip(), *[UNKNOWN] * (len(METRICS) + 3)])
    headings = [heading for heading, _ in METRICS.values()]
    against = f"share of optimum minus that of {first}"
    return Table(["method", *headings, against, "source transitions", "runs"], rows)


def long_table(board: Board, cells: Records) -> Table:
    """Return a row for each cell with records: its method, source and mean scores."""
    rows, transitions = [], _transitions(board)
    for (world, method), made in cells.items():
        scores = [_mean(made, name, is_bounded=False) for name in METRICS]
        counts = str(transitions[world, method]), str(len(made))
        rows.append([world, method, *_kind(board.methods[method]), *scores, *counts])
    kind = ("histories", "regime", "labels")
    return Table(["world", "method", *kind, *METRICS, "transitions", "runs"], rows)


def missing_text(board: Board, cells: Records) -> str:
    """Return a sentence about the cells without all their runs, "" if there are none."""
    missing = missing_cells(board, cells)
    if not missing:
        return ""
    runs = sum(len(cell.runs) - len(cells.get((cell.world, cell.method), [])) for cell in missing)
    return f"\n{runs} runs of {len(missing)} cells are not made yet.\n"


def as_csv(table: Table) -> str:
    """Return a table as CSV; what is unknown is empty."""
    buffer = io.StringIO()
    rows = [["" if cell == UNKNOWN else cell for cell in row] for row in table.rows]
    csv.writer(buffer, lineterminator="\n").writerows([table.header, *rows])
    return buffer.getvalue()


def latex(table: Table) -> str:
    """Return a table as a LaTeX tabular with the rules of booktabs."""
    escaped = [[_escape(cell) for cell in row] for row in (table.header, *table.rows)]
    header, *rows = [" & ".join(row) + r" \\" for row in escaped]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}"
    end = r"\end{tabular}"
    lines = [begin, r"\toprule", header, r"\midrule", *rows, r"\bottomrule", end, ""]
    return "\n".join(lines)


def _escape(text: str) -> str:
    for sign in "&%#_":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("–", "--").replace("×", r"$\times$")


def html(board: Board, cells: Records, published: list[Published], aggregates: dict) -> str:
    """Return the page, which needs no other file and no network."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ad.sweeps.leaderboard", "."), autoescape=True
    )
    data = json.dumps(page_data(board, cells, published, aggregates), allow_nan=False)
    data = data.replace("<", "\\u003c")  # nothing in the data may end the script
    return environment.get_template("leaderboard.html.j2").render(data=data)


def page_data(board: Board, cells: Records, published: list[Published], aggregates: dict) -> dict:
    """Return what the page shows, in plain types."""
    compared = compare(board, cells)
    return {
        "metrics": {name: heading for name, (heading, _) in METRICS.items()},
        "methods": [
            dict(zip(("name", "histories", "regime", "labels"), (m, *_kind(entry)), strict=True))
            for m, entry in board.methods.items()
        ],
        "worlds": [
            {
                "name": world,
                "experiment": entry.experiment,
                "references": references(board, cells, world),
                "published": [vars(line) for line in published if line.world == world],
            }
            for world, entry in board.worlds.items()
        ],
        "cells": [_cell(cell, cells, compared) for cell in board.cells],
        "aggregates": aggregates,
        "aggregate_titles": {
            name: heading.format(next(iter(board.methods))) for name, heading in AGGREGATES.items()
        },
        "thresholds": THRESHOLDS.tolist(),
    }


def _cell(cell: Cell, cells: Records, compared: dict) -> dict:
    """Return what the page shows of a cell."""
    made = cells.get((cell.world, cell.method), [])
    found = {"world": cell.world, "method": cell.method, "planned": len(cell.runs)}
    found |= {"problem": cell.problem, "runs": [_run(record) for record in made]}
    if made:
        config = cell.runs[0].config
        method = build_method(config.method)
        told = getattr(SOURCES.load(config.source.algorithm), "TOLD", None) or UNKNOWN
        found |= {
            "told": "nothing" if method.online else told,
            "source": "itself, online" if method.online else config.source.algorithm,
            "transitions": method.transitions(config),
            "train_steps": method.train_steps(config),
            "scores": {name: _estimate(made, name) for name in METRICS},
            "against": str(compared.get((cell.world, cell.method), "")),
        }
    return found


def _run(record: RunRecord) -> dict:
    return {
        "curve": list(read_curve(record).items()),
        "per_task": read_per_task(record),
        "seconds": {name: record[name] for name in SECONDS},
    }


def references(board: Board, cells: Records, world: str) -> dict[str, float]:
    """Return the mean NAUC of each reference in a world, by title.

    Runs on the histories of the world's learner count, where there are some: the tabular learner
    has the settings of a source that is the same algorithm.
    """
    made = {"learner": [], "searcher": []}
    for (place, method), records in cells.items():
        if place == world:
            made[board.methods[method].histories] += records
    made = made["learner"] or made["searcher"]
    naucs = {title: values_of(made, f"{name}_nauc") for name, title in REFERENCES.items()}
    return {title: t_interval(values)["mean"] for title, values in naucs.items() if values}


def _transitions(board: Board) -> dict[tuple[str, str], int]:
    """Return the number of transitions that each cell's runs learn from, by world and method."""
    configs = {(cell.world, cell.method): cell.runs[0].config for cell in board.cells if cell.runs}
    return {
        cell: build_method(config.method).transitions(config) for cell, config in configs.items()
    }


def _kind(entry: MethodConfig) -> list[str]:
    """Return the columns that say what a method learns from."""
    return [entry.histories, entry.regime, entry.labels]


def _estimate(made: list[RunRecord], name: str) -> list[float | None]:
    """Return [mean, low, high, runs] of a score over the runs in which it is known."""
    estimate = t_interval(values_of(made, name))
    return [estimate["mean"], estimate["lo"], estimate["hi"], estimate["n"]]


def _mean(made: list[RunRecord] | None, name: str, is_bounded: bool = True) -> str:
    """Return the mean of a score over runs as text, with its interval if `is_bounded`."""
    style = METRICS.get(name, ("", ".3f"))[1]
    values = values_of(made or [], name)
    estimate = t_interval(values)
    some = f" ({len(values)} of {len(made)})" if made and 0 < len(values) < len(made) else ""
    if is_bounded:
        return interval(estimate["mean"], bounds(estimate), style) + some
    return number(estimate["mean"], style) + some
