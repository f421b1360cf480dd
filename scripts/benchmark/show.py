"""The measurements as a table, as lines of details, and as a plot of the growth of costs."""

import json
import os
import platform
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from matplotlib.figure import Figure

from ad.config.parser import load
from ad.evaluation.scores import UNKNOWN
from ad.reporting.page import Table
from ad.reporting.plots import DPI, GRID, INK
from ad.runtime.devices import choose_device
from ad.runtime.files import atomic_write
from ad.training.provenance import hardware
from scripts.benchmark.measure import Measurement

HEADER = ["", "ours /s", "peer /s", "ratio", "limit /s", "of limit", "memory"]
PACKAGES = ("gymnasium", "numba", "stable_baselines3", "transformers")
TRAINING_COST = "milliseconds per 1,000 transitions"
Panel = tuple[str, str, dict[int, float]]  # title, unit of the costs, costs


def table(measurements: list[Measurement]) -> Table:
    """Return a table with a line for each measurement; unknown cells are dashes."""
    return Table(HEADER, [_cells(measurement) for measurement in measurements])


def detail_lines(measurements: list[Measurement]) -> list[str]:
    """Return a line with the peer, the limit and the details of each measurement that has any."""
    lines = []
    for measurement in measurements:
        texts = []
        if measurement.peer_name:
            texts.append(f"peer: {measurement.peer_name}")
        if measurement.limit_name:
            texts.append(f"limit: {measurement.limit_name}")
        texts += [f"{name}: {_text(value)}" for name, value in measurement.detail.items()]
        if texts:
            lines.append(f"- {measurement.part}, {measurement.name}: {'; '.join(texts)}")
    return lines


def with_other_parts(
    measurements: list[Measurement], path: Path, quick: bool, parts: list[str]
) -> list[Measurement]:
    """Return `measurements` with those of other parts in the results at `path`, ordered by `parts`.

    Results of another system, or with another value of `quick`, are left out.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        same = content["system"] == system_info() and content["quick"] == quick
        entries = content["measurements"] if same else []
    except (OSError, ValueError, KeyError):
        entries = []
    names = {field.name for field in fields(Measurement)}
    measured = {measurement.part for measurement in measurements}
    old = [Measurement(**{k: v for k, v in entry.items() if k in names}) for entry in entries]
    others = [own for own in old if own.part in parts and own.part not in measured]
    return sorted([*measurements, *others], key=lambda measurement: parts.index(measurement.part))


def system_info() -> dict:
    """Return the hardware and the versions that the rates depend on."""
    config = load([])
    packages = {name: _version(name) for name in PACKAGES}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processor = {
        "cores": cores,
        "processor": platform.processor() or platform.machine(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
    }
    return hardware(config, choose_device(config)) | packages | processor


def write_plot(path: Path, measurements: list[Measurement]) -> None:
    """Plot costs against agents, environments, context and width, as far as they were measured.

    Without any, no file is written.
    """
    panels = [panel for panel in _panels(measurements) if panel[2]]
    if not panels:
        return
    figure = Figure(figsize=(3.4 * len(panels), 3.1), dpi=DPI, layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, unit, costs) in zip(all_axes, panels, strict=True):
        x, y = list(costs), list(costs.values())
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


def _panels(measurements: list[Measurement]) -> list[Panel]:
    def costs(part: str, name: str, key: str, prefix: str = "") -> dict[int, float]:
        return _costs(measurements, part, name, key, prefix)

    agents = costs("collect", "200 agents against 1, room 15 x 15", "cost per step, ns")
    stepping = costs("collect", "stepping, 10,000 environments", "cost per step, ns")
    rollouts = costs("rollout", "growth", "cost per step, µs")
    contexts = costs("train", "growth", TRAINING_COST, "context ")
    widths = costs("train", "growth", TRAINING_COST, "width ")
    return [
        ("collection by agents", "ns per step", agents),
        ("stepping by environments", "ns per step", stepping),
        ("rollout by environments", "µs per step", rollouts),
        ("training by context", "ms per 1,000 transitions", contexts),
        ("training by width", "ms per 1,000 transitions", widths),
    ]


def _costs(
    measurements: list[Measurement], part: str, name: str, key: str, prefix: str
) -> dict[int, float]:
    """Return the costs below `key` in a measurement's details; empty if it was not made.

    Their keys are `prefix` and a number; the number is returned.
    """
    details = {
        (measurement.part, measurement.name): measurement.detail for measurement in measurements
    }
    costs = details.get((part, name), {}).get(key, {})
    return {int(k.removeprefix(prefix)): v for k, v in costs.items() if k.startswith(prefix)}


def _cells(measurement: Measurement) -> list[str]:
    ratio, share, memory = measurement.ratio, measurement.share, measurement.peak_memory
    return [
        f"{measurement.part}: {measurement.name} ({measurement.unit})",
        _rate(measurement.ours),
        _rate(measurement.peer),
        UNKNOWN if ratio is None else f"{ratio:.1f} x",
        _rate(measurement.limit),
        UNKNOWN if share is None else f"{share:.0%}",
        UNKNOWN if memory is None else f"{memory / 1e9:.2f} GB",
    ]


def _rate(rate: float | None) -> str:
    if rate is None:
        return UNKNOWN
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if rate >= size:
            return f"{rate / size:.3g}{letter}"
    return f"{rate:.3g}"


def _text(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
