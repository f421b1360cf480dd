"""The files of the leaderboard: tables as Markdown, CSV and LaTeX, and one HTML page."""

import csv
import io
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import jinja2

from ad.config.fields import as_yaml
from ad.evaluation.metrics import t_interval
from ad.registry import SOURCES
from ad.reporting.tables import UNKNOWN, Table
from ad.runtime.console import info, warn
from ad.runtime.files import is_marked, replace_between, write_text
from ad.runtime.locks import locked_files
from ad.sweeps.files import read_file
from ad.sweeps.leaderboard.aims import Aim, aims_table, read_aims
from ad.sweeps.leaderboard.plan import Board, Cell, LeaderboardConfig
from ad.sweeps.leaderboard.published import Published, read_published
from ad.sweeps.leaderboard.scores import (
    METRICS,
    SCORE,
    TABULAR_LEARNER,
    THRESHOLDS,
    Records,
    aggregate,
    compare,
    missing_cells,
    records_of_cells,
    references,
    tuning_scores,
    values_of,
)
from ad.sweeps.leaderboard.tables import (
    AGGREGATES,
    BELOW_LEARNER,
    aggregates_table,
    kind,
    long_table,
    short_table,
    summary_table,
    tuning_table,
    world_table,
)
from ad.sweeps.records import SECONDS, RunRecord, read_curve, read_per_task, read_records

FOOTNOTE = (
    f"\n{BELOW_LEARNER.strip()} A mean NAUC below that of the tabular learner from nothing: over "
    "all its episodes the model has a lower return than an agent that learns the task without any "
    "training. The tabular learner is UCB1 on bandits and Q-learning elsewhere, with the settings "
    "of the world's learner where that is the same algorithm, otherwise with the defaults.\n"
)


@dataclass(frozen=True)
class Leaderboard:
    """A board with its records and their aggregates, and the published results and aims.

    Published results and aims are those of the board's worlds.
    """

    board: Board
    cells: Records
    published: list[Published]
    aims: list[Aim]
    aggregates: dict[str, dict]


def read_leaderboard(board: Board, records_file: Path) -> Leaderboard:
    """Return the leaderboard of `board` by the records.

    Published results and aims are read from published.csv and aims.csv beside the board's plan.
    """
    cells = records_of_cells(board, read_records(records_file))
    plan = read_file(board.path, LeaderboardConfig)
    published = read_published(board.path.with_name("published.csv"), plan)
    aims = read_aims(board.path.with_name("aims.csv"), plan)
    published, aims = (
        [line for line in lines if line.world in board.worlds] for lines in (published, aims)
    )
    return Leaderboard(board, cells, published, aims, aggregate(board, cells))


def write_leaderboard(board: Board, records_file: Path, folder: Path, name: str) -> None:
    """Write <name>.md, .tex, .html and the table of cells <name>_scores.csv into `folder`.

    Print the summary, which also replaces what is between the lines `<!-- name -->` and
    `<!-- /name -->` of the board's page, if it has them.
    """
    found = read_leaderboard(board, records_file)
    summary, page = summary_table(board, found.cells), Path(board.page)
    with locked_files(folder):
        write_text(folder / f"{name}.md", markdown(found))
        write_text(folder / f"{name}_scores.csv", as_csv(long_table(board, found.cells)))
        write_text(folder / f"{name}.tex", latex(summary))
        write_text(folder / f"{name}.html", html(found))
        if board.page and is_marked(page, name):
            replace_between(page, {name: short_table(board, found.cells).markdown()})
    chosen = tuning_table(board, found.cells)
    info((chosen if board.tried else summary).markdown().rstrip())
    warn_of_untuned(board, found.cells)
    made = sum(len(runs) for runs in found.cells.values())
    info(f"leaderboard: {made} of {len(board.planned_runs())} runs in {folder / name}.html")


def markdown(found: Leaderboard) -> str:
    """Return the page as Markdown: summary, aggregates, aims, and a table for each world."""
    board, cells = found.board, found.cells
    parts = [
        "# Leaderboard\n",
        f"`{SCORE}` on held-out tasks: the mean return of the last ten in-context episodes, as a "
        "share of the optimal return. Brackets: 95 % intervals over runs (Student's t), whose "
        "seeds of the source agents and of training differ; all have one split of the tasks. "
        "A learner is told nothing, a searcher the family of tasks; both are scored in the last "
        "ten episodes of their histories, on train tasks."
        f"{further_text(board)}\n",
        summary_table(board, cells).markdown(),
    ]
    if found.aggregates:
        parts += [
            "\nAggregates of returns between random (0) and optimal (1), over the worlds in which "
            "all of these methods have all runs; brackets are bootstrap intervals over runs "
            "(Agarwal et al. 2021).\n",
            aggregates_table(board, found.aggregates).markdown(),
        ]
    if board.tried:
        parts += [
            "\nThe best of the settings that each method has tried, by their NAUC on held-out "
            "tasks, as the mean over these worlds.\n",
            tuning_table(board, cells).markdown(),
        ]
    parts += [f"\n{board.note}\n" if board.note else "", missing_text(board, cells)]
    parts += [untuned_text(board)]
    if found.aims:
        parts += ["\n## Aims\n", aims_table(board, cells, found.aims).markdown()]
    compared = compare(board, cells)
    for world in board.worlds:
        if any(own == world for own, _ in cells):
            parts += world_parts(found, world, compared)
    if any(BELOW_LEARNER in part for part in parts):
        parts.append(FOOTNOTE)
    return "\n".join(part for part in parts if part)


def warn_of_untuned(board: Board, cells: Records) -> None:
    """Warn of methods for which the board's file names other settings than the best ones."""
    for method, scores in tuning_scores(board, cells).items():
        best = board.methods[max(scores, key=scores.get)].tuned
        if best != board.tuned[method]:
            warn(f"{board.path}: {method}: set tuned to {as_yaml(best)}, its best settings")


def world_parts(found: Leaderboard, world: str, compared: dict) -> list[str]:
    """Return the paragraphs about a world: its scores and published results."""
    table = world_table(found.board, found.cells, world, compared).compact().markdown()
    parts = [f"\n## {world}\n", f"`{found.board.worlds[world].experiment}`\n", table]
    lines = [
        f"- {line.method}: {line.value} {line.metric} ({line.budget}; {line.regime}, labels: "
        f"{line.labels}; {line.source}, read from its {line.read}); {line.difference}"
        for line in found.published
        if line.world == world
    ]
    return [*parts, "\nPublished, under their own protocols:\n", *lines, ""] if lines else parts


def missing_text(board: Board, cells: Records) -> str:
    """Return how many runs are not made yet, "" if all are made."""
    missing = missing_cells(board, cells)
    if not missing:
        return ""
    runs = sum(len(cell.runs) - len(cells.get((cell.world, cell.method), [])) for cell in missing)
    return f"\nMissing runs: {runs} of {len(board.planned_runs())}.\n"


def further_text(board: Board) -> str:
    """Return a sentence about cells with more runs than others, "" if there can be none."""
    if not any(cell.further_runs for cell in board.cells):
        return ""
    number = max(cell.num_first for cell in board.cells)
    return (
        f" In a world where the intervals of {number} runs of other methods reach that of the best "
        "one, these methods have further runs."
    )


def untuned_text(board: Board) -> str:
    """Return a sentence that names the methods which are not tuned yet, "" if all are."""
    return f"\nNot tuned yet: {', '.join(board.untuned)}.\n" if board.untuned else ""


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
    """Return the text of a cell in LaTeX; *text* is emphasized."""
    for sign in "&%#_":
        text = text.replace(sign, f"\\{sign}")
    text = re.sub(r"^\*(.*)\*$", r"\\emph{\1}", text)
    return text.replace("–", "--").replace("×", r"$\times$")


def html(found: Leaderboard) -> str:
    """Return the page, which needs no other file and no network."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ad.sweeps.leaderboard", "."), autoescape=True
    )
    data = json.dumps(page_data(found), allow_nan=False)
    data = data.replace("<", "\\u003c")  # nothing in the data may end the script
    return environment.get_template("leaderboard.html.j2").render(data=data)


def page_data(found: Leaderboard) -> dict:
    """Return what the page shows, in plain types."""
    board, cells = found.board, found.cells
    compared = compare(board, cells)
    return {
        "metrics": {name: heading for name, (heading, _) in METRICS.items()},
        "methods": [
            dict(zip(("name", "histories", "regime", "labels"), (m, *kind(entry)), strict=True))
            for m, entry in board.methods.items()
        ],
        "worlds": [
            {
                "name": world,
                "experiment": entry.experiment,
                "references": (beside := references(board, cells, world)),
                "least_nauc": beside.get(TABULAR_LEARNER, {}).get("nauc"),
                "published": [vars(line) for line in found.published if line.world == world],
            }
            for world, entry in board.worlds.items()
        ],
        "cells": [_cell(cell, cells, compared) for cell in board.cells],
        "aims": asdict(aims_table(board, cells, found.aims)),
        "untuned": untuned_text(board).strip(),
        "note": board.note,
        "aggregates": found.aggregates,
        "aggregate_titles": {
            name: heading.format(next(iter(board.methods))) for name, heading in AGGREGATES.items()
        },
        "thresholds": THRESHOLDS.tolist(),
    }


def _cell(cell: Cell, cells: Records, compared: dict) -> dict:
    """Return what the page shows of a cell."""
    made = cells.get((cell.world, cell.method), [])
    found = {"world": cell.world, "method": cell.method}
    found |= {"planned": len(cell.runs), "first": cell.num_first}  # with further runs, and without
    found |= {"problem": cell.problem, "runs": [_run(record) for record in made]}
    if made:
        algorithm, is_online = cell.config.source.algorithm, not cell.built_method.reads_histories
        found |= {
            "told": "nothing" if is_online else SOURCES.load(algorithm).privileged_info or UNKNOWN,
            "source": "itself, online" if is_online else algorithm,
            "transitions": cell.transitions,
            "train_steps": cell.built_method.train_steps(cell.config),
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


def _estimate(made: list[RunRecord], name: str) -> list[float | None]:
    """Return [mean, low, high, runs] of a score over the runs in which it is known."""
    estimate = t_interval(values_of(made, name))
    return [estimate["mean"], estimate["lo"], estimate["hi"], estimate["n"]]
