"""The rows as a table, as sentences and as a plot of how cost grows."""

import json
import os
import platform
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from matplotlib.figure import Figure

from ad.config.parser import load
from ad.reporting.plots import DPI, GRID, INK
from ad.reporting.tables import UNKNOWN, Table
from ad.runtime.devices import choose_device
from ad.runtime.files import atomic_write
from ad.training.provenance import hardware
from scripts.benchmark.measure import Row

HEADER = ["", "ours /s", "peer /s", "ratio", "limit /s", "of limit", "memory", "target", "met"]
PACKAGES = ("gymnasium", "numba", "stable_baselines3", "transformers")
TRAINING = "milliseconds per 1,000 transitions"


def table(rows: list[Row]) -> Table:
    """A line a row; what a row has not stays a dash."""
    return Table(HEADER, [_cells(row) for row in rows])


def lines(rows: list[Row]) -> list[str]:
    """A line for each row that compares, naming peer and limit, then its details."""
    text = []
    for row in rows:
        named = [f"peer: {row.peer_name}"] * bool(row.peer_name)
        named += [f"limit: {row.limit_name}"] * bool(row.limit_name)
        details = [f"{name}: {_plain(value)}" for name, value in row.detail.items()]
        if named or details:
            text.append(f"- {row.part}, {row.name}: {'; '.join(named + details)}")
    return text


def with_others(rows: list[Row], path: Path, quick: bool, parts: list[str]) -> list[Row]:
    """`rows`, and those of other parts in the results at `path` if of the same machine."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        same = content["machine"] == machine() and content["quick"] == quick
        entries = content["rows"] if same else []
    except (OSError, ValueError, KeyError):
        entries = []
    names, measured = {field.name for field in fields(Row)}, {row.part for row in rows}
    old = [Row(**{n: v for n, v in entry.items() if n in names}) for entry in entries]
    return sorted(
        [*rows, *(row for row in old if row.part not in measured)],
        key=lambda row: parts.index(row.part),
    )


def machine() -> dict:
    """What the figures depend on."""
    config = load([]).config
    known = hardware(config, choose_device(config))
    packages = {name: _version(name) for name in PACKAGES}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = {
        "cores": cores,
        "processor": platform.processor() or platform.machine(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
    }
    return known | packages | processor


def write_plot(path: Path, rows: list[Row]) -> None:
    """Cost against agents, lanes, context and width; panels without a measurement stay away."""
    panels = [panel for panel in _panels(rows) if panel[2]]
    if not panels:
        return
    figure = Figure(figsize=(3.4 * len(panels), 3.1), dpi=DPI, layout="constrained")
    places = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, unit, points) in zip(places, panels, strict=True):
        x, y = list(points), list(points.values())
        axes.plot(x, y, marker="o", color="#0072B2", linewidth=2)
        axes.set_xscale("log")
        axes.set_xticks(x, [str(n) if n % 1000 else f"{n // 1000}k" for n in x])
        axes.minorticks_off()
        axes.set_ylim(0, max(y) * 1.15)
        axes.set_title(title, fontsize=10, color=INK)
        axes.set_ylabel(unit, fontsize=9, color=INK)
        axes.grid(color=GRID)
        axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png")


def _panels(rows: list[Row]) -> list[tuple[str, str, dict[int, float]]]:
    agents = _costs(rows, "collect", "200 agents against 1, room 15 x 15", "cost per step, ns")
    lanes = _costs(rows, "collect", "stepping, 10,000 lanes", "cost per step, ns")
    rolling = _costs(rows, "rollout", "growth", "cost per step, µs")
    widths = _costs(rows, "train", "growth", TRAINING, "width ")
    return [
        ("collection by agents", "ns a step", agents),
        ("stepping by lanes", "ns a step", lanes),
        ("rollout by lanes", "µs a step", rolling),
        ("training by context", "ms per 1,000 transitions", _by_context(rows)),
        ("training by width", "ms per 1,000 transitions", widths),
    ]


def _by_context(rows: list[Row]) -> dict[int, float]:
    """Milliseconds per 1,000 transitions of training, by context."""
    return _costs(rows, "train", "growth", TRAINING, "context ")


def _costs(rows: list[Row], part: str, name: str, what: str, prefix: str = "") -> dict[int, float]:
    """The costs in a row's detail `what`, by the number behind `prefix`; none without the row."""
    details = {(row.part, row.name): row.detail for row in rows}
    costs = details.get((part, name), {}).get(what, {})
    return {int(k.removeprefix(prefix)): v for k, v in costs.items() if k.startswith(prefix)}


def _cells(row: Row) -> list[str]:
    return [
        f"{row.part}: {row.name} ({row.unit})",
        _rate(row.ours),
        _rate(row.peer),
        UNKNOWN if row.ratio is None else f"{row.ratio:.1f} x",
        _rate(row.limit),
        UNKNOWN if row.share is None else f"{row.share:.0%}",
        UNKNOWN if row.peak_memory is None else f"{row.peak_memory / 1e9:.2f} GB",
        row.target or UNKNOWN,
        {None: UNKNOWN, True: "yes", False: "no"}[row.met],
    ]


def _rate(rate: float | None) -> str:
    if rate is None:
        return UNKNOWN
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if rate >= size:
            return f"{rate / size:.3g}{letter}"
    return f"{rate:.3g}"


def _plain(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
