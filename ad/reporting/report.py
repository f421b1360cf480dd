"""Write the report of a run: `table.md`, `curve.png`, and `report.html` with everything in it.

Reads the results of the evaluation and the videos recorded so far. The template of the page is
`report.html.j2`.
"""

import base64
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

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
from ad.reporting.data_returns import data_returns, describe_returns
from ad.reporting.record import can_draw
from ad.runtime.files import atomic_write, write_text
from ad.runtime.run import Run
from envs.oracle import TaskOracle
from envs.tasks import task_name

MAX_VIDEOS = {"held_out": 3, "source": 1}  # in report.html; videos/<run>/ may have more
VIDEO_TITLES = {"held_out": "Held-out {}", "source": "Source agent, train {}"}
INSIDE = "inspect/index.html"  # the page of the analyses, in the folder of the run
SCORE_NOTES = {  # heading of a column -> what it is
    "NAUC": "NAUC: mean over all in-context episodes of return / optimal return.",
    "success, last 10": "Last 10: mean over the last ten episodes.",
    "return, last 10": "Last 10: mean over the last ten episodes.",
    "share of optimum, last 10": "Share of optimum: return / optimal return.",
    "path / shortest": "Path / shortest: mean length of the successful episodes among the last "
    "ten, divided by the shortest possible length.",
    "80 % at episode": "80 % at episode: the first episode at which the mean return of five "
    "episodes reaches 80 % of the optimal return.",
    "solved": "Solved: tasks with a success of at least 0.8 over the last ten episodes.",
}
REFERENCE_NOTES = {
    "random": "Random: uniform actions.",
    "random_then_optimal": "Random walk until found, then shortest path: walks at random until the "
    "goal is first hit, and takes a shortest path in every episode after that.",
    "explorer": "Best known searcher: visits unseen cells systematically until it reaches the "
    "goal, then takes a shortest path.",
    "ceiling": "Ceiling: a bound on the mean over all goals for an agent that does not know its "
    "goal, since an episode shows at most as many new cells as it has steps.",
    "optimal": "Optimal: knows the {noun}.",
    "tabular_learner": "Tabular learner from nothing: UCB1 on a bandit, Q-learning elsewhere. It "
    "learns each {noun} from its own episodes; a model below it does worse than an agent without "
    "any training.",
    "source": "Source: the first episodes of each actor of {source}, on train tasks.",
}


def report(run: Run) -> Path:
    """Write the files of the report into the folder of `run` and return the path of report.html.

    Raises ConfigError if the run is not evaluated, CorruptError if a file is damaged.
    """
    summary = read_summary(run)
    results, noun = summary.results, run.world.task_noun
    curve = learning_curve(summary.evaluations, summary.references)
    maps = room_maps(run.world, results)
    tasks = np.concatenate([run.split.held_out_tasks, run.split.train_tasks])
    names = dict(zip(map(task_name, tasks), run.world.names(tasks), strict=True))
    shown = videos(run.videos, noun, names) if can_draw(run) else None
    plot, worlds = calibration_plot(results), world_results(run)
    returns = data_returns(run)
    inside = INSIDE if (run.folder / INSIDE).exists() else None
    page = render(
        results, curve, maps, shown, run.config, worlds, noun, returns, plot, names, inside
    )
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
    for name, by_split in references.items():
        if name != "source_end":  # which has the last episodes only
            returns = (by_split.get("held_out") or by_split["train"]).returns
            curves.append(plots.Curve(name, tables.reference_title(name), returns.mean(0)))
    return plots.learning_curve(curves, "return, mean over tasks")


def calibration_plot(results: dict) -> bytes | None:
    """Plot the calibration of a `results.json`, as PNG bytes; None if it has none."""
    if "calibration" not in results:
        return None
    by_action = results["calibration_by_action"]
    highlighted = next(a for a, entries in by_action.items() if entries == results["calibration"])
    return plots.calibration(by_action, results["history_returns"], highlighted)


def room_maps(world: TaskOracle, results: dict) -> bytes | None:
    """Draw maps of the last ten episodes over the grid of tasks of `world`, as PNG bytes.

    Returns None if its tasks are not cells of a grid, or if no score of a map is known.
    """
    if world.task_grid is None:
        return None
    tasks = [(split, task) for split, s in results["splits"].items() for task in s["per_task"]]
    cells = np.array([[int(part) for part in task["task"].split("-")] for _, task in tasks])

    def values(name: str) -> np.ndarray:
        return np.array([task[name] for _, task in tasks], float)

    maps = [plots.RoomMap("success, last ten episodes", values("success_last10"), 0, 1)]
    if np.isnan(maps[0].values).all():
        maps = []
    paths, best = values("path_ratio_last10"), values("optimal_return")
    if np.isfinite(paths).any():
        high = np.clip(np.nanmax(paths), 2, 4)
        title = "path length / shortest, last ten episodes"
        maps.append(plots.RoomMap(title, paths, 1, high, high_is_good=False, digits=1))
    elif (best > 0).any():
        share = ratio(values("return_last10"), best)
        maps.append(plots.RoomMap("return / optimal return, last ten episodes", share, 0, 1))
    if not maps:
        return None
    held_out = np.array([split == "held_out" for split, _ in tasks])
    return plots.room_maps(maps, world.task_grid, cells, held_out, world.task_noun)


def videos(folder: Path, noun: str, names: Mapping[str, str]) -> list[tuple[str, Path]]:
    """Return (title, path) of the videos to show: of held-out tasks, then of a source agent.

    noun: what a task is called; names: what each is called, by its name in files.
    """
    shown = []
    for kind, count in MAX_VIDEOS.items():
        for path in sorted(folder.glob(f"{kind}_*.mp4"))[:count]:
            task = path.stem.removeprefix(f"{kind}_")
            title = f"{VIDEO_TITLES[kind].format(noun)} {names.get(task, task)}"
            shown.append((title, path))
    return shown


def render(
    results: dict,
    curve: bytes,
    maps: bytes | None,
    shown: list[tuple[str, Path]] | None,
    config: Experiment,
    worlds: dict[str, dict] | None = None,
    noun: str = "task",
    returns: np.ndarray | None = None,
    calibration: bytes | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
    inside: str | None = None,
) -> str:
    """Return the page report.html, with its images and videos embedded.

    curve, maps: PNG images, no maps if None; shown: (title, path) of videos, None if the world
    cannot draw; worlds: `results.json` by title; noun: what a task is called; returns: those of the
    episodes that the run is trained on, [M]; calibration: a PNG image, None without one; names:
    what each task is called, by its name in files; inside: the path of the page that looks inside
    the model, from the report's folder.
    """
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    splits, scores = results["splits"], tables.run_table(results).compact()
    source = config.source.algorithm
    references = [note for name, note in REFERENCE_NOTES.items() if name in results["references"]]
    return templates.get_template("report.html.j2").render(
        results=results,
        headline=headline(results),
        tiles=tiles(results),
        cannot_tell=cannot_tell(results, maps, shown, config.env.id),
        noun=noun,
        scores=scores,
        score_notes=list(
            dict.fromkeys(note for name, note in SCORE_NOTES.items() if name in scores.header)
        ),
        reference_notes=[note.format(noun=noun, source=_name(source)) for note in references],
        search=tables.search_table(results),
        calibration=calibration and _base64(calibration),
        calibration_table=calibration and tables.calibration_table(results),
        last_episode=splits["held_out"]["num_episodes"],
        tasks={
            tables.SPLIT_TITLES[name]: tables.tasks_table(s, names).compact()
            for name, s in splits.items()
        },
        worlds=worlds and tables.runs_table([{name: r} for name, r in worlds.items()]).compact(),
        method=splits["held_out"]["ci95_method"],
        curve=_base64(curve),
        maps=maps and _base64(maps),
        histogram=None if returns is None else _base64(plots.returns_histogram(returns)),
        about_returns=None if returns is None else describe_returns(returns),
        videos=shown and [(title, _base64(path.read_bytes())) for title, path in shown],
        config=dump(config),
        learned_by=_name(config.method.name),
        inside=inside,
    )


def cannot_tell(results: dict, maps: bytes | None, shown: list | None, env_id: str) -> str:
    """Return a sentence with what the world cannot tell, which the report leaves out, or ""."""
    held_out = results["splits"]["held_out"]
    known = {
        "optimal returns": held_out["optimal_return"] is not None,
        "successes": held_out["success_last10"] is not None,
        "maps": maps is not None,
        "videos": shown is not None,
    }
    unknown = ", ".join(name for name, is_known in known.items() if not is_known)
    return f"{env_id} cannot tell: {unknown}." if unknown else ""


def headline(results: dict) -> str:
    """Return the result in one to three sentences."""
    summary, references = results["splits"]["held_out"], results["references"]
    count, best = min(metrics.LAST, summary["num_episodes"]), summary["optimal_return"]
    tasks = "task" if summary["num_tasks"] == 1 else "tasks"
    text = (
        f"On {summary['num_tasks']} held-out {tasks}, the return of the frozen model goes from "
        f"{summary['return_first10']:.2f} in the first {count} episodes to "
        f"{summary['return_last10']:.2f} in the last {count} of {summary['num_episodes']}"
        + (f"; the optimal return is {best:.2f}." if best is not None else ".")
    )
    if random := references.get("random"):
        reached = tables.number(random["held_out"]["return_last10"], ".2f")
        text += f" Random actions reach {reached}."
    if walk := references.get("random_then_optimal"):
        scores = (summary["nauc"], walk["held_out"]["nauc"])
        nauc, of_walk = (tables.number(score, ".3f") for score in scores)
        text += (
            f" The model's NAUC is {nauc}; walking at random until the goal is hit and taking a "
            f"shortest path after that gives {of_walk}."
        )
    return text


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
    if summary["tasks_solved"] is not None:
        solved = f"{summary['tasks_solved']} of {summary['num_tasks']}"
        note = f"success in the last ten episodes ≥ {metrics.SOLVED}"
        shown.append((solved, "tasks solved", note))
    if "ceiling" in references and (ceiling := references["ceiling"]["held_out"]["nauc"]):
        share = f"{100 * summary['nauc'] / ceiling:.0f} %"
        shown.append((share, "of the ceiling", f"whose NAUC is {ceiling:.3f}"))
    return shown


def _name(component: str) -> str:
    """Return the name of a component as words, without the file of a user's class."""
    return component.rpartition(":")[2].replace("_", " ")


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
