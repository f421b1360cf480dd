"""The published tables as Markdown, made from the records of their runs.

The interval of a row is for a new split: the tasks of a split are shared by its runs, so the
independent values are the means of the splits (Student's t). Rows are compared by the differences
of their split means, with one standard deviation pooled over all rows, and Holm's correction.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ad.evaluation.comparisons import group_means, holm, pool
from ad.evaluation.metrics import t_interval
from ad.registry import SOURCES
from ad.reporting.tables import COLUMNS, SEARCH_COLUMNS, UNKNOWN, Table, interval, number
from ad.runtime.console import info
from ad.runtime.files import replace_between
from ad.runtime.run import world_title
from ad.sweeps.records import REFERENCES, RunRecord, read_records, world_key
from ad.sweeps.results import Results, ResultTable, Row

SHOWN = {
    **{name: COLUMNS[name] for name in ("nauc", "success_last10", "share_of_optimum_last10")},
    "return_last10": COLUMNS["return_last10"],
    **{name: COLUMNS[name] for name in ("path_ratio_last10", "episodes_to_80pct")},
    "found_by_10": SEARCH_COLUMNS["found_by_10"],
}
BOUNDED = ("nauc", "success_last10", "share_of_optimum_last10")  # shown with their intervals


def write_tables(results: Results, page: Path) -> None:
    """Print the tables of `results`, and put each between the lines of its name in `page`.

    The lines are `<!-- name -->` and `<!-- /name -->`. Raises ConfigError if they are missing.
    """
    records = read_records(results.records)
    for table in results.tables:
        text = results_table(table, records).compact().markdown()
        info(text.rstrip())
        replace_between(page, table.name, text)


def results_table(table: ResultTable, records: dict[str, RunRecord]) -> Table:
    """Return a table with a row for each world of each row of `table` that has records."""
    found = [
        (row, world, own)
        for row in table.rows
        for world in ("", *map(world_title, row.experiment.evaluation.worlds))
        if (own := _records_of(row, world, records))
    ]
    compared = _compared(table, records)
    rows = []
    for row, world, own in found:
        source = row.experiment.source.algorithm
        title = f"[{row.title}]({row.file})" + (f", {world}" if world else "")
        missing = "" if len(own) == len(row.runs) else f" of {len(row.runs)}"
        cells = [_cell(own, score) for score in SHOWN]
        told = getattr(SOURCES.load(source), "TOLD", None) or UNKNOWN
        runs = f"{len(own)}{missing}"
        cells = [title, told, *cells, _references(own), compared.get(row.title, UNKNOWN), runs]
        rows.append(cells)
    headings = [heading for heading, _ in SHOWN.values()]
    against = f"NAUC minus that of {table.compared_with}"
    references = "NAUC of random walk, searcher, ceiling"
    return Table(["source", "is told", *headings, references, against, "runs"], rows)


def estimate(own: Sequence[RunRecord], score: str) -> tuple[float | None, tuple | None]:
    """Return the mean of `score` over splits and its 95 % interval for a new split, if known."""
    means = _split_means(own, score)
    over = t_interval(list(means.values()))
    return over["mean"], None if over["lo"] is None else (over["lo"], over["hi"])


def _split_means(own: Sequence[RunRecord], score: str) -> dict:
    known = [record for record in own if record[score] is not None]
    return group_means([r[score] for r in known], [r["split_seed"] for r in known])


def _cell(own: Sequence[RunRecord], score: str) -> str:
    style, known = SHOWN[score][1], sum(record[score] is not None for record in own)
    mean, bounds = estimate(own, score)
    some = f" ({known} of {len(own)})" if 0 < known < len(own) else ""
    return interval(mean, bounds if score in BOUNDED else None, style) + some


def _references(own: Sequence[RunRecord]) -> str:
    """Return the mean NAUC of each reference over the splits, as text."""
    names = [f"{name}_nauc" for name in REFERENCES]
    means = [estimate(own, name)[0] for name in names]
    return UNKNOWN if set(means) == {None} else ", ".join(number(mean, ".3f") for mean in means)


def _compared(table: ResultTable, records: dict[str, RunRecord]) -> dict[str, str]:
    """Return the comparison of each row with `table.compared_with` as text, by title."""
    means = {row.title: _split_means(_records_of(row, "", records), "nauc") for row in table.rows}
    reference = means.get(table.compared_with, {})
    differences = {
        title: [mean - reference[split] for split, mean in own.items() if split in reference]
        for title, own in means.items()
        if title != table.compared_with
    }
    differences = {title: values for title, values in differences.items() if len(values) > 1}
    pooled = pool(differences.values())
    if pooled is None:
        return {}
    tests = {title: (float(np.mean(values)), len(values)) for title, values in differences.items()}
    corrected = holm([pooled.p_value(mean, count) for mean, count in tests.values()])
    texts = {}
    for (title, (mean, count)), p in zip(tests.items(), corrected, strict=True):
        low, high = pooled.interval(mean, count)
        shown = "p < 0.001" if p < 0.001 else f"p {p:.2g}"
        texts[title] = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}], {shown}"
    return texts


def _records_of(row: Row, world: str, records: dict[str, RunRecord]) -> list[RunRecord]:
    keys = [world_key(run.key, world) for run in row.runs]
    return [records[key] for key in keys if key in records]
