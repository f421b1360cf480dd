"""The records of a study: a CSV file with a line for each finished run, from which a page is made.

A record is found by the hash of its run's configuration, so that records of another budget or split
are kept but not counted. Scores are those of `results.json`; `success_fifth_k` is the mean success
in the k-th fifth of the in-context episodes. An empty cell is a score that does not exist.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ad.errors import CorruptError
from ad.evaluation.comparisons import PooledDeviation
from ad.evaluation.metrics import SEARCH_SCORES, json_number, t_interval
from ad.evaluation.results import read_results
from ad.evaluation.summary import SUMMARY
from ad.runtime.files import atomic_write, read_checked_json
from ad.runtime.run import Run
from ad.sweeps.study import PlannedRun

FIFTHS = tuple(f"success_fifth_{k}" for k in range(1, 6))
SCORES = (
    "nauc",
    "success_last10",
    "path_ratio_last10",
    "episodes_to_80pct",
    *SEARCH_SCORES,
    "success_seen",
)
BOUNDED = tuple(name for name in SCORES if name != "episodes_to_80pct")  # intervals over tasks
SECONDS = ("collect_s", "train_s", "evaluate_s")
HARDWARE = ("device", "threads", "precision", "python", "torch", "numpy")
TEXT = ("key", "changed", *HARDWARE, "resumed_with")
COLUMNS = (
    *("key", "changed", "split_seed", "source_seed", "train_seed", "train_steps"),
    *SCORES,
    *FIFTHS,
    *("train_nauc", "train_success_last10", "random_then_optimal_nauc"),
    *(f"{name}_{end}" for name in BOUNDED for end in ("low", "high")),
    *SECONDS,
    *HARDWARE,
    "resumed_with",
)
RunRecord = dict[str, str | float | None]
Estimate = tuple[float | None, tuple[float, float] | None]  # mean and 95 % interval


@dataclass(frozen=True)
class ValueResults:
    """The results of one value of a question: its records and the seeds without one.

    pooled: the standard deviation of NAUC over seeds, pooled within all settings of the study.
    """

    records: list[RunRecord]
    missing: list[int]
    pooled: PooledDeviation | None = None

    def values(self, score: str) -> list[float]:
        """Return the known values of a score, one for each seed that has it."""
        return [record[score] for record in self.records if record[score] is not None]

    def estimate(self, score: str) -> Estimate:
        """Return the mean and 95 % interval of a score, over tasks if only one seed has it.

        The interval of NAUC is that of the pooled standard deviation where there is one.
        """
        over_seeds = t_interval(self.values(score))
        mean, low, high = (over_seeds[name] for name in ("mean", "lo", "hi"))
        if score == "nauc" and self.pooled and mean is not None:
            return mean, self.pooled.interval(mean, over_seeds["n"])
        if over_seeds["n"] == 1:
            (record,) = (record for record in self.records if record[score] is not None)
            low, high = record.get(f"{score}_low"), record.get(f"{score}_high")
        return mean, None if low is None else (low, high)


def read_records(path: Path) -> dict[str, RunRecord]:
    """Return the records at `path` by key, none without a file. Raises CorruptError."""
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    try:
        if tuple(header) != COLUMNS:
            raise ValueError("its columns are others")
        cells = [dict(zip(COLUMNS, line, strict=True)) for line in lines]
        records = [{name: _parse(name, cell) for name, cell in line.items()} for line in cells]
    except ValueError as error:
        raise CorruptError(f"{path} is not a whole file of records: {error}") from error
    return {record["key"]: record for record in records}


def add_record(path: Path, record: RunRecord) -> None:
    """Add `record` to those at `path`, in place of an earlier one of the same run."""
    records = list((read_records(path) | {record["key"]: record}).values())
    records.sort(key=lambda record: (record["changed"], record["train_seed"], record["key"]))
    with atomic_write(path) as copy, open(copy, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for record in records:
            values = [record[name] for name in COLUMNS]
            text = [v if v is None or isinstance(v, str) else f"{v:.6g}" for v in values]
            writer.writerow(text)


def record_of(planned: PlannedRun, run: Run) -> RunRecord:
    """Return the record of an evaluated run."""
    config, results = planned.config, read_checked_json(run.folder / SUMMARY)
    held_out, train = (results["splits"][split] for split in ("held_out", "train"))
    successes = read_results(run.folder / "results.csv")["held_out"].successes  # [K, S, E]
    parts = np.array_split(successes, 5, axis=2)
    fifths = [json_number(part.mean()) if part.size else None for part in parts]
    walk = results["references"].get("random_then_optimal", {}).get("held_out", {})
    bounds = {name: held_out["ci95"].get(name) or (None, None) for name in BOUNDED}
    return {
        "key": planned.key,
        "changed": planned.changed,
        "split_seed": config.split.split_seed,
        "source_seed": config.source.source_seed,
        "train_seed": config.training.train_seed,
        "train_steps": config.training.steps,
        **{name: held_out[name] for name in SCORES},
        **dict(zip(FIFTHS, fifths, strict=True)),
        "train_nauc": train["nauc"],
        "train_success_last10": train["success_last10"],
        "random_then_optimal_nauc": walk.get("nauc"),
        **{f"{name}_low": low for name, (low, _) in bounds.items()},
        **{f"{name}_high": high for name, (_, high) in bounds.items()},
        **{name: results["timing"].get(name) for name in SECONDS},
        **{name: results["evaluated_on"][name] for name in HARDWARE},
        "resumed_with": "; ".join(results["resumed_with"]),
    }


def _parse(name: str, cell: str) -> str | float | None:
    if name in TEXT:
        return cell
    return float(cell) if cell else None
