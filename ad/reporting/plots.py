"""Charts of lines as PNG files, for pages that show pictures only, such as a README.

The colors are from Okabe and Ito 2008, "Color Universal Design", as in `page.css`: color-blind
readers can distinguish them. Lines also differ in their dash pattern.
"""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ad.reporting.page import Chart

INK, MUTED, GRID = "#26323d", "#68747f", "#e4e8eb"
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7d878f", "#8c510a"]
DASHES = ("solid", (0, (6, 2)), (0, (1, 1.5)), (0, (6, 1.5, 1, 1.5)))
DPI = 160


def png(chart: Chart) -> bytes:
    """Draw a chart of kind "lines" as PNG bytes, the same for the same chart."""
    figure = Figure(figsize=(9.6, 4.4), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    _draw_lines(axes, chart)
    if len(chart.rows) > 1:
        legend = {"loc": "center left", "bbox_to_anchor": (1.01, 0.5), "frameon": False}
        axes.legend(**legend, fontsize=10, labelcolor=INK, labelspacing=0.7, handlelength=2.6)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_lines(axes: Axes, chart: Chart) -> None:
    columns = np.array(chart.columns, float)
    for row, label in enumerate(chart.rows):
        style = _style(chart, row)
        values, low, high = _row(chart, row)
        axes.fill_between(columns, low, high, color=style["color"], alpha=0.18, linewidth=0)
        marker = {"marker": "o"} if np.isfinite(values).sum() == 1 else {}
        axes.plot(columns, values, label=label, **style, **marker, zorder=2 + style["linewidth"])
    axes.set_xlabel(chart.column_name, color=INK)
    axes.set_ylabel(chart.value_name, color=INK)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both", colors=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(MUTED)
    axes.set_xlim(columns.min(), max(columns.max(), columns.min() + 1e-9))
    known = [x for row in range(len(chart.rows)) for x in _row(chart, row)[0] if np.isfinite(x)]
    axes.set_ylim(bottom=min(0.0, *known)) if chart.domain is None else axes.set_ylim(*chart.domain)


def _row(chart: Chart, row: int) -> list[np.ndarray]:
    """Return the values of a row and the ends of their intervals, NaN for unknown."""
    each = (chart.values, chart.low, chart.high)
    unknown = [None] * len(chart.columns)
    return [np.array(unknown if rows is None else rows[row], float) for rows in each]


def _style(chart: Chart, row: int) -> dict:
    given = chart.styles[row] if chart.styles else {"color": row % 8, "dash": row // 8 % 4}
    return {
        "color": COLORS[given["color"]],
        "linestyle": DASHES[given.get("dash", 0)],
        "linewidth": given.get("width", 2) * 0.85,
    }
