"""Tables of results as Markdown: one run with its splits and references, and several runs.

A table is a header and rows of text. The report shows the tables of one run as HTML.
"""

from collections.abc import Iterator, Mapping, Sequence

from ad.evaluation.metrics import FOUND_BY, across_runs
from ad.evaluation.scores import UNKNOWN, number
from ad.reporting.page import Table

SPLIT_TITLES = {"held_out": "held-out tasks", "train": "train tasks"}
REFERENCE_TITLES = {
    "source": "source, first episodes",
    "source_end": "source, last episodes",
    "tabular_learner": "tabular learner from nothing",
    "random": "random",
    "random_then_optimal": "random walk until found, then shortest path",
    "explorer": "best known searcher",
    "ceiling": "ceiling: at most an episode of new cells",
    "optimal": "optimal",
}
COLUMNS = {  # score -> heading and number format
    "nauc": ("NAUC", ".3f"),
    "success_last10": ("success, last 10", ".3f"),
    "return_last10": ("return, last 10", ".2f"),
    "share_of_optimum_last10": ("share of optimum, last 10", ".3f"),
    "path_ratio_last10": ("path / shortest", ".2f"),
    "episodes_to_80pct": ("80 % at episode", ".0f"),
    "tasks_solved": ("solved", ".0f"),
}
TASK_COLUMNS = {
    "nauc": COLUMNS["nauc"],
    "success_last10": COLUMNS["success_last10"],
    "return_last10": COLUMNS["return_last10"],
    "optimal_return": ("optimal return", ".2f"),
    "length_last10": ("length, last 10", ".1f"),
    "optimal_length": ("shortest length", ".1f"),
    "path_ratio_last10": COLUMNS["path_ratio_last10"],
}
SEARCH_COLUMNS = {
    **{f"found_by_{e}": (f"found by episode {e}", ".3f") for e in FOUND_BY},
    "first_success": ("first success, episode", ".1f"),
    "success_seen": ("success, reward in context", ".3f"),
}


def calibration_table(results: dict) -> Table:
    """Make a row for each asked return of a `results.json` with a calibration."""
    by_action = results["calibration_by_action"]
    rows = [
        [f"{entries[0]['asked']:g}", *map(_achieved, entries), str(entries[0]["episodes"])]
        for entries in zip(*by_action.values(), strict=True)
    ]
    return Table(["asked return", *(f"achieved, {a}" for a in by_action), "episodes"], rows)


def _achieved(entry: dict) -> str:
    if entry["low"] is None:
        return f"{entry['achieved']:.3f}"
    return f"{entry['achieved']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"


def run_table(results: dict) -> Table:
    """Make a row for each split, with intervals, and for each reference of a `results.json`.

    Columns that repeat the success, as where the only reward is 1 for it, are left out.
    """
    scored = [*results["splits"].values(), *(summary for _, summary in _references(results))]
    repeats = {
        name
        for name in ("return_last10", "share_of_optimum_last10")
        if all(summary.get(name) == summary["success_last10"] for summary in scored)
    }
    columns = {name: column for name, column in COLUMNS.items() if name not in repeats}
    rows = [
        [f"model, {SPLIT_TITLES[split]}", *(_cell(name, summary) for name in columns)]
        for split, summary in results["splits"].items()
    ]
    rows += [[title, *_cells(summary, columns)] for title, summary in _references(results)]
    return Table(["", *(heading for heading, _ in columns.values())], rows)


def _references(results: dict) -> Iterator[tuple[str, dict]]:
    """Yield title and scores of each reference, on held-out tasks if it has them."""
    for name, by_split in results["references"].items():
        split = "held_out" if "held_out" in by_split else "train"
        note = "" if split == "held_out" else f" ({SPLIT_TITLES[split]})"
        yield reference_title(name) + note, by_split[split]


def reference_title(name: str) -> str:
    """Return the title of a reference: its own name if only its world knows it."""
    return REFERENCE_TITLES.get(name, name)


def search_table(results: dict) -> Table | None:
    """Make a row for each split and each reference: how soon a success is found, and used then.

    Returns None if the world cannot tell which episodes are successes.
    """
    if results["splits"]["held_out"]["success_last10"] is None:
        return None
    rows = [
        [
            f"model, {SPLIT_TITLES[split]}",
            *(_cell(name, summary, SEARCH_COLUMNS) for name in SEARCH_COLUMNS),
        ]
        for split, summary in results["splits"].items()
    ]
    for title, summary in _references(results):
        if summary["first_success"] is not None:
            rows.append([title, *_cells(summary, SEARCH_COLUMNS)])
    return Table(["", *(heading for heading, _ in SEARCH_COLUMNS.values())], rows)


def runs_table(groups: Sequence[dict[str, dict | str]], split: str = "held_out") -> Table:
    """Make a row for each run (name -> `results.json`), in groups that differ in seeds only.

    For a run without results, the value is a text that says why there are none. The rows of runs
    have the intervals of their `results.json` (over tasks). A group of several runs also has a row
    with their mean and a t-interval: over runs, or over splits if there are several. The last row
    of a group is the random walk that takes shortest paths once it has found the goal.
    """
    rows = [row for group in groups for row in _group_rows(group, split)]
    return Table(["run", *(heading for heading, _ in COLUMNS.values()), "training"], rows)


def _group_rows(runs: dict[str, dict | str], split: str) -> list[list[str]]:
    missing = {name: reason for name, reason in runs.items() if isinstance(reason, str)}
    group = {name: result for name, result in runs.items() if name not in missing}
    rows = [[name, reason, *[UNKNOWN] * len(COLUMNS)] for name, reason in missing.items()]
    return _evaluated_rows(group, split) + rows if group else rows


def _evaluated_rows(group: dict[str, dict], split: str) -> list[list[str]]:
    summaries = [result["splits"][split] for result in group.values()]
    rows = [
        [name, *(_cell(column, summary) for column in COLUMNS), _seconds(result)]
        for (name, result), summary in zip(group.items(), summaries, strict=True)
    ]
    if len(group) > 1:
        splits = [result.get("split_hash") for result in group.values()]
        several = f" on {len(set(splits))} splits" if len(set(splits)) > 1 else ""
        cells = _mean_cells(summaries, splits)
        rows.append([f"**mean of {len(group)} runs{several}**", *cells, UNKNOWN])
    name = "random_then_optimal"
    walks = [result["references"].get(name, {}).get(split) for result in group.values()]
    if all(walks):
        cells = [_mean_of([walk.get(column) for walk in walks], column) for column in COLUMNS]
        rows.append([f"*{REFERENCE_TITLES[name]}*", *cells, UNKNOWN])
    return rows


def _mean_cells(summaries: list[dict], splits: list[str]) -> list[str]:
    overall = across_runs(summaries, splits)
    return [
        interval(overall[name]["mean"], bounds(overall[name]), style)
        for name, (_, style) in COLUMNS.items()
    ]


def _mean_of(values: list[float | None], name: str) -> str:
    mean = None if None in values else sum(values) / len(values)
    return number(mean, COLUMNS[name][1])


def _seconds(result: dict) -> str:
    return number(result["timing"].get("train_s"), ".0f") + " s"


def tasks_table(summary: dict, names: Mapping[str, str]) -> Table:
    """Make a row for each task of a split's entry in `results.json`, the least solved first.

    names: what a task is called, by its name in files.
    """
    tasks = sorted(summary["per_task"], key=lambda task: (_solved(task), task["nauc"] or 0))
    rows = [[names.get(task["task"], task["task"]), *_cells(task, TASK_COLUMNS)] for task in tasks]
    return Table(["task", *(heading for heading, _ in TASK_COLUMNS.values())], rows)


def _solved(task: dict) -> float:
    """Return the success of a task, or its return if the world cannot tell successes."""
    known = task["success_last10"] is not None
    return task["success_last10"] if known else task["return_last10"]


def _cells(summary: dict, columns: dict) -> list[str]:
    return [number(summary.get(name), style) for name, (_, style) in columns.items()]


def _cell(name: str, summary: dict, columns: dict = COLUMNS) -> str:
    if name == "tasks_solved":
        known = summary[name] is not None
        return f"{summary[name]} of {summary['num_tasks']}" if known else UNKNOWN
    return interval(summary[name], summary["ci95"].get(name), columns[name][1])


def interval(mean: float | None, bounds: Sequence[float] | None, style: str) -> str:
    """Format as "mean [low, high]", or without the brackets if `bounds` is None."""
    if mean is None or bounds is None:
        return number(mean, style)
    return f"{mean:{style}} [{bounds[0]:{style}}, {bounds[1]:{style}}]"


def bounds(entry: dict) -> Sequence[float] | None:
    """Return the interval of an estimate with `lo` and `hi`; None if it has none."""
    return None if entry["lo"] is None else (entry["lo"], entry["hi"])
