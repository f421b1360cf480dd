"""The page `logs/<run>/inspect/index.html`: all analyses of a run that lie in its folder.

It needs no other file and no network, and stays under 10 MB: the largest arrays are left out until
the others fit. The same files give the same page.
"""

import inspect
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ad.errors import CorruptError
from ad.evaluation.summary import identity
from ad.interpret.analysis import Analysis
from ad.interpret.labeled import (
    BOUND,
    FOLDER,
    LEARNING,
    UNREADABLE,
    LabeledArray,
    Results,
    intervals,
    load,
)
from ad.interpret.over_training import Learning, appeared, changes_table, describe
from ad.registry import ANALYSES
from ad.reporting import page
from ad.reporting.page import Table
from ad.runtime.files import write_text
from ad.runtime.run import Run

PAGE, TEMPLATE = "index.html", Path(__file__).parent / "page.html.j2"
MOST_CHARACTERS = 8_000_000  # of all numbers on the page


def write_page(run: Run, left_out: dict[str, str], folder: Path | None = None) -> Path:
    """Write the page of the analyses in `folder` and return its path.

    The default is the folder of those of all decisions of `run`. `left_out` has the reason, a
    sentence, for each analysis that is not possible.
    """
    folder = folder or run.folder / "inspect"
    path, data = folder / PAGE, page_data(run, left_out, folder)
    write_text(path, page.render(TEMPLATE, data, name=data["name"]))
    return path


def page_data(run: Run, left_out: dict[str, str], folder: Path | None = None) -> dict:
    """Return the content of the page of `folder` in plain types."""
    folder = folder or run.folder / "inspect"
    missing = {f"{name} is not possible: {reason}" for name, reason in left_out.items()}
    whole, stale = _read(folder, identity(run))
    hashes = {name: value for name, value in identity(run).items() if name != "checkpoint"}
    over, old = _read(folder / FOLDER, hashes)
    unmade = [name for name in ANALYSES if name not in (*whole, *left_out)]
    sections = [_section(name, *entry) for name, entry in whole.items()]
    learning = over[LEARNING][1] if LEARNING in over else None
    changes = [_section(name, *entry, learning) for name, entry in over.items()] if learning else []
    _drop_largest(array for each in (*sections, *changes) for array in each["arrays"])
    return {
        "name": run.config.name,
        "hash": identity(run)["config_hash"],
        "sections": sections,
        "over_training": changes,
        "answer": describe(learning) if learning else "",
        "appeared": appeared(learning) if learning else None,
        "left_out": sorted(missing) + [f"{name} has not been run" for name in unmade] + stale + old,
    }


def _read(folder: Path, expected: dict) -> tuple[dict[str, tuple[dict, Results]], list[str]]:
    """Return the JSON file and the arrays of each analysis in `folder`, in the registry's order.

    The second value is a list of sentences about analyses whose files cannot be read, or belong to
    another training: entries of the JSON file differ from `expected`.
    """
    read, unread = {}, []
    order = [LEARNING, *ANALYSES]
    names = sorted(path.stem for path in folder.glob("*.json"))
    for name in sorted(names, key=lambda n: (order.index(n) if n in order else len(order), n)):
        path = folder / name
        try:
            about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            results, analysis = load(path), _load(name)
            if folder.name != FOLDER:
                analysis.table(results)
        except (CorruptError, *UNREADABLE):
            unread.append(f"{name} cannot be read: --fresh true makes it again")
            continue
        if {key: about.get(key) for key in expected} == expected:
            read[name] = about, results
        else:
            unread.append(f"{name} is of another training: run it again")
    return read, unread


def _load(name: str) -> Analysis:
    return Learning() if name == LEARNING else ANALYSES.load(name)()


def _section(name: str, about: dict, results: Results, learning: Results | None = None) -> dict:
    """Return the page's section of an analysis; over training `learning` holds the NAUC."""
    analysis, table = _load(name), None
    if learning is None or name == LEARNING:
        table = analysis.table(results)
    else:
        table = changes_table(results, learning)
    title, _, question = (sys.modules[type(analysis).__module__].__doc__ or "").partition("\n\n")
    bounds = intervals(results)
    return {
        "name": name,
        "title": str(inspect.getdoc(analysis)).splitlines()[0],
        "about": [
            " ".join(text.replace("`", "").split())
            for text in (title, *question.split("\n\n"))
            if text
        ],
        "facts": _facts(about),
        "table": _table(table),
        "arrays": [
            array_data(array_name, array, bounds.get(array_name), results)
            for array_name, array in results.items()
            if array_name not in bounds.values()
        ],
    }


def _facts(about: dict) -> str:
    """Return the checkpoint and the contexts of an analysis as text."""
    steps = about["train_steps"]
    steps = f"{len(steps)} checkpoints" if isinstance(steps, list) else f"train step {steps}"
    facts = [steps]
    if "contexts" in about:
        source = {"rollout": "rollouts"}.get(about["contexts"], about["contexts"])
        facts.append(f"contexts from {source} on {len(about['tasks'])} tasks")
    if about.get("asked"):
        facts.append(f"returns asked: {', '.join(f'{value:g}' for value in about['asked'])}")
    facts += [about[name] for name in ("situation", "direction") if about.get(name)]
    if about.get("components"):
        facts.append(f"components {', '.join(about['components'])}")
    return "; ".join(facts)


def _table(table: Table) -> dict:
    return {"header": table.header, "rows": table.rows}


def array_data(
    name: str, array: LabeledArray, interval: str | None = None, results: Results | None = None
) -> dict:
    """Return an array with its axes for `arrays.js`, and the bounds in the array `interval`."""
    entry = {
        "name": name,
        "about": array.about,
        "axes": [[axis, list(labels)] for axis, labels in array.axes.items()],
        "values": _numbers(array.values),
    }
    if interval and results:
        bounds = {end: _numbers(results[interval].at(**{BOUND: end})) for end in ("low", "high")}
        entry |= {"interval": interval, **bounds}
    return entry


def _numbers(values: np.ndarray) -> list[float | None]:
    """Return numbers with four significant digits in C order, None for one that is not finite."""
    finite = (float(f"{value:.4g}") if np.isfinite(value) else None for value in values.flat)
    return [int(x) if x is not None and x.is_integer() else x for x in finite]


def _drop_largest(arrays: Iterable[dict]) -> None:
    """Remove the numbers of the largest arrays until the numbers of the others fit on the page."""
    keys = ("values", "low", "high")
    sizes = [
        (sum(len(json.dumps(entry[key])) for key in keys if key in entry), entry)
        for entry in arrays
    ]
    total = sum(size for size, _ in sizes)
    for size, entry in sorted(sizes, key=lambda pair: -pair[0]):
        if total <= MOST_CHARACTERS:
            return
        for key in keys:
            entry.pop(key, None)
        total -= size
