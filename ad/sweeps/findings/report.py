"""Make the findings that are missing, and write their tables.

The column of a seed has the intervals of the analysis, most often over tasks; the mean of the seeds
has one over the seeds (Student's t).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ad.config.schema import Experiment
from ad.errors import ConfigError
from ad.evaluation.metrics import json_number, t_interval
from ad.interpret.labeled import FOLDER, LEARNING, load
from ad.pipeline import collect_and_train
from ad.reporting.tables import UNKNOWN, Table, bounds, interval
from ad.runtime.console import info
from ad.runtime.files import remove, replace_between
from ad.runtime.locks import locked, locked_files
from ad.runtime.run import Run
from ad.sweeps.files import gather
from ad.sweeps.findings.plan import Findings, TableConfig
from ad.sweeps.findings.records import (
    Value,
    add_values,
    check_axes,
    read_values,
    shown_values,
    values_of,
)
from ad.sweeps.planned import PlannedRun, check_libraries, locked_last


def missing_runs(findings: Findings, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Return the runs whose values are missing from a table.

    Raises ConfigError for what a library lacks or refuses, and for tables that do not fit their
    analyses.
    """
    due = [run for run in runs if missing_tables(findings, run)]
    check_libraries(due)
    names = dict.fromkeys(name for run in due for name in missing_tables(findings, run))
    gather(partial(check_table, findings), names)
    return due


def make_findings(
    findings: Findings, runs: Sequence[PlannedRun], root: Path, keep: bool = False
) -> None:
    """Train the models of `runs` and analyze them, where tables lack values.

    Files are under `root`, from which the folder of a run is removed at its end, unless `keep`.
    Other processes may make some of the runs at the same time: runs whose folder is locked come
    last, once the lock is free, and only if values are missing by then. Raises ConfigError, before
    any run, if a library lacks or refuses something or a table does not fit its analysis.
    """
    due = missing_runs(findings, runs)

    def make(run: PlannedRun, wait: bool) -> None:
        config = replace(run.config, root=str(root))
        with locked(config.folder, wait):
            _make(findings, run, config, keep)

    locked_last(make, due)


def _make(findings: Findings, run: PlannedRun, config: Experiment, keep: bool) -> None:
    """Add the values of `run` that are missing; the caller has locked the folder of `config`."""
    if not (names := missing_tables(findings, run)):  # another process has made them
        return
    info(f"{run.changed}, seed {run.config.training.train_seed}: {len(names)} tables")
    (trained,) = collect_and_train([config])
    values = [*_analyzed(findings, run, trained, names)]
    with locked_files(findings.records.parent):
        add_values(findings.records, values)
    if not keep:
        remove(trained.folder)


def check_table(findings: Findings, name: str) -> None:
    """Raise ConfigError if the analysis of the table called `name` lacks what it shows."""
    from ad.interpret.inspect import load_analyses
    from ad.interpret.over_training import TRAIN_STEPS, Learning

    table = findings.tables[name]
    is_learning = table.analysis == LEARNING
    analysis = Learning if is_learning else load_analyses([table.analysis])[table.analysis]
    first = [TRAIN_STEPS] if table.over_training else []
    arrays = {own: [*first, *axes] for own, axes in analysis.arrays.items()}
    try:
        if arrays:
            check_axes(table, arrays)
    except ConfigError as error:
        raise ConfigError(f"the table {name}: {error}") from None


def _analyzed(
    findings: Findings, run: PlannedRun, trained: Run, names: Sequence[str]
) -> Iterator[Value]:
    """Analyze the `trained` run of `run`; yield the values of it in the tables called `names`."""
    from ad.interpret.inspect import ALL, inspect_run

    for over_training in (False, True):
        tables = {name: findings.tables[name] for name in names}
        own = {n: table for n, table in tables.items() if table.over_training == over_training}
        analyses = dict.fromkeys(table.analysis for table in own.values())
        if analyses:
            chosen = [analysis for analysis in analyses if analysis != LEARNING]
            inspect_run(trained, chosen, steps=ALL if over_training else None)
        folder = trained.folder / "inspect" / (FOLDER if over_training else "")
        for name, table in own.items():
            yield from values_of(findings, name, run, load(folder / table.analysis))


def missing_tables(findings: Findings, run: PlannedRun) -> list[str]:
    """Return the names of the tables that show the model of `run` and have no values of it."""
    values = read_values(findings.records)
    return [name for name in findings.tables_of(run) if not _of_run(findings, name, run, values)]


def list_findings(findings: Findings, runs: Sequence[PlannedRun]) -> None:
    """Print a line for each run: done, or how many of its tables lack values."""
    for run in runs:
        missing, tables = len(missing_tables(findings, run)), len(findings.tables_of(run))
        state = f"{missing} of {tables} tables missing" if missing else "done"
        info(f"seed {run.config.training.train_seed}  {run.changed}: {state}")


def write_findings(findings: Findings) -> None:
    """Print the tables that have values, and put them into the page.

    A table stands between the lines `<!-- name -->` and `<!-- /name -->`.
    """
    values = read_values(findings.records)
    tables = {name: findings_table(findings, name, values) for name in findings.tables}
    texts = {name: table.markdown() for name, table in tables.items() if table.rows}
    for name, text in texts.items():
        info(f"{name}\n{text}")
    replace_between(findings.page, texts)


def findings_table(findings: Findings, name: str, values: Sequence[Value]) -> Table:
    """Return the table called `name`, with the values of each model that it shows."""
    table, rows = findings.tables[name], []
    for model in table.models:
        runs = findings.models[model]
        if table.is_ranked:
            of_model = _ranked_rows(table, [_ranked(findings, name, r, values) for r in runs])
        else:
            of_seeds = [_of_column(findings, name, run, values) for run in runs]
            of_model = (_crossed_rows if table.is_crossed else _seed_rows)(table, of_seeds)
        rows += [[model, *row] for row in of_model]
    return Table(["model", *_header(findings, name, values)], rows)


def _header(findings: Findings, name: str, values: Sequence[Value]) -> list[str]:
    table, seeds = findings.tables[name], [f"seed {seed}" for seed in findings.seeds]
    if table.is_ranked:
        return ["rank", *seeds]
    if table.is_crossed:
        shown = shown_values(findings, name, values)
        return [table.rows, *dict.fromkeys(value.label(table.columns) for value in shown)]
    return [table.rows, *seeds, "mean of the seeds"]


def _of_run(findings: Findings, name: str, run: PlannedRun, values: Sequence[Value]) -> list[Value]:
    """Return the values of a run that a table shows."""
    table = findings.tables[name]
    return [
        value
        for value in shown_values(findings, name, values)
        if value.key == run.key and (not table.only or value.label(table.rows) in table.only)
    ]


def _of_column(
    findings: Findings, name: str, run: PlannedRun, values: Sequence[Value]
) -> list[Value]:
    """Return the values of a run, those in the strongest row of another table if there is one."""
    table, own = findings.tables[name], _of_run(findings, name, run, values)
    if not table.columns_of:
        return own
    strongest = _ranked(findings, table.columns_of, run, values)[:1]
    rows = findings.tables[table.columns_of].rows
    labels = [value.label(rows) for value in strongest]
    return [value for value in own if value.label(table.columns) in labels]


def _ranked(findings: Findings, name: str, run: PlannedRun, values: Sequence[Value]) -> list[Value]:
    """Return the strongest values of a run, or those of the strongest rows of another table.

    A value is strong by its size; one that is unknown is not among the strongest.
    """
    table, own = findings.tables[name], _of_run(findings, name, run, values)
    if not table.rows_of:
        known = [value for value in own if not _unknown(value.value)]
        return sorted(known, key=lambda value: -abs(value.value))[: table.strongest]
    rows = findings.tables[table.rows_of].rows
    by_row = {value.label(table.rows): value for value in own}
    ranked = _ranked(findings, table.rows_of, run, values)
    return [by_row[v.label(rows)] for v in ranked if v.label(rows) in by_row]


def _ranked_rows(table: TableConfig, ranked: Sequence[list[Value]]) -> list[list[str]]:
    """Return a row for each rank: in the column of each seed the label and its value."""
    return [
        [
            str(rank + 1),
            *(
                f"{own[rank].label(table.rows)}: {_cell(table, own[rank])}"
                if rank < len(own)
                else UNKNOWN
                for own in ranked
            ),
        ]
        for rank in range(max(map(len, ranked), default=0))
    ]


def _seed_rows(table: TableConfig, of_seeds: Sequence[list[Value]]) -> list[list[str]]:
    """Return a row for each label: its value in each seed, and their mean."""
    by_seed = [{value.label(table.rows): value for value in own} for own in of_seeds]
    labels = dict.fromkeys(label for own in by_seed for label in own)
    return [
        [
            label,
            *(_cell(table, own[label]) if label in own else UNKNOWN for own in by_seed),
            _mean(table, [own[label] for own in by_seed if label in own]),
        ]
        for label in labels
    ]


def _crossed_rows(table: TableConfig, of_seeds: Sequence[list[Value]]) -> list[list[str]]:
    """Return a row for each label: in each column the mean of the seeds."""
    values = [value for own in of_seeds for value in own]
    rows = dict.fromkeys(value.label(table.rows) for value in values)
    columns = dict.fromkeys(value.label(table.columns) for value in values)
    cells = {
        place: [v for v in values if (v.label(table.rows), v.label(table.columns)) == place]
        for place in ((row, column) for row in rows for column in columns)
    }
    return [[row, *(_mean(table, cells[row, column]) for column in columns)] for row in rows]


def _cell(table: TableConfig, value: Value) -> str:
    """Return a value as text, with its interval if the table names one and it is known."""
    limits = (value.low, value.high)
    known = table.interval and not any(map(_unknown, limits))
    return interval(json_number(value.value), limits if known else None, f".{table.decimals}f")


def _mean(table: TableConfig, values: Sequence[Value]) -> str:
    """Return the mean over seeds with its interval as text."""
    known = [value.value for value in values if not _unknown(value.value)]
    entry = t_interval(known)
    return interval(entry["mean"], bounds(entry), f".{table.decimals}f")


def _unknown(value: float) -> bool:
    return value != value
