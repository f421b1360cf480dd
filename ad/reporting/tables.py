"""Tables of results: of one run (its splits and the references) and of several runs, as Markdown.

A table is a header and rows of text; the report draws the same ones as HTML.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ad.evaluation.metrics import across_runs

UNKNOWN = "–"
SPLITS = {"held_out": "held-out goals", "train": "train goals"}
REFERENCES = {
    "source": "source, its first episodes",
    "source_end": "source, its last episodes",
    "random": "random",
    "undirected": "undirected ceiling",
    "explorer": "explorer",
    "optimal": "optimal",
}
COLUMNS = {  # score -> heading and number format
    "nauc": ("NAUC", ".3f"),
    "success_last10": ("success, last 10", ".3f"),
    "return_last10": ("return, last 10", ".2f"),
    "path_ratio_last10": ("path / shortest", ".2f"),
    "episodes_to_80pct": ("80 % at episode", ".0f"),
    "tasks_solved": ("solved", ".0f"),
}
GOAL_COLUMNS = {
    "nauc": COLUMNS["nauc"],
    "success_last10": COLUMNS["success_last10"],
    "return_last10": COLUMNS["return_last10"],
    "optimal_return": ("best return", ".2f"),
    "length_last10": ("length, last 10", ".1f"),
    "optimal_length": ("shortest", ".1f"),
    "path_ratio_last10": COLUMNS["path_ratio_last10"],
}
CONTEXT_COLUMNS = {
    "success_seen": ("success, a reward in the context", ".3f"),
    "success_unseen": ("success, none in it", ".3f"),
    "success_unseen_last10": ("the same, last 10", ".3f"),
    "unseen": ("episodes without one", ".3f"),
}


@dataclass(frozen=True)
class Table:
    """A header and rows of text, all of the same width."""

    header: list[str]
    rows: list[list[str]]

    def compact(self) -> "Table":
        """The table without the columns that say nothing."""
        told = [j for j in range(len(self.header)) if any(row[j] != UNKNOWN for row in self.rows)]
        return Table([self.header[j] for j in told], [[row[j] for j in told] for row in self.rows])

    def markdown(self) -> str:
        """The table as Markdown, numbers to the right, with a line break at its end."""
        rule = ["---", *["---:"] * (len(self.header) - 1)]
        return "".join(f"| {' | '.join(row)} |\n" for row in (self.header, rule, *self.rows))


def run_table(results: dict) -> Table:
    """One run (its `results.json`): a row for each split, with intervals, and each reference."""
    rows = [
        [SPLITS[split], *(_cell(name, summary) for name in COLUMNS)]
        for split, summary in results["splits"].items()
    ]
    for name, by_split in results["references"].items():
        split = "held_out" if "held_out" in by_split else "train"
        where = "" if split == "held_out" else f" ({SPLITS[split]})"
        rows.append([REFERENCES[name] + where, *_cells(by_split[split], COLUMNS)])
    return Table(["", *(heading for heading, _ in COLUMNS.values())], rows)


def context_table(results: dict) -> Table:
    """Success with and without a reward in the context.

    Random actions, which know no context, tell how well one explores who has seen none.
    """
    rows = [
        [SPLITS[split], *(_cell(name, summary, CONTEXT_COLUMNS) for name in CONTEXT_COLUMNS)]
        for split, summary in results["splits"].items()
    ]
    if random := results["references"].get("random"):
        hits = number(random["held_out"]["success_last10"], ".3f")
        rows.append([REFERENCES["random"], UNKNOWN, hits, hits, UNKNOWN])
    return Table(["", *(heading for heading, _ in CONTEXT_COLUMNS.values())], rows)


def runs_table(groups: Sequence[dict[str, dict | str]], split: str = "held_out") -> Table:
    """Runs (name -> `results.json`) in groups that differ in seeds only: a row each.

    A run without results has in their place a text that says why. A lone run has the intervals of
    its `results.json` (over tasks); several have their mean with a t-interval over runs. The last
    row of a group is the ceiling of undirected exploration.
    """
    rows = [row for group in groups for row in _group_rows(group, split)]
    return Table(["run", *(heading for heading, _ in COLUMNS.values()), "training"], rows)


def _group_rows(runs: dict[str, dict | str], split: str) -> list[list[str]]:
    missing = {name: why for name, why in runs.items() if isinstance(why, str)}
    group = {name: result for name, result in runs.items() if name not in missing}
    marks = [[name, why, *[UNKNOWN] * len(COLUMNS)] for name, why in missing.items()]
    return _known_rows(group, split) + marks if group else marks


def _known_rows(group: dict[str, dict], split: str) -> list[list[str]]:
    summaries = [result["splits"][split] for result in group.values()]
    rows = [
        [name, *(_cell(column, summary) for column in COLUMNS), _seconds(result)]
        for (name, result), summary in zip(group.items(), summaries, strict=True)
    ]
    if len(group) > 1:
        rows.append([f"**mean of {len(group)} runs**", *_mean_cells(summaries), UNKNOWN])
    ceilings = [result["references"].get("undirected", {}).get(split) for result in group.values()]
    if all(ceilings):
        cells = [_mean_of([ceiling.get(name) for ceiling in ceilings], name) for name in COLUMNS]
        rows.append([f"*{REFERENCES['undirected']}*", *cells, UNKNOWN])
    return rows


def _mean_cells(summaries: list[dict]) -> list[str]:
    overall = across_runs(summaries)
    return [
        interval(overall[name]["mean"], _bounds(overall[name]), style)
        for name, (_, style) in COLUMNS.items()
    ]


def _mean_of(values: list[float | None], name: str) -> str:
    known = None if None in values else sum(values) / len(values)
    return number(known, COLUMNS[name][1])


def _seconds(result: dict) -> str:
    return number(result["timing"].get("train_s"), ".0f") + " s"


def tasks_table(summary: dict) -> Table:
    """A row for each goal of a split's entry in `results.json`, the hardest first."""
    goals = sorted(
        summary["per_task"], key=lambda goal: (goal["success_last10"], goal["nauc"] or 0)
    )
    rows = [[task_text(goal["task"]), *_cells(goal, GOAL_COLUMNS)] for goal in goals]
    return Table(["goal", *(heading for heading, _ in GOAL_COLUMNS.values())], rows)


def task_text(task: str) -> str:
    """The name "3-7" as "(3, 7)"."""
    return f"({task.replace('-', ', ')})"


def number(value: float | None, style: str) -> str:
    """`value` in a number format; a dash where it is None."""
    return UNKNOWN if value is None else f"{value:{style}}"


def _cells(summary: dict, columns: dict) -> list[str]:
    return [number(summary.get(name), style) for name, (_, style) in columns.items()]


def _cell(name: str, summary: dict, columns: dict = COLUMNS) -> str:
    if name == "tasks_solved":
        return f"{summary[name]} of {summary['num_tasks']}"
    return interval(summary[name], summary["ci95"].get(name), columns[name][1])


def interval(mean: float | None, bounds: Sequence[float] | None, style: str) -> str:
    """`mean [low, high]` in a number format; without the brackets where there are no bounds."""
    if mean is None or bounds is None:
        return number(mean, style)
    return f"{mean:{style}} [{bounds[0]:{style}}, {bounds[1]:{style}}]"


def _bounds(entry: dict) -> Sequence[float] | None:
    return None if entry["lo"] is None else (entry["lo"], entry["hi"])
