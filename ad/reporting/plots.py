"""Plots of a run as PNG bytes: the learning curve, the calibration, maps of scores, a histogram.

The colors are those of Okabe and Ito 2008, "Color Universal Design", which color-blind readers can
tell apart. Lines also differ in dash pattern. In maps, darker cells are better.
"""

import io
import itertools
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ad.evaluation.calibration import ACTIONS

INK, MUTED, GRID = "#26323d", "#68747f", "#e4e8eb"
STYLES = {  # in the order of the legend
    "optimal": {"color": INK, "linestyle": (0, (1, 1.5)), "linewidth": 1.6},
    "explorer": {"color": "#009E73", "linestyle": (0, (6, 2)), "linewidth": 1.6},
    "random_then_optimal": {
        "color": "#CC79A7",
        "linestyle": (0, (5, 1.5, 1, 1.5)),
        "linewidth": 1.8,
    },
    "held_out": {"color": "#0072B2", "linewidth": 2.6, "zorder": 4},
    "train": {"color": "#56B4E9", "linewidth": 1.3, "zorder": 3},
    "source": {"color": "#D55E00", "linewidth": 1.4},
    "tabular_learner": {"color": "#8C510A", "linestyle": (0, (7, 1.5, 1, 1.5, 1, 1.5))},
    "random": {"color": MUTED, "linestyle": (0, (2, 2)), "linewidth": 1.4},
}
OTHERS = [{"color": "#E69F00", "linestyle": (0, (length, 2))} for length in (1, 4, 7, 10)]
DPI, HISTOGRAM_BINS = 160, 50


@dataclass(frozen=True)
class Curve:
    """A line of the learning curve: values [E], and a band (low, high) of [E] around it.

    style: a key of STYLES, or another name, which gets one of the styles OTHERS.
    """

    style: str
    label: str
    values: np.ndarray
    band: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True)
class RoomMap:
    """A value for each task, float [K], NaN if unknown; colors range from `low` to `high`."""

    title: str
    values: np.ndarray
    low: float
    high: float
    high_is_good: bool = True
    digits: int = 2


def learning_curve(curves: list[Curve], y_label: str) -> bytes:
    """Plot `curves` over in-context episodes, as PNG bytes."""
    figure = Figure(figsize=(9.6, 4.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    others = [curve.style for curve in curves if curve.style not in STYLES]
    styles = STYLES | dict(zip(others, itertools.cycle(OTHERS), strict=False))
    for curve in sorted(curves, key=lambda curve: list(styles).index(curve.style)):
        episode, style = np.arange(1, len(curve.values) + 1), styles[curve.style]
        if curve.band is not None:
            axes.fill_between(episode, *curve.band, color=style["color"], alpha=0.18, linewidth=0)
        marker = {"marker": "o"} if len(episode) == 1 else {}
        axes.plot(episode, curve.values, label=curve.label, **style, **marker)
    style_axes(axes, "in-context episode (weights frozen)", y_label)
    axes.set_xlim(1, max(2, *(len(curve.values) for curve in curves)))
    axes.set_ylim(bottom=min(0.0, *(curve.values.min() for curve in curves)))
    legend = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False}
    axes.legend(**legend, fontsize=10, labelcolor=INK, labelspacing=0.7, handlelength=2.6)
    return to_png(figure)


def returns_histogram(returns: np.ndarray) -> bytes:
    """Plot the shares of episodes by their `returns` [M], as PNG bytes."""
    figure = Figure(figsize=(9.6, 2.8), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    share, color = np.full(len(returns), 1 / len(returns)), STYLES["source"]["color"]
    is_constant = returns.min() == returns.max()
    edges = returns[0] + np.array([-0.5, 0.5]) if is_constant else HISTOGRAM_BINS
    axes.hist(returns, edges, weights=share, color=color, alpha=0.85)
    style_axes(axes, "return of an episode", "share of episodes")
    return to_png(figure)


def calibration(
    by_action: dict[str, list[dict]], histogram: dict[str, list] | None, highlighted: str
) -> bytes:
    """Plot achieved against asked returns, and the histogram of the data's under it, as PNG bytes.

    by_action: entries of `results.json` by the way to act, of which `highlighted` is drawn bold.
    """
    figure = Figure(figsize=(7.2, 5.6), dpi=DPI, layout="constrained")
    rows = 1 if histogram is None else 2
    ratios = {"height_ratios": [3, 1][:rows]}
    axes, *below = figure.subplots(rows, 1, sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]
    asked = [entry["asked"] for entries in by_action.values() for entry in entries]
    ends = [min(asked), max(asked)]
    axes.plot(ends, ends, label="as asked", **STYLES["random"])
    for action, entries in by_action.items():
        style = STYLES["held_out" if action == highlighted else "source"]
        ordered = sorted(entries, key=lambda entry: entry["asked"])
        x, mean, low, high = (
            np.array([entry[name] for entry in ordered], float)
            for name in ("asked", "achieved", "low", "high")
        )
        label = f"{ACTIONS[action]} actions"
        axes.plot(x, mean, marker="o", label=label, **style)
        axes.fill_between(x, low, high, color=style["color"], alpha=0.18, linewidth=0)
    style_axes(axes, "", "achieved return")
    axes.legend(frameon=False, fontsize=10, labelcolor=INK)
    if histogram is not None:
        below[0].stairs(histogram["counts"], histogram["edges"], fill=True, color=MUTED)
        style_axes(below[0], "", "episodes")
    (below[-1] if below else axes).set_xlabel("asked return, or return in the data", color=INK)
    return to_png(figure)


def room_maps(
    maps: list[RoomMap],
    shape: tuple[int, int],
    cells: np.ndarray,
    held_out: np.ndarray,
    noun: str,
) -> bytes:
    """Draw `maps` side by side, a value in the cell of each task, as PNG bytes.

    shape: rows and columns of the grid; cells: int [K, 2]; held_out: bool [K], the tasks whose
    cells get a frame. noun: what a task is called. Cells without a task are hatched.
    """
    figure = Figure(figsize=(5.4 * len(maps), 5.6), dpi=DPI, layout="constrained")
    for axes, room in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
        _draw_map(figure, axes, room, shape, cells)
        for row, column in cells[held_out]:
            axes.add_patch(_frame(row, column))
    patches = [
        Patch(facecolor="white", edgecolor=STYLES["source"]["color"], linewidth=2),
        Patch(facecolor="white", edgecolor=MUTED, linewidth=0.5),
        Patch(facecolor="white", edgecolor=MUTED, linewidth=0.5, hatch="////"),
    ]
    labels = [f"held-out {noun}", f"train {noun}", f"no {noun} or no value"]
    figure.legend(patches, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=10)
    return to_png(figure)


def _draw_map(figure: Figure, axes: Axes, room: RoomMap, shape: tuple, cells: np.ndarray) -> None:
    grid = np.full(shape, np.nan)
    grid[tuple(cells.T)] = room.values
    empty = {"hatch": "////", "facecolor": "white", "edgecolor": "#c3cad0", "linewidth": 0}
    axes.add_patch(Rectangle((-0.5, -0.5), *shape[::-1], **empty))
    norm = Normalize(room.low, room.high)
    cmap = "Blues" if room.high_is_good else "Blues_r"
    image = axes.imshow(np.ma.masked_invalid(grid), cmap=cmap, norm=norm, zorder=2)
    for edge in range(1, max(shape)):
        axes.axhline(edge - 0.5, color="white", linewidth=1.2, zorder=2)
        axes.axvline(edge - 0.5, color="white", linewidth=1.2, zorder=2)
    axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
    axes.set_title(room.title, color=INK, fontsize=12, pad=9)
    axes.set_xlabel("column", color=MUTED, fontsize=9)
    axes.set_ylabel("row", color=MUTED, fontsize=9)
    axes.set_xticks(range(shape[1]))
    axes.set_yticks(range(shape[0]))
    axes.tick_params(length=0, labelsize=8, colors=MUTED)
    axes.spines[:].set_visible(False)
    if max(shape) <= 11:  # numbers do not fit into smaller cells
        _write_values(axes, room, grid, norm)
    bar = figure.colorbar(image, ax=axes, shrink=0.82, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelsize=8.5, colors=MUTED)


def _write_values(axes: Axes, room: RoomMap, grid: np.ndarray, norm: Normalize) -> None:
    style = {"ha": "center", "va": "center", "fontsize": 8, "zorder": 4}
    for row, column in np.argwhere(np.isfinite(grid)):
        value = grid[row, column]
        is_dark = norm(value) > 0.55 if room.high_is_good else norm(value) < 0.45
        text = f"{value:.{room.digits}f}"
        axes.text(column, row, text, color="white" if is_dark else INK, **style)


def _frame(row: int, column: int) -> Rectangle:
    style = {"facecolor": "none", "edgecolor": STYLES["source"]["color"], "linewidth": 2.2}
    return Rectangle((column - 0.44, row - 0.44), 0.88, 0.88, **style, zorder=3)


def style_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Label the axes, draw a light grid behind the data, and hide ticks and two spines."""
    axes.set_xlabel(x_label, color=INK)
    axes.set_ylabel(y_label, color=INK)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both", colors=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(MUTED)


def to_png(figure: Figure) -> bytes:
    """Return `figure` as PNG bytes, the same for the same figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
