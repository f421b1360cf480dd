"""Sweeps of made-up records, and of runs that take a second, for tests."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from ad.sweeps.load import load_sweep
from ad.sweeps.pages import sweep_page
from ad.sweeps.plan import Sweep
from ad.sweeps.records import Records, new_record, read_records
from ad.sweeps.results import SweepResults, sweep_results
from ad.sweeps.run import Bundle, new_measure, prepare_missing, run_missing


def write_sweep(folder: Path, content: dict, name: str = "plan", board: str = "") -> Sweep:
    """Write a sweep into `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return load_sweep(path, board)


def make(sweep: Sweep, root: Path, **options) -> list[Bundle]:
    """Make the missing runs of `sweep` under `root`; return their bundles."""
    measure = new_measure(sweep)
    missing = prepare_missing(sweep.records, measure, sweep.planned_runs(), **options)
    run_missing(sweep.records, measure, missing, root)
    return missing


def records_of(sweep: Sweep, by_row: dict[str, Sequence[float]], **entries) -> Records:
    """Return records in which the runs of each row (by title) have these scores.

    `entries` are further entries of the values: references, curve, ...
    """
    names = ("nauc", "share_of_optimum_last10", "normalized_return_last10", "return_last10")
    found: Records = {}
    for cell in sweep.cells:
        for run, score in zip(cell.runs, by_row.get(cell.row, []), strict=False):
            values = {"scores": dict.fromkeys(names, score), "curve": {}, "per_task": {}}
            values |= {"references": {}, "calibration": {}}
            for name, entry in entries.items():
                values[name] = values.get(name, {}) | entry
            seconds = {"train_s": 60.0}
            record = new_record(run, values={"": values}, seconds=seconds, made_with={"torch": "1"})
            found[record.key] = record
    return found


def results_of(sweep: Sweep, by_row: dict[str, Sequence[float]], **entries) -> SweepResults:
    """Return the results of `sweep` with these scores."""
    return sweep_results(sweep, records_of(sweep, by_row, **entries))


def page_of(sweep: Sweep, records: Records | None = None) -> str:
    """Return the page of `sweep` as Markdown, by `records` or those beside it."""
    records = read_records(sweep.records) if records is None else records
    return sweep_page(sweep_results(sweep, records)).markdown()


def scored(records: Records) -> dict[str, dict]:
    """Return the values of records by key."""
    return {key: record.values for key, record in records.items()}
