"""Write the report of a run: `table.md`, `curve.png`, and `report.html` with everything in it.

Reads the results of the evaluation, the histories and the videos recorded so far.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from ad.config.schema import dump
from ad.evaluation import metrics
from ad.evaluation.results import read_results
from ad.evaluation.scores import SCORES, Score, columns
from ad.evaluation.source_returns import data_returns, source_warning
from ad.evaluation.summary import read_summary
from ad.evaluation.transfer import world_results
from ad.methods import build_method
from ad.reporting import charts, plots, tables
from ad.reporting.demo import PAGE as DEMO
from ad.reporting.headline import headline
from ad.reporting.page import Block, Chart, Code, Details, Page, Section, Table, Text, Tiles, Video
from ad.reporting.record import can_draw
from ad.runtime.files import atomic_write, write_text
from ad.runtime.metrics_log import ASKED, series
from ad.runtime.run import Run
from envs.tasks import task_name

MAX_VIDEOS = {"held_out": 3, "source": 1}  # in report.html; videos/<run>/ may have more
VIDEO_TITLES = {"held_out": "Held-out {}", "source": "Source agent, train {}"}
INSIDE = "inspect/index.html"  # the page of the analyses, in the folder of the run
REFERENCE_NOTES = {
    "random": "Random: uniform actions.",
    "random_then_optimal": "Random walk until found, then shortest path: walks at random until the "
    "goal is first hit, and takes a shortest path in every episode after that.",
    "explorer": "Best known policy: visits unseen cells systematically until it reaches the "
    "goal, then takes a shortest path.",
    "ceiling": "Ceiling: a bound on the mean over all goals for an agent that does not know its "
    "goal, since an episode shows at most as many new cells as it has steps.",
    "optimal": "Optimal: knows the {noun}.",
    "tabular_learner": "Tabular learner from nothing: UCB1 on a bandit, Q-learning elsewhere, with "
    "default settings. It learns each {noun} from its own episodes; a model below it does worse "
    "than an agent without any training.",
    "restarted_learner": "Restarted: the tabular learner, from nothing at each change.",
    "source": "Source: the first episodes of each actor of {source}, on train tasks.",
}


def report(run: Run) -> Path:
    """Write the files of the report into the folder of `run` and return the path of report.html.

    Raises ConfigError if the run is not evaluated, CorruptError if a file is damaged.
    """
    results, evaluations = read_summary(run), read_results(run.folder / "results.csv")
    curve = charts.learning_curve(evaluations, results)
    page = run_page(run, results, curve)
    write_text(run.folder / "table.md", tables.run_table(results).compact().markdown())
    write_text(run.folder / "report.html", page.html())
    with atomic_write(run.folder / "curve.png") as temporary:
        temporary.write_bytes(plots.png(curve))
    return run.folder / "report.html"


FROZEN = "The weights are frozen: from episode to episode, only the model's context changes. "


def run_page(run: Run, results: dict, curve: Chart) -> Page:
    """Return the page of a run from its `results.json` and its learning curve."""
    noun, method = run.world.task_noun, results["splits"]["held_out"]["ci95_method"]
    has_model = tables.has_model(results)
    maps = None if run.config.env.change else charts.room_maps(run.world, results)
    shown = videos(run) if can_draw(run) else None
    demo = Text(f"[Watch the model learn]({DEMO}): put the goal where you like.", "lead")
    sections = [
        _head(run, results, maps is not None),
        Section(
            "Learning curve",
            [
                curve,
                Text(f"{FROZEN if has_model else ''}Band: 95 % interval, {method}."),
                *([demo] if (run.folder / DEMO).exists() else []),
            ],
        ),
        *_calibration(results, noun),
        *_asked_over_training(run),
        *([Section(f"Scores by {noun}", [maps])] if maps else []),
        _scores(run, results),
        *(() if run.config.env.change else _search(results)),  # of tasks that stay
        *_worlds(run),
        *_data(run),
    ]
    if shown is not None:
        absent = Text(
            "There are none yet. `ad record` makes videos, and then `ad report` adds them here."
        )
        sections.append(Section("Videos", shown or [absent]))
    if (run.folder / INSIDE).exists():
        link = f"[Attention, attribution, ablation and other analyses]({INSIDE}) of the model."
        sections.append(Section("Inside the model", [Text(link)]))
    sections.append(Section("Details", list(_details(run, results))))
    learned_by = _name(run.config.method.name)
    return Page(results["name"], f"in-context learning by {learned_by}", sections)


def videos(run: Run) -> list[Video]:
    """Return the videos to show: first of held-out tasks, then of a source agent."""
    shown, names = [], _task_names(run)
    for kind, count in MAX_VIDEOS.items():
        for path in sorted(run.videos.glob(f"{kind}_*.mp4"))[:count]:
            task = path.stem.removeprefix(f"{kind}_")
            title = f"{VIDEO_TITLES[kind].format(run.world.task_noun)} {names.get(task, task)}"
            shown.append(Video(title, path.read_bytes()))
    return shown


def tiles(results: dict) -> Tiles:
    """Return the scores on held-out tasks that are known, to see first."""
    summary, references = results["splits"]["held_out"], results["references"]
    names = ["nauc", "success_last10", "return_last10", "path_ratio_last10"]
    if summary["return_last10"] == summary["success_last10"]:
        names.remove("return_last10")
    shown = []
    for score in (SCORES[name] for name in names if summary[name] is not None):
        low, high = (f"{bound:{score.format}}" for bound in summary["ci95"][score.name])
        value = f"{summary[score.name]:{score.format}}"
        shown.append((value, score.heading, f"95 %: {low} to {high}"))
    if summary["tasks_solved"] is not None:
        solved = f"{summary['tasks_solved']} of {summary['num_tasks']}"
        note = f"success in the last ten episodes ≥ {metrics.SOLVED}"
        shown.append((solved, "tasks solved", note))
    if "ceiling" in references and (ceiling := references["ceiling"]["held_out"]["nauc"]):
        share = f"{100 * summary['nauc'] / ceiling:.0f} %"
        shown.append((share, "of the ceiling", f"whose NAUC is {ceiling:.3f}"))
    return Tiles(shown)


def _head(run: Run, results: dict, has_maps: bool) -> Section:
    held_out = results["splits"]["held_out"]
    known = {
        "optimal returns": held_out["optimal_return"] is not None,
        "successes": held_out["success_last10"] is not None,
        "maps": has_maps,
        "videos": can_draw(run),
    }
    unknown = ", ".join(name for name, is_known in known.items() if not is_known)
    changing = " with tasks that change" if run.config.env.change else ""
    left_out = f"{run.config.env.id}{changing} does not provide: {unknown}."
    method = build_method(run.config.method)
    agent = "frozen model" if method.has_model else "learning agent"
    told = headline(results, method.within_episodes, agent)
    blocks = [Text(told, "lead"), tiles(results)]
    warning = source_warning(run)
    blocks += [Text(f"Warning: {warning}.", "warning")] if warning else []
    blocks += [Text(left_out)] if unknown else []
    return Section("", blocks)


def _calibration(results: dict, noun: str) -> Iterator[Section]:
    """Yield the section of achieved against asked returns, if they were evaluated."""
    if "calibration" not in results:
        return
    blocks: list[Block] = [
        charts.calibration(results["calibration_by_action"]),
        tables.calibration_table(results),
        Text(
            f"The returns that the model achieves on held-out {noun}s when it is asked for a "
            f"return. Bands and brackets: 95 % interval of the mean over {noun}s, or over the "
            f"episodes of a single {noun}, by Student's t. That over several models would be wider."
        ),
    ]
    yield Section("Calibration", blocks)


def _asked_over_training(run: Run) -> Iterator[Section]:
    """Yield the section of the returns achieved during training, if any were asked for."""
    steps, achieved = series(run.folder, ASKED)
    if steps:
        text = "Evaluations during training play one seed for each asked return."
        chart = Chart(
            "lines",
            steps,
            list(achieved.values()),
            [f"asked {value}" for value in achieved],
            column_name="train steps",
            value_name="achieved return",
        )
        yield Section("Returns for asked ones during training", [chart, Text(text)])


def _scores(run: Run, results: dict) -> Section:
    table, method = tables.run_table(results).compact(), results["splits"]["held_out"]
    notes = _notes([score for score in columns("run", "change") if score.heading in table.header])
    blocks: list[Block] = [
        table,
        Text(
            f"**Scores.** {notes} In brackets: 95 % interval, {method['ci95_method']}. The "
            "interval over several trained models would be wider."
        ),
    ]
    noun, source = run.world.task_noun, _name(run.config.source.algorithm)
    references = [
        note.format(noun=noun, source=source)
        for name, note in REFERENCE_NOTES.items()
        if name in results["references"]
    ]
    blocks += [Text(f"**References.** {' '.join(references)}")] if references else []
    if stopped := results["stopped_agents"]:
        steps = ", ".join(f"{task} at step {step}" for task, step in stopped.items())
        text = (
            "**Stopped agents.** These source agents stopped learning when their loss or gradient "
            "was not finite. Training uses their histories up to that step. The source references "
            f"leave them out: {steps}."
        )
        blocks.append(Text(text))
    return Section("Scores and references", blocks)


def _search(results: dict) -> Iterator[Section]:
    """Yield the section of how soon a success comes and is used, where successes are known."""
    if table := tables.search_table(results):
        notes = f"{_notes(columns('search'))} The rows below the model's are references."
        yield Section("The search", [table, Text(notes)])


def _worlds(run: Run) -> Iterator[Section]:
    """Yield the section of other worlds that the model was evaluated in."""
    if worlds := world_results(run):
        noun = run.world.task_noun
        text = (
            f"The same weights in worlds they were not trained in, on {noun}s that correspond to "
            f"no train {noun}."
        )
        if any("random_then_optimal" in own["references"] for own in worlds.values()):
            text += (
                " The random walk is that of each world: in a larger room, fewer walks hit the "
                "goal."
            )
        table = tables.runs_table([{title: own} for title, own in worlds.items()]).compact()
        text += f" {_notes([one for one in columns('change') if one.heading in table.header])}"
        each = [
            Details(f"Scores and references: {title}", [tables.run_table(own).compact()])
            for title, own in worlds.items()
        ]
        yield Section("Other worlds", [table, Text(text), *each])


def _data(run: Run) -> Iterator[Section]:
    """Yield the section of the returns that the run is trained on, if there are histories."""
    returns = data_returns(run)
    if returns is None:
        return
    low, median, high = np.quantile(returns, [0.05, 0.5, 0.95])
    text = (
        f"{len(returns):,} episodes: mean return {returns.mean():.3g}, median {median:.3g}, 90 % "
        f"of them from {low:.3g} to {high:.3g}, the best {returns.max():.3g}. These are all "
        "episodes of the actors and steps that the settings of data choose; a method may train on "
        "a part of them."
    )
    yield Section("Returns of the training data", [charts.returns_histogram(returns), Text(text)])


def _details(run: Run, results: dict) -> Iterator[Block]:
    names = _task_names(run)
    for split, entry in results["splits"].items():
        table = tables.tasks_table(entry, names).compact()
        by = "by first task of a rollout" if run.config.env.change else "by task"
        yield Details(f"Scores {by}: {tables.SPLIT_TITLES[split]}", [table])
    seconds = [
        [name.removesuffix("_s"), f"{value:.1f}"] for name, value in results["timing"].items()
    ]
    yield Details("Timing", [Table(["verb", "seconds"], seconds)])
    rows = [
        [f"trained from step {session['from_step']}", *_hardware(session)]
        for session in results["sessions"]
    ]
    rows.append(["evaluated", *_hardware(results["evaluated_on"])])
    hardware: list[Block] = [Table(["", "device", "CPU threads", "precision", "torch"], rows)]
    if results["resumed_with"]:
        text = (
            f"Training was resumed with {'; '.join(results['resumed_with'])}: results may differ "
            "in the last bits from those of an uninterrupted run."
        )
        hardware.append(Text(text))
    yield Details("Hardware", hardware)
    hashes = f"config hash {results['config_hash']}, split hash {results['split_hash']}"
    yield Details("Configuration", [Code(dump(run.config)), Text(hashes)])


def _hardware(session: Mapping) -> list[str]:
    return [str(session[name]) for name in ("device", "threads", "precision", "torch")]


def _notes(scores: Sequence[Score]) -> str:
    """Return what the scores are; a sentence that several share comes once."""
    return " ".join(dict.fromkeys(score.note for score in scores))


def _task_names(run: Run) -> dict[str, str]:
    """Return what each task is called, by its name in files."""
    tasks = np.concatenate([run.split.held_out_tasks, run.split.train_tasks])
    return dict(zip(map(task_name, tasks), run.world.names(tasks), strict=True))


def _name(component: str) -> str:
    """Return the name of a component as words, without the file of a user's class."""
    return component.rpartition(":")[2].replace("_", " ")
