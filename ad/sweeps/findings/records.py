"""Records of findings: a CSV file with a line for each value of an array that a table shows.

A record is found by the hash of its run's configuration, the table, and the labels of the value, as
JSON. Records of a table that shows another array now are kept but not shown. An empty cell is an
unknown value.
"""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from ad.errors import ConfigError, CorruptError
from ad.interpret.labeled import BOUND, Axes, LabeledArray, Results
from ad.runtime.files import atomic_write
from ad.sweeps.findings.plan import Findings, TableConfig
from ad.sweeps.planned import PlannedRun
from envs.registry import did_you_mean


@dataclass(frozen=True)
class Value:
    """A value of an array of an analysis of one run; NaN where it, or its interval, is unknown."""

    key: str  # of the run
    model: str
    seed: int
    table: str
    analysis: str
    array: str
    labels: str  # JSON, axis: label
    value: float
    low: float
    high: float

    def label(self, axis: str) -> str:
        """Return the label along `axis`."""
        return json.loads(self.labels)[axis]

    @property
    def place(self) -> tuple[str, ...]:
        """The entries that tell the value apart from all others."""
        return self.key, self.table, self.analysis, self.array, self.labels


def read_values(path: Path) -> list[Value]:
    """Return the records at `path`, none without a file. Raises CorruptError."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        header, *lines = list(csv.reader(file)) or [[]]
    try:
        if header != [column.name for column in fields(Value)]:
            raise ValueError("its columns are others")
        return [
            Value(key, model, int(seed), *texts, *map(_parse, numbers))
            for key, model, seed, *texts, value, low, high in lines
            for numbers in [(value, low, high)]
        ]
    except (ValueError, TypeError) as error:
        raise CorruptError(f"{path} is not a whole file of findings: {error}") from error


def add_values(path: Path, new: Sequence[Value]) -> None:
    """Add records to those at `path`, in place of earlier ones of the same values."""
    values = {value.place: value for value in [*read_values(path), *new]}
    with atomic_write(path) as copy, open(copy, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([column.name for column in fields(Value)])
        for value in sorted(values.values(), key=lambda v: (v.model, v.seed, v.table)):
            *texts, number, low, high = astuple(value)
            writer.writerow([*texts, *map(_text, (number, low, high))])


def check_axes(table: TableConfig, arrays: Axes) -> None:
    """Raise ConfigError unless `arrays`, those of the analysis, are what `table` can show."""
    for name in filter(None, (table.array, table.interval)):
        if name not in arrays:
            hint = did_you_mean(name, arrays) or f" (arrays: {', '.join(arrays)})"
            raise ConfigError(f"the analysis {table.analysis} has no array {name!r}{hint}")
    axes = arrays[table.array]
    left = [axis for axis in axes if axis not in table.at]
    shown = [axis for axis in (table.rows, table.columns) if axis]
    if sorted([*shown, *table.at]) != sorted(axes):
        raise ConfigError(
            f"the array {table.array} of {table.analysis} has the axes {', '.join(axes)}: rows and "
            f"columns must be those that `at` leaves, {', '.join(left) or 'none'}, "
            f"not {', '.join(shown)}"
        )
    if table.interval and sorted(arrays[table.interval]) != sorted([BOUND, *axes]):
        raise ConfigError(f"the array {table.interval} is no interval of {table.array}")


def values_of(findings: Findings, name: str, run: PlannedRun, results: Results) -> list[Value]:
    """Return the values of `results` that the table called `name` shows of `run`.

    Raises ConfigError for an array, an axis or a label that the analysis does not have.
    """
    table = findings.tables[name]
    check_axes(table, {own: list(array.axes) for own, array in results.items()})
    array = results[table.array]
    at = {axis: _label(array, axis, str(label)) for axis, label in table.at.items()}
    for label in table.only:
        _label(array, table.rows, label)
    selected = array.at(**at)
    low = high = np.full(selected.shape, np.nan)
    if table.interval:
        interval = results[table.interval]
        low, high = (interval.at(**at, **{BOUND: bound}) for bound in interval.axes[BOUND])
    seed = run.config.training.train_seed
    return [
        Value(
            *(run.key, run.changed, seed, name, table.analysis, table.array),
            json.dumps(labels, ensure_ascii=False),
            *(float(values[index]) for values in (selected, low, high)),
        )
        for index, labels in _labels(array, {axis: str(label) for axis, label in at.items()})
    ]


def shown_values(findings: Findings, name: str, values: Sequence[Value]) -> list[Value]:
    """Return those of `values` that the table called `name` shows."""
    table = findings.tables[name]
    return [value for value in values if value.table == name and _is_shown(value, table)]


def _is_shown(value: Value, table: TableConfig) -> bool:
    """Return whether a value of `table` is one of the array that it shows now."""
    if (value.analysis, value.array) != (table.analysis, table.array):
        return False
    labels = json.loads(value.labels)
    axes = {*table.at, table.rows, table.columns} - {""}
    return labels.keys() == axes and all(labels[a] == str(label) for a, label in table.at.items())


def _labels(
    array: LabeledArray, at: dict[str, str]
) -> Iterator[tuple[tuple[int, ...], dict[str, str]]]:
    """Yield the index among the axes that `at` leaves, and all labels, of each value."""
    left = [axis for axis in array.axes if axis not in at]
    for index in np.ndindex(*(len(array.axes[axis]) for axis in left)):
        free = {axis: str(array.axes[axis][k]) for axis, k in zip(left, index, strict=True)}
        yield index, {axis: (at | free)[axis] for axis in array.axes}


def _label(array: LabeledArray, axis: str, label: str) -> str | int | float:
    """Return the label of an axis that reads as `label`."""
    known = {str(own): own for own in array.axes.get(axis, ())}
    if label not in known:
        hint = did_you_mean(label, known) or f" (labels: {', '.join(known) or 'none'})"
        raise ConfigError(f"the axis {axis!r} has no label {label!r}{hint}")
    return known[label]


def _parse(cell: str) -> float:
    return float(cell) if cell else math.nan


def _text(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
