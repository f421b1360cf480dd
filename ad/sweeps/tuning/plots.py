"""The figure of a search: learning curves, area against pace, and area by each setting tried."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ad.config.schema import Experiment
from ad.reporting.plots import DPI, INK, style_axes, to_png
from ad.sweeps.tuning.search import Tuning

BEST = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")  # Okabe and Ito's, the best first
OTHERS = "#c3cad0"


def tuning_picture(
    config: Experiment, tuning: Tuning, means: dict[str, np.ndarray], order: np.ndarray
) -> bytes:
    """Return the PNG of a search.

    `means` are the scores' means over tasks, float [S] by name; `order` the settings' indices, best
    first.
    """
    varied = [n for n in config.tune.grid if len({getattr(s, n) for s in tuning.settings}) > 1]
    figure = Figure(figsize=(11.5, 8.2 if varied else 4.4), dpi=DPI, layout="constrained")
    rows = figure.subfigures(2 if varied else 1, 1, squeeze=False)[:, 0]
    left, right = rows[0].subplots(1, 2)
    _curves(left, config, tuning, order)
    _area_and_pace(right, config, means, order)
    if varied:
        panels = rows[1].subplots(1, len(varied), squeeze=False, sharey=True)[0]
        for axes, name in zip(panels, varied, strict=True):
            _marginal(axes, name, np.array([getattr(s, name) for s in tuning.settings]), means)
        panels[0].set_ylabel("area under the curve", color=INK)
    return to_png(figure)


def _curves(axes: Axes, config: Experiment, tuning: Tuning, order: np.ndarray) -> None:
    """Plot return / scale over as many strided episodes as an evaluation has, mean over tasks."""
    shown = tuning.curves["return"][:, :, : config.evaluation.episodes]
    curves = (shown / tuning.scale[:, None]).mean(1)  # [S, J], NaN where one task has ended
    episode = np.arange(1, curves.shape[1] + 1)
    marker = {"marker": "."} if len(episode) == 1 else {}
    for place, s in reversed(list(enumerate(order))):
        best = place < len(BEST)
        style = {"color": BEST[place], "linewidth": 2} if best else {"color": OTHERS}
        label = _name(config, tuning.settings[s]) if best else None
        axes.plot(episode, curves[s], **{"linewidth": 0.8, **style, **marker}, label=label)
    stride = config.data.history_stride
    style_axes(axes, f"episode of the history at stride {stride}", "return / best possible")
    handles, labels = axes.get_legend_handles_labels()
    best_first = {"handles": handles[::-1], "labels": labels[::-1], "loc": "lower right"}
    axes.legend(**best_first, fontsize=8, labelcolor=INK, title="best first", title_fontsize=8)


def _area_and_pace(axes: Axes, config: Experiment, means: dict, order: np.ndarray) -> None:
    colors = [*BEST, *[OTHERS] * len(order)][: len(order)]
    x, y = means["rise_windows"][order], means["area"][order]
    axes.scatter(x[::-1], y[::-1], c=colors[::-1], s=42, zorder=3)
    wanted = config.tune.rise_windows
    axes.axvline(wanted, color=INK, linestyle=(0, (4, 2)), linewidth=1.2)
    axes.set_xscale("log")
    style_axes(
        axes, f"context windows to 90 % of the final return (dashed: {wanted:g} wanted)", "area"
    )


def _marginal(axes: Axes, name: str, values: np.ndarray, means: dict) -> None:
    """Plot the area of every setting over the values of `name`, and the mean for each value."""
    axes.scatter(values, means["area"], color=OTHERS, s=16)
    kinds = np.unique(values)
    if len(kinds) <= len(values) // 2:  # a random search has each value once
        center = [np.nanmean(means["area"][values == kind]) for kind in kinds]
        axes.plot(kinds, center, color=BEST[0], marker="o", linewidth=1.8)
    if kinds[0] > 0 and kinds[-1] > 5 * kinds[0]:
        axes.set_xscale("log")
    style_axes(axes, name, "")


def _name(config: Experiment, settings) -> str:
    values = ((name, getattr(settings, name)) for name in config.tune.grid)
    return ", ".join(f"{name} {value:g}" for name, value in values)
