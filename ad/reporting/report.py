"""Write the report of a run: `table.md`, `curve.png`, and `report.html` with everything in it.

Reads the results of the evaluation and the videos recorded so far. The template of the page is
`report.html.j2`.
"""

import base64
from pathlib import Path

import jinja2
import numpy as np

from ad.config.schema import Experiment, dump
from ad.data.episodes import ratio
from ad.evaluation import metrics
from ad.evaluation.references import References
from ad.evaluation.results import Evaluation
from ad.evaluation.summary import read_summary
from ad.evaluation.transfer import world_results
from ad.reporting import plots, tables
from ad.runtime.files import atomic_write, write_text
from ad.runtime.run import Run

MAX_VIDEOS = {"held_out": 3, "source": 1}  # in report.html; videos/<run>/ may have more
VIDEO_TITLES = {"held_out": "Held-out goal", "source": "Source agent, train goal"}


def report(run: Run) -> Path:
    """Write the files of the report into the folder of `run` and return the path of report.html.

    Raises ConfigError if the run is not evaluated, CorruptError if a file is damaged.
    """
    summary = read_summary(run)
    results = summary.results
    curve = learning_curve(summary.evaluations, summary.references)
    maps = room_maps(run.world.observation_factors, results)
    page = render(results, curve, maps, videos(run.videos), run.config, world_results(run))
    write_text(run.folder / "table.md", tables.run_table(results).compact().markdown())
    write_text(run.folder / "report.html", page)
    with atomic_write(run.folder / "curve.png") as temporary:
        temporary.write_bytes(curve)
    return run.folder / "report.html"


def learning_curve(evaluations: dict[str, Evaluation], references: References) -> bytes:
    """Plot the mean returns of both splits and of the references over episodes, as PNG bytes.

    References are those of the held-out tasks; those of the source exist for train tasks only.
    """
    curves = []
    for split, evaluation in evaluations.items():
        returns = evaluation.returns.mean(1)  # [K, E]
        band = metrics.bootstrap(returns) if split == "held_out" else None
        label = f"model, {tables.SPLIT_TITLES[split]} ({len(returns)})"
        curves.append(plots.Curve(split, label, returns.mean(0), band))
    for name in set(references) & set(plots.STYLES):
        reference = references[name].get("held_out") or references[name]["train"]
        curves.append(plots.Curve(name, tables.REFERENCE_TITLES[name], reference.returns.mean(0)))
    return plots.learning_curve(curves, "return, mean over tasks")


def room_maps(shape: tuple[int, ...], results: dict) -> bytes | None:
    """Draw maps of the last ten episodes over the goals of a room of `shape`, as PNG bytes.

    Returns None if `shape` does not have two dimensions or tasks are not cells.
    """
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
    """Return (title, path) of the videos to show: of held-out goals, then of a source agent."""
    shown = []
    for kind, count in MAX_VIDEOS.items():
        for path in sorted(folder.glob(f"{kind}_*.mp4"))[:count]:
            task = path.stem.removeprefix(f"{kind}_")
            shown.append((f"{VIDEO_TITLES[kind]} {tables.task_text(task)}", path))
    return shown


def render(
    results: dict,
    curve: bytes,
    maps: bytes | None,
    shown: list[tuple[str, Path]],
    config: Experiment,
    worlds: dict[str, dict] | None = None,
) -> str:
    """Return the page report.html, with its images and videos embedded.

    curve, maps: PNG images; shown: (title, path) of videos; worlds: `results.json` by title.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    splits = results["splits"]
    return templates.get_template("report.html.j2").render(
        results=results,
        headline=headline(results),
        tiles=tiles(results),
        scores=tables.run_table(results).compact(),
        context=tables.context_table(results),
        tasks={
            tables.SPLIT_TITLES[name]: tables.tasks_table(s).compact() for name, s in splits.items()
        },
        worlds=worlds and tables.runs_table([{name: r} for name, r in worlds.items()]).compact(),
        method=splits["held_out"]["ci95_method"],
        curve=_base64(curve),
        maps=maps and _base64(maps),
        videos=[(title, _base64(path.read_bytes())) for title, path in shown],
        config=dump(config),
    )


def headline(results: dict) -> str:
    """Return the result in two or three sentences."""
    summary, references = results["splits"]["held_out"], results["references"]
    count, best = min(metrics.LAST, summary["num_episodes"]), summary["optimal_return"]
    first = (
        f"On {summary['num_tasks']} held-out tasks, the return of the frozen model goes from "
        f"{summary['return_first10']:.2f} in the first {count} episodes to "
        f"{summary['return_last10']:.2f} in the last {count} of {summary['num_episodes']}"
        + (f"; the optimal return is {best:.2f}. " if best is not None else ". ")
    )
    if "undirected" not in references:
        return first
    random, undirected = (references[name]["held_out"] for name in ("random", "undirected"))
    nauc, ceiling = (tables.number(entry["nauc"], ".3f") for entry in (summary, undirected))
    return first + (
        f"Random actions reach {random['return_last10']:.2f}. The model's NAUC is {nauc}; walking "
        f"at random until the goal is hit and being perfect ever after gives {ceiling}."
    )


def tiles(results: dict) -> list[tuple[str, str, str]]:
    """Return (number, name, note) of the scores on held-out tasks that are known."""
    summary, references = results["splits"]["held_out"], results["references"]
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
    shown.append((solved, "tasks solved", f"success in the last ten episodes ≥ {metrics.SOLVED}"))
    if "undirected" in references and (ceiling := references["undirected"]["held_out"]["nauc"]):
        share = f"{100 * summary['nauc'] / ceiling:.0f} %"
        shown.append((share, "of the undirected ceiling", f"whose NAUC is {ceiling:.3f}"))
    return shown


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
