"""The raw rows of a study: one CSV, a line a finished run, from which its page is made.

A row is found by the hash of its run's configuration, so that one of another budget or split is
kept but not counted. Scores are those of `results.json`; `success_fifth_k` is the mean success in
the k-th fifth of the in-context episodes. An empty cell is a score that there is none of.
"""

import csv
from pathlib import Path

import numpy as np

from ad.errors import CorruptError
from ad.evaluation.results import read_results
from ad.evaluation.summary import SUMMARY
from ad.runtime.files import atomic_write, read_checked_json
from ad.runtime.run import Run
from ad.sweeps.study import Trial

ROWS = "rows.csv"
FIFTHS = tuple(f"success_fifth_{k}" for k in range(1, 6))
SCORES = (
    "nauc",
    "success_last10",
    "path_ratio_last10",
    "episodes_to_80pct",
    "success_seen",
    "success_unseen",
    "success_unseen_last10",
    "unseen",
)
BOUNDED = tuple(name for name in SCORES if name != "episodes_to_80pct")  # intervals over goals
SECONDS = ("collect_s", "train_s", "evaluate_s")
MACHINE = ("device", "threads", "precision", "python", "torch", "numpy")
TEXT = ("key", "changed", *MACHINE, "resumed_with")
COLUMNS = (
    *("key", "changed", "split_seed", "source_seed", "train_seed", "train_steps"),
    *SCORES,
    *FIFTHS,
    *("train_nauc", "train_success_last10", "undirected_nauc"),
    *(f"{name}_{end}" for name in BOUNDED for end in ("low", "high")),
    *SECONDS,
    *MACHINE,
    "resumed_with",
)
Row = dict[str, str | float | None]


def read_rows(folder: Path) -> dict[str, Row]:
    """The rows in `folder` by key; none without a file. Raises CorruptError."""
    path = folder / ROWS
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    try:
        if tuple(header) != COLUMNS:
            raise ValueError("its columns are others")
        rows = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
        parsed = [{name: _parsed(name, cell) for name, cell in row.items()} for row in rows]
    except ValueError as error:
        raise CorruptError(f"{path} is not a whole file of rows: {error}") from error
    return {row["key"]: row for row in parsed}


def add_row(folder: Path, row: Row) -> None:
    """Put `row` among those in `folder`, in place of one of the same run."""
    rows = read_rows(folder) | {row["key"]: row}
    order = sorted(rows.values(), key=lambda row: (row["changed"], row["train_seed"], row["key"]))
    with atomic_write(folder / ROWS) as path, open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([_written(row[name]) for name in COLUMNS] for row in order)


def measured(trial: Trial, run: Run) -> Row:
    """The row of a run that is evaluated."""
    config, results = trial.config, read_checked_json(run.folder / SUMMARY)
    held_out, train = (results["splits"][split] for split in ("held_out", "train"))
    successes = read_results(run.folder / "results.csv")["held_out"].successes  # [N, S, E]
    fifths = [part.mean() if part.size else None for part in np.array_split(successes, 5, axis=2)]
    bounds = {name: held_out["ci95"].get(name) or (None, None) for name in BOUNDED}
    return {
        "key": trial.key,
        "changed": trial.changed,
        "split_seed": config.split.split_seed,
        "source_seed": config.source.source_seed,
        "train_seed": config.training.train_seed,
        "train_steps": config.training.steps,
        **{name: held_out[name] for name in SCORES},
        **dict(zip(FIFTHS, fifths, strict=True)),
        "train_nauc": train["nauc"],
        "train_success_last10": train["success_last10"],
        "undirected_nauc": results["references"]
        .get("undirected", {})
        .get("held_out", {})
        .get("nauc"),
        **{f"{name}_low": low for name, (low, _) in bounds.items()},
        **{f"{name}_high": high for name, (_, high) in bounds.items()},
        **{name: results["timing"].get(name) for name in SECONDS},
        **{name: results["evaluated_on"][name] for name in MACHINE},
        "resumed_with": "; ".join(results["resumed_with"]),
    }


def _parsed(name: str, cell: str) -> str | float | None:
    if name in TEXT:
        return cell
    return float(cell) if cell else None


def _written(value: str | float | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return f"{value:.6g}"
