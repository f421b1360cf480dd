"""The charts of a run's report: learning curve, calibration, maps of tasks, histograms."""

from collections.abc import Sequence

import numpy as np

from ad.data.episodes import ratio
from ad.evaluation import metrics
from ad.evaluation.calibration import ACTIONS
from ad.evaluation.results import Evaluation
from ad.reporting.page import Chart
from ad.reporting.tables import SPLIT_TITLES, agent_title, has_model, reference_of
from envs.oracle import TaskOracle

HISTOGRAM_BINS = 50
STYLES = {  # of the lines of the learning curve, in the order of the legend
    "held_out": {"color": 0, "width": 3},
    "train": {"color": 5, "width": 1.5},
    "optimal": {"color": 6, "dash": 2},
    "explorer": {"color": 2, "dash": 1},
    "random_then_optimal": {"color": 3, "dash": 3},
    "tabular_learner": {"color": 7, "dash": 1},
    "restarted_learner": {"color": 2, "dash": 1},
    "source": {"color": 1, "width": 1.5},
    "random": {"color": 6, "dash": 1},
}
OTHER_STYLE = {"color": 4, "dash": 2}  # of a reference that only its world has


def learning_curve(evaluations: dict[str, Evaluation], results: dict) -> Chart:
    """Return the mean returns of both splits and of the references of a `results.json`.

    References are those on held-out tasks; the source agents have train tasks only.
    """
    lines = {}  # name -> label, values, low, high
    for split, evaluation in evaluations.items():
        returns = evaluation.returns.mean(1)  # [K, E]
        band = metrics.bootstrap(returns) if split == "held_out" else (None, None)
        label = f"{agent_title(results)}, {SPLIT_TITLES[split]} ({len(returns)})"
        lines[split] = label, returns.mean(0), *band
    for name, by_split in results["references"].items():
        if name != "source_end":  # which has the last episodes only
            title, own = reference_of(name, by_split)
            lines[name] = title, own["curve"], None, None
    order = list(STYLES)
    names = sorted(lines, key=lambda name: order.index(name) if name in order else len(order))
    episodes = max(len(lines[name][1]) for name in names)
    labels, values, low, high = zip(*(lines[name] for name in names), strict=True)
    return Chart(
        "lines",
        list(range(1, episodes + 1)),
        [_padded(line, episodes) for line in values],
        labels,
        [_padded(line, episodes) for line in low],
        [_padded(line, episodes) for line in high],
        column_name="in-context episode (weights frozen)" if has_model(results) else "episode",
        value_name="return, mean over tasks",
        styles=[STYLES.get(name, OTHER_STYLE) for name in names],
    )


def calibration(by_action: dict[str, list[dict]]) -> Chart:
    """Return achieved against asked returns, a line for each way to choose actions."""
    asked = sorted({entry["asked"] for entries in by_action.values() for entry in entries})
    ordered = [{entry["asked"]: entry for entry in entries} for entries in by_action.values()]

    def lines(name: str) -> list[list[float | None]]:
        return [[entries[value][name] for value in asked] for entries in ordered]

    unknown = [None] * len(asked)
    return Chart(
        "lines",
        asked,
        [*lines("achieved"), asked],
        [*(f"{ACTIONS[action]} actions" for action in by_action), "achieved = asked"],
        [*lines("low"), unknown],
        [*lines("high"), unknown],
        column_name="asked return",
        value_name="achieved return",
        styles=[{"color": 0}, {"color": 1}, {"color": 6, "dash": 1, "width": 1.5}],
    )


def room_maps(world: TaskOracle, results: dict) -> Chart | None:
    """Return maps of the last ten episodes over the grid of tasks of `world`.

    Returns None if its tasks are not cells of a grid, or if no score of a map is known.
    """
    if world.task_grid is None:
        return None
    by_split = {split: entry["per_task"] for split, entry in results["splits"].items()}
    tasks = [task for own in by_split.values() for task in own]

    def values(name: str) -> np.ndarray:
        return np.array([task[name] for task in tasks], float)

    best = values("optimal_return")
    share = ratio(values("return_last10"), np.where(best > 0, best, np.nan))
    shown = {"success": values("success_last10"), "return / optimal return": share}
    if np.isfinite(values("path_ratio_last10")).any():
        shown["shortest path / path"] = ratio(np.ones(len(tasks)), values("path_ratio_last10"))
        del shown["return / optimal return"]
    shown = {name: own for name, own in shown.items() if np.isfinite(own).any()}
    if not shown:
        return None
    return Chart(
        "map",
        [task["task"] for task in tasks],
        list(shown.values()),
        list(shown),
        title="Last ten episodes, a cell for each " + world.task_noun,
        column_name=world.task_noun,
        domain=(0, 1),
        digits=2,
        framed=[task["task"] for task in by_split["held_out"]],
        framed_name=f"held-out {world.task_noun}",
    )


def returns_histogram(returns: np.ndarray) -> Chart:
    """Return the shares of episodes by their `returns` [M]."""
    is_constant = returns.min() == returns.max()
    edges = returns[0] + np.array([-0.5, 0.5]) if is_constant else HISTOGRAM_BINS
    counts, edges = np.histogram(returns, edges)
    return Chart(
        "columns",
        ((edges[1:] + edges[:-1]) / 2).tolist(),
        [counts / len(returns)],
        column_name="return of an episode",
        value_name="share of episodes",
        styles=[{"color": 1}],
    )


def _padded(line: Sequence[float | None] | None, length: int) -> list[float | None]:
    """Return `line` as a list with None behind its end."""
    values = [] if line is None else [None if x is None else float(x) for x in line]
    return values + [None] * (length - len(values))
