"""Run analyses of a trained model: `logs/<run>/inspect/<analysis>.npz` and `.json`.

The npz file of an analysis holds its arrays; the JSON file holds their axes, labels and meaning,
and the checkpoint and contexts that they were computed from. The arrays of several checkpoints are
in `over_training/`.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ad.config.options import whole_numbers
from ad.errors import ConfigError, CorruptError
from ad.evaluation.evaluate import checkpoint_at
from ad.evaluation.summary import identity
from ad.interpret.analysis import (
    DEFAULT_CHOICE,
    HISTORIES,
    ROLLOUT,
    SOURCES,
    Analysis,
    Choice,
    Subject,
)
from ad.interpret.components import parse_components
from ad.interpret.labeled import FOLDER, LEARNING, UNREADABLE, Results, load, save
from ad.interpret.over_training import Learning, changes_table, describe, over_training
from ad.methods import train_steps
from ad.registry import ANALYSES
from ad.runtime.console import info
from ad.runtime.files import sha256
from ad.runtime.run import Run
from ad.training import checkpoints
from envs.tasks import task_name

ALL = "all"  # analyses, or checkpoints
SECONDS = {  # of each analysis of the quickstart's model on one core; others count as 10
    **{"attention": 1, "attribution": 4, "lens": 3, "ablation": 39, "patching": 25},
    **{"path_patching": 28, "attribution_patching": 20, "scrubbing": 10, "context_scan": 19},
    **{"return_scan": 15, "behavior": 25, "probes": 44, "successes": 3, "static": 1},
    **{"weights": 2, "circuits": 2},
}
DEFAULT = (  # analyses that run if none is named: 114 seconds together
    *("attention", "attribution", "lens", "ablation", "patching", "scrubbing"),
    *("context_scan", "return_scan", "behavior", "successes", "static", "weights", "circuits"),
)
WITHOUT_ATTENTION = ("probes",)  # run then, too, where most of DEFAULT is not possible


def analyze(
    run: Run,
    analyses: Sequence[str] = (),
    checkpoints: str = "",
    contexts: str = ROLLOUT,
    fresh: bool = False,
    **chosen,
) -> None:
    """Run `analyses` of the trained model, by default the quick ones, and write their page.

    `checkpoints` are train steps with commas between, ALL, or empty for the last one. `chosen` are
    fields of a Choice. The errors are those of `inspect_run`.
    """
    from ad.interpret.page import write_page

    try:
        steps = ALL if checkpoints == ALL else whole_numbers(checkpoints)
    except ValueError as error:
        raise ConfigError(f"--checkpoints {error}") from None
    own: dict = {
        n: value if isinstance(value, str) else tuple(value) for n, value in chosen.items()
    }
    written: list[Path] = []

    def write(left_out: dict[str, str], folder: Path) -> None:
        written[:] = [write_page(run, left_out, folder)]

    choice = Choice(source=contexts, **own)
    inspect_run(run, analyses or DEFAULT, choice, steps or None, fresh, write)
    info(f"analyze: {written[0]}")


def inspect_run(
    run: Run,
    names: Sequence[str] = DEFAULT,
    choice: Choice = DEFAULT_CHOICE,
    steps: Sequence[int] | str | None = None,
    fresh: bool = False,
    write_page: Callable[[dict[str, str], Path], object] = lambda left_out, folder: None,
) -> dict[str, str]:
    """Run the analyses called `names` and print their tables.

    names: names of ANALYSES, or (ALL,). An analysis that the model cannot have is left out if
        `names` is DEFAULT or (ALL,), else it is an error. DEFAULT may have WITHOUT_ATTENTION, too.
    choice: what they look at; each situation, asked returns and direction has its own folder.
    steps: train steps of the checkpoints to analyze instead of the chosen one, or ALL.
    fresh: run the analyses again whose arrays are written already.
    write_page: called before the first and after each analysis, with the value that is returned and
        the folder of the arrays.

    Returns the analyses that are not possible for the model, each with the reason as a sentence.

    Raises ConfigError for an unknown analysis, component or source, for components that repeat or
    that no analysis reads, for an analysis that the model cannot have, for a missing checkpoint,
    and the errors of `load_model`.
    """
    is_chosen = tuple(names) not in (DEFAULT, (ALL,))
    analyses = load_analyses(ANALYSES.names() if ALL in names else names)
    _check_options(analyses, choice)
    kept = [choice.step] if steps is None else _kept(run, steps)
    subjects = {step: Subject.load(run, replace(choice, step=step)) for step in kept}
    subject = list(subjects.values())[-1]
    subject.check_choice()
    for component in choice.components:
        parse_components(component, subject.model.transformer)
    left_out = _left_out(subject)
    if tuple(names) == DEFAULT and "attention" in left_out:
        analyses |= load_analyses(WITHOUT_ATTENTION)
    for name in left_out.keys() & analyses.keys():
        sentence = f"the analysis {name} is not possible: {left_out[name]}"
        if is_chosen:
            raise ConfigError(sentence)
        info(f"left out: {sentence}")
    possible = {name: analysis for name, analysis in analyses.items() if name not in left_out}
    if steps is None:
        made = _inspect(possible, subject, fresh)
    else:
        by_step = {step: own for step, own in subjects.items() if step is not None}
        made = _inspect_over_training(possible, by_step, fresh)
    write_page(left_out, subject.folder)
    for text in _with_time_left(made, [LEARNING] * (steps is not None) + [*possible]):
        write_page(left_out, subject.folder)
        info(text)
    unmade = [name for name in ANALYSES if name not in analyses]
    if unmade and not is_chosen:
        info(f"--analyses all also runs: {', '.join(unmade)}")
    return left_out


def load_analyses(names: Sequence[str]) -> dict[str, Analysis]:
    """Return the analyses called `names`. Raises ConfigError for a name of no analysis."""
    try:
        return {name: ANALYSES.load(name)() for name in names}
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_options(analyses: dict[str, Analysis], choice: Choice) -> None:
    """Raise ConfigError for options that are wrong for every model."""
    if choice.source not in SOURCES:
        raise ConfigError(f"--contexts must be {' or '.join(SOURCES)}, not {choice.source!r}")
    if choice.components and not any(one.reads_components for one in analyses.values()):
        raise ConfigError("--components is for the ablation, which is not among the analyses")
    if choice.bank and not any(one.reads_bank for one in analyses.values()):
        raise ConfigError("--bank is for the behavior, which is not among the analyses")
    if choice.bank and not Path(choice.bank).is_file():
        raise ConfigError(f"--bank: there is no file {choice.bank}")
    for component in choice.components:
        if choice.components.count(component) > 1:
            raise ConfigError(f"--components names {component} twice")


def _kept(run: Run, steps: Sequence[int] | str) -> list[int]:
    """Return the train steps of the checkpoints to analyze, in order.

    Raises ConfigError for fewer than two checkpoints, and for a missing one.
    """
    all_steps = checkpoints.steps(run.folder / "checkpoints")
    chosen = all_steps if isinstance(steps, str) else sorted({*steps})
    for step in chosen:
        checkpoint_at(run, step)
    if len(chosen) < 2:
        kept = f"{run.folder} has {len(chosen)} of them: training.keep_every keeps more"
        named = f"only that of train step {chosen[0]} is named" if steps != ALL else kept
        raise ConfigError(f"--checkpoints needs two checkpoints, and {named}")
    return chosen


def _left_out(subject: Subject) -> dict[str, str]:
    """Return the analyses that are not possible, each with the reason as a sentence."""
    reasons = {}
    for name in ANALYSES.names():
        try:
            load_analyses([name])[name].check(subject)
        except ConfigError as error:
            reasons[name] = str(error)
    return reasons


def _with_time_left(texts: Iterable[str], names: Sequence[str]) -> Iterable[str]:
    """Yield `texts`, one for each analysis of `names`, with a bar of the time that is left."""
    seconds = [SECONDS.get(name, 10) for name in names]
    layout = "{desc}: {percentage:3.0f} % |{bar}| {elapsed} < {remaining} left"
    with tqdm(total=sum(seconds), desc="inspect", bar_format=layout, disable=None) as bar:
        for text, duration in zip(texts, seconds, strict=True):
            bar.update(duration)
            yield text


def _inspect(analyses: dict[str, Analysis], subject: Subject, fresh: bool) -> Iterable[str]:
    """Run analyses of one model and write their arrays; yield the title and table of each."""
    for name, analysis in analyses.items():
        path = subject.folder / name
        about = _about(name, analysis, subject)
        results, title = _kept_or_made(path, about, fresh, partial(analysis.run, subject))
        yield f"{title}\n{analysis.table(results).markdown()}"


def _inspect_over_training(
    analyses: dict[str, Analysis], subjects: dict[int, Subject], fresh: bool
) -> Iterable[str]:
    """Run analyses of a model's checkpoints and write their arrays; yield title and table."""
    learning: Results = {}
    folder = next(iter(subjects.values())).folder / FOLDER
    for name, analysis in ({LEARNING: Learning()} | analyses).items():
        each = [_about(name, analysis, subject) for subject in subjects.values()]
        several = {key: [about[key] for about in each] for key in ("train_steps", "checkpoint")}
        make = partial(over_training, analysis, subjects)
        results, title = _kept_or_made(folder / name, each[0] | several, fresh, make)
        if name == LEARNING:
            learning = results
            yield f"{title}\n{analysis.table(results).markdown()}\n{describe(results)}\n"
        else:
            yield f"{title}\n{changes_table(results, learning).markdown()}"


def _kept_or_made(
    path: Path, about: dict[str, object], fresh: bool, make: Callable[[], Results]
) -> tuple[Results, str]:
    """Return the results at `path` and their title.

    They are made anew with `fresh`, and unless they are readable and depend on just `about`.
    """
    with suppress(CorruptError, *UNREADABLE):
        written = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        if not fresh and written == about | {"arrays": written["arrays"]}:
            return load(path), f"{path.name}: {path}.npz (already done)"
    save(path, results := make(), about)
    return results, f"{path.name}: {path}.npz"


def _about(name: str, analysis: Analysis, subject: Subject) -> dict[str, object]:
    """Return the model and the contexts that the analysis called `name` depends on."""
    config, split = subject.run.config, subject.run.split
    step = train_steps(config) if subject.choice.step is None else subject.choice.step
    about: dict[str, object] = {
        "analysis": name,
        "name": config.name,
        **identity(subject.run),
        "train_steps": step,
        "checkpoint": sha256(checkpoint_at(subject.run, step)),
    }
    choice = subject.choice
    if analysis.reads_components:
        about["components"] = list(choice.components)
    if analysis.reads_bank:
        about["bank"] = sha256(Path(choice.bank)) if choice.bank else ""
    if analysis.reads_contexts:
        is_of_histories = choice.source == HISTORIES
        tasks = split.train_tasks if is_of_histories else split.held_out_tasks
        about |= {"contexts": choice.source, "tasks": [task_name(task) for task in tasks]}
        about["asked"] = [] if is_of_histories else sorted(subject.asked)
    return about | {"situation": choice.situation, "direction": choice.direction}
