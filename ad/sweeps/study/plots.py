"""The figure of a question: success over in-context episodes, and the compared score, by value.

The values are named on the right, in the colors of their lines.
"""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ad.reporting.plots import INK, MUTED, style_axes, to_png
from ad.sweeps.records import FIFTHS
from ad.sweeps.study.verdicts import ValueResults

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK, MUTED)
STROKES = ("-", (0, (6, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
WITHIN_1 = ("nauc", "success_last10")  # scores from 0 to 1
RESOLUTION = 100  # dots per inch: these pictures are committed


def question_picture(
    results: dict[str, ValueResults], heading: str, random_walk: float | None
) -> bytes:
    """Return a PNG of the `results` by value.

    heading: the name of the compared score. random_walk: the NAUC of a random walk that takes
    shortest paths once it has found the goal; None unless NAUC is compared.
    """
    height = max(3.8, 1.2 + 0.45 * len(results))
    figure = Figure(figsize=(10.5, height), dpi=RESOLUTION, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    styles = [_style(n) for n in range(len(results))]
    for n, (value, style) in enumerate(zip(results.values(), styles, strict=True)):
        _curve(left, value, n / len(results), style)
        _interval(right, value, n, style)
    style_axes(left, "fifth of the in-context episodes", "success, held-out tasks")
    left.set_xticks(range(1, 6))
    left.set_ylim(0, 1.02)
    if random_walk is not None:
        style = {"color": "#CC79A7", "linestyle": STROKES[-1], "linewidth": 1.8}
        right.axvline(random_walk, **style, label="random walk, then shortest path")
        right.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8, frameon=False)
    style_axes(right, f"{heading}, held-out tasks (dots: seeds)", "")
    if all(value.compared in WITHIN_1 for value in results.values()):
        right.set_xlim(np.clip(right.get_xlim(), 0, 1))  # the interval of few seeds may be wider
    right.set_yticks(range(len(results)), results)
    right.set_ylim(len(results) - 0.5, -0.5)
    for text, style in zip(right.get_yticklabels(), styles, strict=True):
        text.set_color(style["color"])
    return to_png(figure)


def _style(n: int) -> dict:
    return {"color": COLORS[n % len(COLORS)], "linestyle": STROKES[n % len(STROKES)]}


def _curve(axes: Axes, value: ValueResults, shift: float, style: dict) -> None:
    """Plot means with error bars, a little aside so that those of other values can be seen."""
    estimates = enumerate(map(value.estimate, FIFTHS))
    known = {k: estimate for k, estimate in estimates if estimate[0] is not None}
    x = np.array(list(known)) + 1 + 0.24 * (shift - 0.5)
    mean = np.array([mean for mean, _ in known.values()])
    ends = [bounds or (mean, mean) for mean, bounds in known.values()]
    errors = np.abs(np.array(ends).reshape(-1, 2).T - mean)
    axes.errorbar(x, mean, errors, **style, marker="o", markersize=4, capsize=2)


def _interval(axes: Axes, value: ValueResults, y: int, style: dict) -> None:
    (mean, bounds), seeds = value.estimate(value.compared), value.values(value.compared)
    if bounds is not None:
        axes.plot(bounds, (y, y), **style, linewidth=2)
    if mean is not None:
        axes.plot(mean, y, color=style["color"], marker="D", markersize=6)
    axes.scatter(seeds, [y + 0.2] * len(seeds), color=style["color"], s=14, alpha=0.6)
