"""Tables of results: one run with its splits and references, its tasks, and several runs."""

from collections.abc import Iterator, Mapping, Sequence

from ad.evaluation.scores import (
    UNKNOWN,
    Estimate,
    Score,
    columns,
    estimate,
    known_of,
    number,
)
from ad.reporting.page import Table

SPLIT_TITLES = {"held_out": "held-out tasks", "train": "train tasks"}
REFERENCE_TITLES = {
    "source": "source, first episodes",
    "source_end": "source, last episodes",
    "tabular_learner": "tabular learner from nothing",
    "restarted_learner": "tabular learner restarted at each change",
    "random": "random actions",
    "random_then_optimal": "random walk until found, then shortest path",
    "explorer": "best known policy",
    "ceiling": "ceiling: at most an episode of new cells",
    "optimal": "optimal",
}


def calibration_table(results: dict) -> Table:
    """Make a row for each asked return of a `results.json` with a calibration."""
    by_action = results["calibration_by_action"]
    rows = [
        [
            f"{entries[0]['asked']:g}",
            *(Estimate(e["achieved"], e["low"], e["high"]).text(".3f") for e in entries),
            str(entries[0]["episodes"]),
        ]
        for entries in zip(*by_action.values(), strict=True)
    ]
    return Table(["asked return", *(f"achieved, {a}" for a in by_action), "episodes"], rows)


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
    shown = [score for score in columns("run", "change") if score.name not in repeats]
    references = [[title, *_cells(summary, shown)] for title, summary in _references(results)]
    return Table(["", *_headings(shown)], [*_model_rows(results, shown), *references])


def search_table(results: dict) -> Table | None:
    """Make a row for each split and each reference: how soon a success comes, and is used then.

    Returns None where successes are unknown.
    """
    if results["splits"]["held_out"]["success_last10"] is None:
        return None
    shown = columns("search")
    references = [
        [title, *_cells(summary, shown)]
        for title, summary in _references(results)
        if summary["first_success"] is not None
    ]
    return Table(["", *_headings(shown)], [*_model_rows(results, shown), *references])


def tasks_table(summary: dict, names: Mapping[str, str]) -> Table:
    """Make a row for each task of a split's entry in `results.json`, the least solved first.

    names: what a task is called, by its name in files.
    """
    shown = columns("task")
    tasks = sorted(summary["per_task"], key=lambda task: (_solved(task), task["nauc"] or 0))
    rows = [[names.get(task["task"], task["task"]), *_cells(task, shown)] for task in tasks]
    return Table(["task", *_headings(shown)], rows)


def runs_table(groups: Sequence[dict[str, dict | str]]) -> Table:
    """Make a row for each run (name -> `results.json`), in groups that differ in seeds only.

    For a run without results, the value is a text that says why there are none. The rows of runs
    have the intervals of their `results.json` (over tasks). A group of several runs also has a row
    with their mean and a t-interval: over runs, or over splits if there are several. The last row
    of a group is the random walk that takes shortest paths once it has reached the goal.
    """
    rows = [row for group in groups for row in _group_rows(group)]
    return Table(["run", *_headings(columns("run", "change")), "training, s"], rows)


def has_model(results: dict) -> bool:
    """Return whether a `results.json` is of a trained model; else a source learned its tasks."""
    return results["checkpoint"] is not None


def agent_title(results: dict) -> str:
    """Return what the rows of a `results.json` call its agent."""
    return "model" if has_model(results) else "source"


def reference_of(name: str, by_split: dict) -> tuple[str, dict]:
    """Return the title and the scores of a reference, on held-out tasks if it has them.

    The title is its own name if only its world has it.
    """
    split = "held_out" if "held_out" in by_split else "train"
    note = "" if split == "held_out" else f" ({SPLIT_TITLES[split]})"
    return REFERENCE_TITLES.get(name, name) + note, by_split[split]


def _model_rows(results: dict, shown: Sequence[Score]) -> list[list[str]]:
    """Return a row with intervals for each split of a run."""
    return [
        [
            f"{agent_title(results)}, {SPLIT_TITLES[split]}",
            *(_cell(score, summary) for score in shown),
        ]
        for split, summary in results["splits"].items()
    ]


def _references(results: dict) -> Iterator[tuple[str, dict]]:
    """Yield title and scores of each reference, on held-out tasks if it has them."""
    for name, by_split in results["references"].items():
        yield reference_of(name, by_split)


def _group_rows(runs: dict[str, dict | str]) -> list[list[str]]:
    shown = columns("run", "change")
    missing = {name: reason for name, reason in runs.items() if isinstance(reason, str)}
    group = {name: result for name, result in runs.items() if isinstance(result, dict)}
    rows = [
        [
            name,
            *(_cell(score, result["splits"]["held_out"]) for score in shown),
            number(result["timing"].get("train_s"), ".0f"),
        ]
        for name, result in group.items()
    ]
    # A run under two names is one run.
    group = {result.get("config_hash", name): result for name, result in group.items()}
    if len(group) > 1:
        splits = [result.get("split_hash") for result in group.values()]
        several = f" on {len(set(splits))} splits" if len(set(splits)) > 1 else ""
        summaries = [result["splits"]["held_out"] for result in group.values()]
        values = [[summary.get(score.name) for summary in summaries] for score in shown]
        means = [
            estimate(own, splits, score.low, score.high).text(score.format) + known_of(own)
            for own, score in zip(values, shown, strict=True)
        ]
        rows.append([f"**mean of {len(group)} runs{several}**", *means, UNKNOWN])
    name = "random_then_optimal"
    walks = [result["references"].get(name, {}).get("held_out") for result in group.values()]
    if walks and all(walks):
        means = [estimate([walk.get(score.name) for walk in walks]).mean for score in shown]
        cells = [number(mean, score.format) for mean, score in zip(means, shown, strict=True)]
        rows.append([f"*{REFERENCE_TITLES[name]}*", *cells, UNKNOWN])
    return rows + [[name, reason, *[UNKNOWN] * len(shown)] for name, reason in missing.items()]


def _solved(task: dict) -> float:
    """Return the success of a task, or its return where successes are unknown."""
    known = task["success_last10"] is not None
    return task["success_last10"] if known else task["return_last10"]


def _headings(shown: Sequence[Score]) -> list[str]:
    return [score.heading for score in shown]


def _cells(summary: dict, shown: Sequence[Score]) -> list[str]:
    return [number(summary.get(score.name), score.format) for score in shown]


def _cell(score: Score, summary: dict) -> str:
    """Return the score of one run with its interval over tasks."""
    value = summary.get(score.name)
    if score.name == "tasks_solved" and value is not None:
        return f"{value} of {summary['num_tasks']}"
    return Estimate(value, *(summary["ci95"].get(score.name) or ())).text(score.format)
