"""The measure `analysis`: values of arrays that analyses of trained models have.

The record of a run holds for each table of the sweep that shows it the analysis, the array, and the
value with its interval at each combination of labels. In a table, the column of a seed has the
intervals of the analysis, most often over tasks; the mean of the seeds has one over the seeds.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ad.errors import ConfigError
from ad.evaluation.metrics import json_number
from ad.evaluation.scores import UNKNOWN, Estimate, estimate
from ad.interpret.labeled import BOUND, FOLDER, LEARNING, TRAIN_STEPS, LabeledArray, Results, load
from ad.reporting.page import Section, Table
from ad.runtime.run import Run
from ad.sweeps.format import TableConfig
from ad.sweeps.measures import Measure, made_with, train
from ad.sweeps.plan import PlannedRun, Sweep
from ad.sweeps.records import Record, Records, new_record
from envs.registry import did_you_mean

Value = dict[str, Any]  # labels by axis, value and interval, as a record has them
MOST, LEAST = 0.8, 0.2  # of the seeds: a claim holds from the one share on, not up to the other


class AnalysisMeasure(Measure):
    """The values of the arrays that the tables of a sweep show."""

    def is_done(self, run: PlannedRun, record: Record | None) -> bool:
        """Return whether `record` has the values of each table that shows `run`."""
        return record is not None and (
            bool(record.failure)
            or all(is_shown(record, n, self.sweep.tables[n]) for n in self._tables(run))
        )

    def check(self, runs: Iterable[PlannedRun]) -> None:
        """Raise ConfigError if the analysis of a table that shows `runs` lacks what it shows."""
        from ad.interpret.inspect import load_analyses
        from ad.interpret.over_training import Learning

        for name in dict.fromkeys(name for run in runs for name in self._tables(run)):
            table = self.sweep.tables[name]
            is_learning = table.analysis == LEARNING and table.over_training
            own = Learning if is_learning else load_analyses([table.analysis])[table.analysis]
            first = [TRAIN_STEPS] if table.over_training else []
            arrays = {array: [*first, *axes] for array, axes in own.arrays.items()}
            try:
                if arrays:
                    check_axes(table, arrays)
            except ConfigError as error:
                raise ConfigError(f"{self.sweep.path}: {name}: {error}") from None

    def make(self, runs: Sequence[PlannedRun], root: Path) -> Iterator[Record]:
        """Train the models of `runs` under `root`, analyze them, and yield their records."""
        for run in runs:
            trained = train(run, root)
            values = dict(self._values(trained, self._tables(run)))
            seconds = trained.timing()
            yield new_record(run, values=values, seconds=seconds, made_with=made_with(trained))

    def _tables(self, run: PlannedRun) -> list[str]:
        """Return the names of the tables that show a run."""
        return [name for name, table in self.sweep.tables.items() if run.row in table.models]

    def _values(self, run: Run, names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Analyze a trained run; yield the entry of each of the tables `names` in its record."""
        from ad.interpret.inspect import ALL, inspect_run

        for over_training in (False, True):
            tables = {name: self.sweep.tables[name] for name in names}
            own = {n: table for n, table in tables.items() if table.over_training == over_training}
            analyses = dict.fromkeys(table.analysis for table in own.values())
            if analyses:
                chosen = [analysis for analysis in analyses if analysis != LEARNING]
                inspect_run(run, chosen, steps=ALL if over_training else None)
            folder = run.folder / "inspect" / (FOLDER if over_training else "")
            for name, table in own.items():
                values = values_of(table, load(folder / table.analysis))
                yield name, {"analysis": table.analysis, "array": table.array, "values": values}


def is_shown(record: Record, name: str, table: TableConfig) -> bool:
    """Return whether a record has the values that the table called `name` shows now."""
    entry = record.values.get(name)
    if not entry or (entry["analysis"], entry["array"]) != (table.analysis, table.array):
        return False
    axes = {*table.at, table.rows, table.columns} - {""}
    return all(
        value["labels"].keys() == axes
        and (not table.holds or "holds" in value)
        and all(value["labels"][axis] == str(label) for axis, label in table.at.items())
        for value in entry["values"]
    ) and all(
        any(value["labels"][table.rows] == label for value in entry["values"])
        for label in table.only
    )


def check_axes(table: TableConfig, arrays: Mapping[str, Sequence[str]]) -> None:
    """Raise ConfigError unless `table` shows one of `arrays` (name -> axes), all axes of it."""
    for name in filter(None, (table.array, table.holds)):
        if name not in arrays:
            hint = did_you_mean(name, arrays) or f" (arrays: {', '.join(arrays)})"
            raise ConfigError(f"{table.analysis} has no array {name!r}{hint}")
    axes = list(arrays[table.array])
    left = [axis for axis in axes if axis not in table.at]
    shown = [axis for axis in (table.rows, table.columns) if axis]
    if sorted([*shown, *table.at]) != sorted(axes):
        raise ConfigError(
            f"the array {table.array} of {table.analysis} has the axes {', '.join(axes)}: rows and "
            f"columns must be those that `at` leaves, {', '.join(left) or 'none'}, "
            f"not {', '.join(shown)}"
        )


def values_of(table: TableConfig, results: Results) -> list[dict[str, Any]]:
    """Return the values of an analysis that `table` shows, each with its labels and interval.

    Raises ConfigError for an array, an axis or a label that the analysis does not have.
    """
    check_axes(table, {own: list(array.axes) for own, array in results.items()})
    array = results[table.array]
    at = {axis: _label(array, axis, str(label)) for axis, label in table.at.items()}
    for label in table.only:
        _label(array, table.rows, label)
    selected = array.at(**at)
    low = high = np.full(selected.shape, np.nan)
    if interval := results.get(table.interval):
        low, high = (interval.at(**at, **{BOUND: bound}) for bound in interval.axes[BOUND])
    left = [axis for axis in array.axes if axis not in at]
    values = []
    for index in np.ndindex(*(len(array.axes[axis]) for axis in left)):
        free = {axis: str(array.axes[axis][k]) for axis, k in zip(left, index, strict=True)}
        labels = {axis: (at | free)[axis] for axis in array.axes}
        value, *ends = (json_number(part[index]) for part in (selected, low, high))
        labels = {axis: str(label) for axis, label in labels.items()}
        values.append({"labels": labels, "value": value, "interval": ends})
        if table.holds:
            values[-1]["holds"] = json_number(results[table.holds].at(**at)[index])
    return values


def _label(array: LabeledArray, axis: str, label: str) -> str | int | float:
    """Return the label of an axis that reads as `label`."""
    labels = {str(own): own for own in array.axes.get(axis, ())}
    if label not in labels:
        hint = did_you_mean(label, labels) or f" (labels: {', '.join(labels) or 'none'})"
        raise ConfigError(f"the axis {axis!r} has no label {label!r}{hint}")
    return labels[label]


def findings_section(sweep: Sweep, name: str, records: Records) -> Section:
    """Return the section of the table called `name`."""
    return Section(name, [_FindingsTable(sweep, records, name).table()])


class _FindingsTable:
    """A table of an analysis, with the values of each model that it shows."""

    def __init__(self, sweep: Sweep, records: Records, name: str):
        self.sweep, self.records, self.name, self.config = sweep, records, name, sweep.tables[name]
        runs = {cell.row: cell.runs for cell in sweep.cells}
        self.models = {model: runs.get(model, []) for model in self.config.models}

    def table(self) -> Table:
        """Return a row for each model and each label, or rank; of claims for each label."""
        if self.config.holds:
            return self._claims()
        rows = []
        for model in self.config.models:
            runs = self.models[model]
            rest = [[] for _ in self.sweep.choice.seeds[len(runs) :]]  # a model may have fewer runs
            if self.config.is_ranked:
                of_model = self._ranked_rows([*map(self.ranked, runs), *rest])
            else:
                of_seeds = [*map(self._of_column, runs), *rest]
                of_model = (
                    self._crossed_rows(of_seeds)
                    if self.config.is_crossed
                    else self._seed_rows(of_seeds)
                )
            rows += [[model, *row] for row in of_model]
        return Table([self.sweep.config.heading, *self._header()], rows)

    def values(self, run: PlannedRun) -> list[Value]:
        """Return the values of a run that the table shows."""
        record, only = self.records.get(run.key), self.config.only
        if record is None or not is_shown(record, self.name, self.config):
            return []
        values = record.values[self.name]["values"]
        return [value for value in values if not only or self._label(value) in only]

    def ranked(self, run: PlannedRun) -> list[Value]:
        """Return the strongest values of a run, or those of the strongest rows of another table.

        A value is strong by its size; an unknown value is not among the strongest.
        """
        own = self.values(run)
        if not self.config.strongest_of:
            known = [value for value in own if value["value"] is not None]
            known.sort(key=lambda value: -abs(value["value"]))
            return known[: self.config.strongest]
        other = self._other(self.config.strongest_of)
        by_row = {self._label(value): value for value in own}
        labels = [other._label(value) for value in other.ranked(run)]
        return [by_row[label] for label in labels if label in by_row]

    def _other(self, name: str) -> "_FindingsTable":
        return _FindingsTable(self.sweep, self.records, name)

    def _label(self, value: Value, axis: str = "") -> str:
        return value["labels"][axis or self.config.rows]

    def _columns(self) -> list[str]:
        """Return the labels of the second axis."""
        runs = [run for model in self.config.models for run in self.models[model]]
        shown = [value for run in runs for value in self.values(run)]
        return list(dict.fromkeys(self._label(value, self.config.columns) for value in shown))

    def _header(self) -> list[str]:
        seeds = [f"seed {seed}" for seed in self.sweep.choice.seeds]
        if self.config.is_ranked:
            return ["rank", *seeds]
        if self.config.is_crossed:
            return [self.config.rows, *self._columns()]
        return [self.config.rows, *seeds, "mean of the seeds"]

    def _claims(self) -> Table:
        """Return a row for each claim and each test of it, with a column for each model."""
        config, cells = self.config, {}
        for model in config.models:
            for value in (value for run in self.models[model] for value in self.values(run)):
                test = value["labels"].get(config.columns, "")
                row = cells.setdefault((self._label(value), test), {})
                row.setdefault(model, []).append(value)
        tests, rows, told = list(dict.fromkeys(test for _, test in cells)), [], set()
        header = [config.rows, "what it says", config.columns, "how"]
        shown = [n for n in range(4) if header[n] and (config.words or n % 2 == 0)]
        for (label, test), row in cells.items():
            says, *how = config.words.get(label, [""])
            how += [""] * len(tests)
            verdicts = [_verdict(config, row.get(model, [])) for model in config.models]
            if {*verdicts} != {UNKNOWN}:  # a claim may have no such test
                first = label not in told
                told.add(label)
                texts = [label * first, says * first, test, how[tests.index(test)]]
                rows.append([*(texts[n] for n in shown), *verdicts])
        header = [*(header[n] for n in shown), *config.models]
        return Table(header, rows, tuple(range(len(header))))

    def _of_column(self, run: PlannedRun) -> list[Value]:
        """Return the values of a run, in the strongest row of another table if there is one."""
        own = self.values(run)
        if not self.config.strongest_of:
            return own
        other = self._other(self.config.strongest_of)
        labels = [other._label(value) for value in other.ranked(run)[:1]]
        return [value for value in own if self._label(value, self.config.columns) in labels]

    def _ranked_rows(self, ranked: Sequence[list[Value]]) -> list[list[str]]:
        """Return a row for each rank: in the column of each seed the label and its value."""

        def cell(own: list[Value], rank: int) -> str:
            if rank >= len(own):
                return UNKNOWN
            return f"{self._label(own[rank])}: {_text(self.config, own[rank])}"

        ranks = range(max(map(len, ranked), default=0))
        return [[str(rank + 1), *(cell(own, rank) for own in ranked)] for rank in ranks]

    def _seed_rows(self, of_seeds: Sequence[list[Value]]) -> list[list[str]]:
        """Return a row for each label: its value in each seed, and their mean."""
        by_seed = [{self._label(value): value for value in own} for own in of_seeds]
        labels = dict.fromkeys(label for own in by_seed for label in own)
        return [
            [
                label,
                *(_text(self.config, own[label]) if label in own else UNKNOWN for own in by_seed),
                _mean(self.config, [own[label] for own in by_seed if label in own]),
            ]
            for label in labels
        ]

    def _crossed_rows(self, of_seeds: Sequence[list[Value]]) -> list[list[str]]:
        """Return a row for each label: in each column the mean of the seeds."""
        cells: dict[str, dict[str, list[Value]]] = {}
        for value in (value for own in of_seeds for value in own):
            row = cells.setdefault(self._label(value), {})
            row.setdefault(self._label(value, self.config.columns), []).append(value)
        return [
            [row, *(_mean(self.config, own.get(column, [])) for column in self._columns())]
            for row, own in cells.items()
        ]


def _text(table: TableConfig, value: Value) -> str:
    """Return a value as text, with its interval if it is known."""
    return Estimate(value["value"], *value["interval"]).text(f".{table.decimals}f")


def _verdict(table: TableConfig, values: Sequence[Value]) -> str:
    """Return whether a claim holds, in how many seeds, and the mean effect, as text."""
    known = [value["holds"] for value in values if value["holds"] is not None]
    if not known:
        return UNKNOWN
    share = sum(known) / len(known)
    word = "holds" if share >= MOST else "does not" if share <= LEAST else "in part"
    return f"{word}: {sum(known):.0f} of {len(known)}; {_mean(table, values)}"


def _mean(table: TableConfig, values: Sequence[Value]) -> str:
    """Return the mean over seeds with its interval as text."""
    return estimate([value["value"] for value in values]).text(f".{table.decimals}f")
