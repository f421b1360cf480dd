"""Arrays whose axes have names and whose coordinates have labels, and their files."""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ad.errors import CorruptError
from ad.runtime.files import atomic_write, write_text


@dataclass(frozen=True)
class LabeledArray:
    """An array, what its numbers are, and the labels of the coordinates along each named axis.

    Raises ValueError if the labels do not fit the shape.
    """

    values: np.ndarray
    axes: Mapping[str, Sequence[str | int | float]]  # name -> a label for each coordinate
    about: str  # what the numbers are, with their unit

    def __post_init__(self):
        shape = tuple(len(labels) for labels in self.axes.values())
        if self.values.shape != shape:
            raise ValueError(f"an array {list(self.values.shape)} has labels for {list(shape)}")

    def at(self, **labels: str | int | float) -> np.ndarray:
        """Return the values at one label of each axis that is named, with the other axes left."""
        if unknown := labels.keys() - self.axes.keys():
            raise KeyError(f"there is no axis {unknown.pop()}")
        index = (
            list(own).index(labels[name]) if name in labels else slice(None)
            for name, own in self.axes.items()
        )
        return self.values[tuple(index)]


UNREADABLE = (  # errors of files that are missing or damaged
    *(FileNotFoundError, EOFError, KeyError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error),
)

Results = dict[str, LabeledArray]  # of an analysis, by name
Axes = Mapping[str, Sequence[str]]  # the axes of arrays, by name
BOUND, BOUNDS = "bound", ["low", "high"]  # the axis of an interval and its labels
TRAIN_STEPS = "train steps"  # the axis of the checkpoints in arrays of several
FOLDER = "over_training"  # holds the arrays of several checkpoints, in the folder of the analyses
LEARNING = "learning"  # name of the losses and returns that analyses over training come with


def with_interval(
    name: str,
    values: np.ndarray,
    interval: np.ndarray,
    axes: Mapping[str, Sequence],
    about: str,
    unit: str = "task",
) -> Results:
    """Return `values` [...] and their 95 % interval [2, ...] as two labeled arrays.

    The second is called `<name>_interval`; it resamples the `unit` of contexts.
    """
    about_bounds = f"95 % interval of {name} over {unit}s"
    bounds = LabeledArray(interval, {BOUND: BOUNDS, **axes}, about_bounds)
    return {name: LabeledArray(values, dict(axes), about), f"{name}_interval": bounds}


def intervals(results: Results) -> dict[str, str]:
    """Return the name of the array that holds the 95 % interval, by the name of its array."""
    return {name: f"{name}_interval" for name in results if f"{name}_interval" in results}


def stack(results: Mapping[str | int | float, Results], axis: str) -> Results:
    """Stack `results`, given by label, along a new first axis `axis`.

    Coordinates that some of the results lack are NaN there.
    """
    names = dict.fromkeys(name for arrays in results.values() for name in arrays)
    return {
        name: _stacked({label: each[name] for label, each in results.items() if name in each}, axis)
        for name in names
    }


def _stacked(arrays: Mapping[str | int | float, LabeledArray], axis: str) -> LabeledArray:
    first, *_ = arrays.values()
    axes = {
        name: list(dict.fromkeys(label for array in arrays.values() for label in array.axes[name]))
        for name in first.axes
    }
    values = np.full((len(arrays), *map(len, axes.values())), np.nan)
    for n, array in enumerate(arrays.values()):
        index = [[axes[name].index(label) for label in array.axes[name]] for name in axes]
        values[n, *np.ix_(*index)] = array.values
    return LabeledArray(values, {axis: list(arrays), **axes}, first.about)


def save(path: Path, results: Results, about: Mapping[str, object]) -> None:
    """Write the arrays to `<path>.npz` and their axes with `about` to `<path>.json`.

    The same arrays give the same bytes.
    """
    path.with_suffix(".json").unlink(missing_ok=True)  # the JSON file marks complete arrays
    with atomic_write(path.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
        values = {name: array.values for name, array in results.items()}
        np.savez_compressed(file, **values)  # ty: ignore[invalid-argument-type] no name is a keyword
    arrays = {
        name: {
            "about": array.about,
            "axes": {axis: list(labels) for axis, labels in array.axes.items()},
        }
        for name, array in results.items()
    }
    write_text(path.with_suffix(".json"), json.dumps({**about, "arrays": arrays}, indent=1) + "\n")


def load(path: Path) -> Results:
    """Return the arrays that `save` wrote to `<path>.npz` and `<path>.json`.

    Raises CorruptError if a file is missing or damaged.
    """
    try:
        arrays = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["arrays"]
        with np.load(path.with_suffix(".npz")) as values:
            return {
                name: LabeledArray(values[name], entry["axes"], entry["about"])
                for name, entry in arrays.items()
            }
    except UNREADABLE as error:
        raise CorruptError(f"{path}.npz cannot be read: --fresh true makes it again") from error
