"""The failures of many runs: a CSV file beside their records, with a line for each run that failed.

`<table>_failed.csv` has the key of the run, what it is called in records, its seeds, and the
sentence of its error. A run that failed has no record.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

from ad.errors import CorruptError
from ad.runtime.files import atomic_write
from ad.runtime.locks import locked_files
from ad.sweeps.planned import PlannedRun

COLUMNS = ("key", "changed", "split_seed", "train_seed", "failure")
Failure = dict[str, str]


def failures_file(records: Path) -> Path:
    """Return the path of the failures that belong to the file `records`."""
    return records.with_name(f"{records.stem}_failed.csv")


def read_failures(records: Path) -> dict[str, Failure]:
    """Return the failures beside `records` by key, none without a file. Raises CorruptError."""
    path = failures_file(records)
    if not path.exists():
        return {}
    with open(path, newline="", encoding="utf-8") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    if tuple(header) != COLUMNS or any(len(line) != len(COLUMNS) for line in lines):
        raise CorruptError(f"{path} is not a whole file of failures")
    return {line[0]: dict(zip(COLUMNS, line, strict=True)) for line in lines}


def add_failures(records: Path, runs: Sequence[PlannedRun], failure: str) -> None:
    """Add the `failure` of `runs` to the file beside `records`."""
    new = {
        run.key: {
            "key": run.key,
            "changed": run.changed,
            "split_seed": str(run.config.split.split_seed),
            "train_seed": str(run.config.training.train_seed),
            "failure": failure,
        }
        for run in runs
    }
    with locked_files(records.parent):
        _write(records, read_failures(records) | new)


def forget_failures(records: Path, runs: Sequence[PlannedRun]) -> None:
    """Remove `runs` from the file beside `records`, and the file with its last line."""
    with locked_files(records.parent):
        failures, keys = read_failures(records), {run.key for run in runs}
        if failures.keys() & keys:
            _write(records, {key: f for key, f in failures.items() if key not in keys})


def _write(records: Path, failures: dict[str, Failure]) -> None:
    path = failures_file(records)
    if not failures:
        path.unlink()
        return
    with atomic_write(path) as copy, open(copy, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(failures.values(), key=lambda f: [f[name] for name in COLUMNS[1:]]))
