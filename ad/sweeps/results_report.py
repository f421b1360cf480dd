"""The published tables as Markdown, made from the records of their runs.

The interval of a row is for a new split: the tasks of a split are shared by its runs, so the
independent values are the means of the splits (Student's t). A row is compared with the table's
reference by the differences of their split means, with Holm's correction for all rows.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ad.evaluation.calibration import ACTIONS
from ad.evaluation.comparisons import Comparison, group_means, holm, pool
from ad.evaluation.metrics import over_splits
from ad.registry import SOURCES
from ad.reporting.tables import UNKNOWN, Table, bounds, interval, number
from ad.runtime.console import info
from ad.runtime.files import replace_between
from ad.runtime.locks import locked_files
from ad.runtime.run import world_title
from ad.sweeps.columns import SCORE_COLUMNS
from ad.sweeps.records import RunRecord, read_calibration, read_records, world_key
from ad.sweeps.results import Results, ResultTable, Row

SHOWN = (
    *("nauc", "share_of_optimum_last10", "return_last10", "path_ratio_last10"),
    *("episodes_to_80pct", "found_by_10"),
)
SHOWN_REFERENCES = ("random_then_optimal", "explorer")  # the ceiling bounds the mean over all goals
BOUNDED = ("nauc", "share_of_optimum_last10")  # shown with their intervals
RETURNS = ("return_last10", "source_return")


def write_tables(results: Results, page: Path) -> None:
    """Print the tables of `results` that have records, and put them into `page`.

    A table stands between the lines `<!-- name -->` and `<!-- /name -->`.
    """
    records = read_records(results.records)
    tables = {t.name: results_table(t, records, page.parent) for t in results.tables}
    texts = {name: table.compact().markdown() for name, table in tables.items() if table.rows}
    for text in texts.values():
        info(text.rstrip())
    with locked_files(results.records.parent):
        replace_between(page, texts)


def results_table(
    table: ResultTable, records: dict[str, RunRecord], folder: Path = Path()
) -> Table:
    """Return a table with a row for each world of each row of `table` that has records.

    The links to the rows' experiments are relative to `folder`. A table of calibrations has a row
    for each way to act instead.
    """
    if table.calibration:
        return _calibration_table(table, records, folder)
    compared, rows, shown = _compared(table, records), [], table.columns or SHOWN
    for row in table.rows:
        experiment = row.runs[0].config
        source_told = SOURCES.load(experiment.source.algorithm).privileged_info or UNKNOWN
        for world in ("", *map(world_title, experiment.evaluation.worlds)):
            if not (made := _records_of(row, world, records)):
                continue
            title = _link(row, folder) + (f", {world}" if world else "")
            against = UNKNOWN if world else str(compared.get(row.title, UNKNOWN))
            cells = [_cell(made, score, is_bounded=bool(table.columns)) for score in shown]
            rows.append([title, source_told, *cells, _references(made), against, _runs(row, made)])
    headings = [SCORE_COLUMNS[score][0] for score in shown]
    against = f"NAUC minus that of {table.compared_with}"
    references = "NAUC of random walk, best searcher"
    return Table(["experiment", "is told", *headings, references, against, "runs"], rows)


def _calibration_table(table: ResultTable, records: dict[str, RunRecord], folder: Path) -> Table:
    """Return a table with a row for each row of `table` that has records and each way to act.

    Its columns are the source's return and the returns achieved for the asked ones.
    """
    asked = sorted(
        {asked for row in table.rows for asked in row.runs[0].config.evaluation.calibration}
    )
    rows = []
    for row in table.rows:
        if not (made := _records_of(row, "", records)):
            continue
        for action, title in ACTIONS.items():
            curves = [read_calibration(record, action) for record in made]
            achieved = [
                _estimate(made, [curve.get(value) for curve in curves], ".3f") for value in asked
            ]
            source = _cell(made, "source_return")
            rows.append([_link(row, folder), title, source, *achieved, _runs(row, made)])
    headings = [f"asked {value:g}" for value in asked]
    return Table(
        ["experiment", "actions", SCORE_COLUMNS["source_return"][0], *headings, "runs"], rows
    )


def _link(row: Row, folder: Path) -> str:
    return f"[{row.title}]({Path(os.path.relpath(row.file, folder)).as_posix()})"


def _runs(row: Row, made: Sequence[RunRecord]) -> str:
    """Return the number of runs that a row is the mean of, as text."""
    return str(len(made)) + ("" if len(made) == len(row.runs) else f" of {len(row.runs)}")


def _cell(made: Sequence[RunRecord], score: str, is_bounded: bool = False) -> str:
    """Return the mean of a score, with its interval if it is one of BOUNDED or `is_bounded`.

    Where the optimal return is unknown, the returns have intervals.
    """
    values, style = [record[score] for record in made], SCORE_COLUMNS[score][1]
    known = sum(value is not None for value in values)
    some = f" ({known} of {len(made)})" if 0 < known < len(made) else ""
    is_optimum_known = any(record["nauc"] is not None for record in made)
    if is_bounded or score in BOUNDED or (score in RETURNS and not is_optimum_known):
        return _estimate(made, values, style) + some
    return number(_over_splits(made, values)["mean"], style) + some


def _estimate(made: Sequence[RunRecord], values: Sequence[float | None], style: str) -> str:
    """Return the mean of the `values` of the runs `made` and its interval as text."""
    over = _over_splits(made, values)
    return interval(over["mean"], bounds(over), style)


def _references(made: Sequence[RunRecord]) -> str:
    """Return the mean NAUC of each reference over the splits, as text."""
    naucs = [[record[f"{name}_nauc"] for record in made] for name in SHOWN_REFERENCES]
    means = [_over_splits(made, values)["mean"] for values in naucs]
    return UNKNOWN if set(means) == {None} else ", ".join(number(mean, ".3f") for mean in means)


def _over_splits(made: Sequence[RunRecord], values: Sequence[float | None]) -> dict:
    return over_splits(values, [record["split_seed"] for record in made])


def _compared(table: ResultTable, records: dict[str, RunRecord]) -> dict[str, Comparison]:
    """Return the comparison of each row with `table.compared_with`, by title.

    The differences of the split means are paired by split, and each row has its own standard
    deviation: all rows share the reference's split means, so their deviations are not independent
    and pooling them would make the intervals too narrow.
    """
    means = {}
    for row in table.rows:
        known = [r for r in _records_of(row, "", records) if r["nauc"] is not None]
        means[row.title] = group_means([r["nauc"] for r in known], [r["split_seed"] for r in known])
    reference = means.get(table.compared_with, {})
    tests = {}
    for title, by_split in means.items():
        values = [mean - reference[split] for split, mean in by_split.items() if split in reference]
        if title != table.compared_with and (deviation := pool([values])):
            tests[title] = deviation, float(np.mean(values)), len(values)
    corrected = holm([deviation.p_value(mean, n) for deviation, mean, n in tests.values()])
    return {
        title: Comparison(mean, deviation.interval(mean, n), p)
        for (title, (deviation, mean, n)), p in zip(tests.items(), corrected, strict=True)
    }


def _records_of(row: Row, world: str, records: dict[str, RunRecord]) -> list[RunRecord]:
    keys = [world_key(run.key, world) for run in row.runs]
    return [records[key] for key in keys if key in records]
