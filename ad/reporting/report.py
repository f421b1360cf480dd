"""The report of a run: `table.md`, `curve.png`, and all in one file, `report.html`.

Reads the results of the evaluation and the videos that are there; the template of the page is
`report.html.j2`.
"""

import base64
from pathlib import Path

import jinja2
import numpy as np

from ad.config.schema import Experiment, dump
from ad.data.episodes import ratio
from ad.evaluation import metrics
from ad.evaluation.references import Reference
from ad.evaluation.results import Evaluation
from ad.evaluation.summary import read_summary
from ad.evaluation.transfer import world_results
from ad.reporting import plots, tables
from ad.runtime.files import atomic_write, write_text
from ad.runtime.run import Run

SHOWN_VIDEOS = {"held_out": 3, "source": 1}  # at most, in report.html; videos/<run>/ has more
VIDEO_TITLES = {"held_out": "Held-out goal", "source": "Source agent, train goal"}


def report(run: Run) -> Path:
    """Write the files of the report into the run's folder; the path of report.html.

    Raises ConfigError if the run is not evaluated yet, CorruptError for files that cannot be read.
    """
    summary = read_summary(run)
    results = summary.results
    curve = curve_picture(summary.evaluations, summary.references)
    room = room_picture(run.world.observation_factors, results)
    page = render(results, curve, room, videos(run.videos), run.config, world_results(run))
    write_text(run.folder / "table.md", tables.run_table(results).compact().markdown())
    write_text(run.folder / "report.html", page)
    with atomic_write(run.folder / "curve.png") as temporary:
        temporary.write_bytes(curve)
    return run.folder / "report.html"


def curve_picture(
    evaluations: dict[str, Evaluation], lines: dict[str, dict[str, Reference]]
) -> bytes:
    """The learning curve and the references on the held-out goals (the source: train goals)."""
    curves = []
    for split, evaluation in evaluations.items():
        returns = evaluation.returns.mean(1)  # [N, E]
        band = metrics.bootstrap(returns) if split == "held_out" else None
        label = f"{tables.SPLIT_TITLES[split]} ({len(returns)})"
        curves.append(plots.Curve(split, label, returns.mean(0), band))
    for name in set(lines) & set(plots.STYLES):
        line = lines[name].get("held_out") or lines[name]["train"]
        curves.append(plots.Curve(name, tables.REFERENCE_TITLES[name], line.returns.mean(0)))
    return plots.learning_curve(curves, "return, mean over tasks")


def room_picture(shape: tuple[int, ...], results: dict) -> bytes | None:
    """Maps of the last ten episodes by goal; None for a world without rows and columns."""
    goals = [(split, goal) for split, s in results["splits"].items() for goal in s["per_task"]]
    cells = np.array([[int(part) for part in goal["task"].split("-")] for _, goal in goals])
    if len(shape) != 2 or cells.shape[1] != 2:
        return None

    def values(name: str) -> np.ndarray:
        return np.array([goal[name] for _, goal in goals], float)

    maps = [plots.RoomMap("success, last ten episodes", values("success_last10"), 0, 1)]
    paths, best = values("path_ratio_last10"), values("optimal_return")
    if np.isfinite(paths).any():
        high = np.clip(np.nanmax(paths), 2, 4)
        title = "path length / shortest, last ten episodes"
        maps.append(plots.RoomMap(title, paths, 1, high, high_is_good=False, digits=1))
    elif (best > 0).any():
        share = ratio(values("return_last10"), best)
        maps.append(plots.RoomMap("return / optimal return, last ten episodes", share, 0, 1))
    return plots.room_maps(maps, shape, cells, np.array([s == "held_out" for s, _ in goals]))


def videos(folder: Path) -> list[tuple[str, Path]]:
    """(title, path) of the videos that the report shows: held-out goals, then a source agent."""
    shown = []
    for kind, most in SHOWN_VIDEOS.items():
        for path in sorted(folder.glob(f"{kind}_*.mp4"))[:most]:
            task = path.stem.removeprefix(f"{kind}_")
            shown.append((f"{VIDEO_TITLES[kind]} {tables.task_text(task)}", path))
    return shown


def render(
    results: dict,
    curve: bytes,
    room: bytes | None,
    shown: list[tuple[str, Path]],
    config: Experiment,
    worlds: dict[str, dict] | None = None,
) -> str:
    """The page report.html: self-contained, pictures and videos in it, nothing fetched."""
    here = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(
        loader=here, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    splits = results["splits"]
    return page.get_template("report.html.j2").render(
        results=results,
        headline=headline(results),
        tiles=tiles(results),
        scores=tables.run_table(results).compact(),
        context=tables.context_table(results),
        goals={
            tables.SPLIT_TITLES[name]: tables.tasks_table(s).compact() for name, s in splits.items()
        },
        worlds=worlds and tables.runs_table([{name: r} for name, r in worlds.items()]).compact(),
        method=splits["held_out"]["ci95_method"],
        curve=_base64(curve),
        room=room and _base64(room),
        videos=[(title, _base64(path.read_bytes())) for title, path in shown],
        config=dump(config),
    )


def headline(results: dict) -> str:
    """The result in two sentences."""
    summary, lines = results["splits"]["held_out"], results["references"]
    count, best = min(metrics.LAST, summary["num_episodes"]), summary["optimal_return"]
    first = (
        f"On goals that training never saw ({summary['num_tasks']}), the frozen model's return "
        f"goes from {summary['return_first10']:.2f} in its first {count} episodes to "
        f"{summary['return_last10']:.2f} in its last {count}, of {summary['num_episodes']}"
        + (f"; the best possible is {best:.2f}. " if best is not None else ". ")
    )
    if "undirected" not in lines:
        return first
    random, undirected = (lines[name]["held_out"] for name in ("random", "undirected"))
    nauc, ceiling = (tables.number(entry["nauc"], ".3f") for entry in (summary, undirected))
    return first + (
        f"Random actions reach {random['return_last10']:.2f}. Its NAUC is {nauc}; walking at "
        f"random until the goal is hit and being perfect ever after gives {ceiling}."
    )


def tiles(results: dict) -> list[tuple[str, str, str]]:
    """(number, what it is, a remark) for the head of the page; held-out goals, known ones only."""
    summary, lines = results["splits"]["held_out"], results["references"]
    names = ["nauc", "success_last10", "return_last10", "path_ratio_last10"]
    if summary["return_last10"] == summary["success_last10"]:
        names.remove("return_last10")
    shown = []
    for name in names:
        if summary[name] is not None:
            heading, style = tables.COLUMNS[name]
            low, high = (f"{bound:{style}}" for bound in summary["ci95"][name])
            shown.append((f"{summary[name]:{style}}", heading, f"95 %: {low} to {high}"))
    solved = f"{summary['tasks_solved']} of {summary['num_tasks']}"
    shown.append((solved, "goals solved", f"success over the last ten ≥ {metrics.SOLVED}"))
    if "undirected" in lines and (ceiling := lines["undirected"]["held_out"]["nauc"]):
        share = f"{100 * summary['nauc'] / ceiling:.0f} %"
        shown.append((share, "of the undirected ceiling", f"whose NAUC is {ceiling:.3f}"))
    return shown


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
