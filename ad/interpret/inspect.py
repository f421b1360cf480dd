"""Run analyses of a trained model: `logs/<run>/inspect/<analysis>.npz` and `.json`.

The npz file holds the arrays, the JSON file their axes, labels and meaning, and of which checkpoint
and contexts they are. Those over training lie in `over_training/`.
"""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from ad.config.schema import config_hash
from ad.errors import ConfigError, CorruptError
from ad.evaluation.evaluate import checkpoint_at
from ad.interpret.analysis import SOURCES, Analysis, Subject
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

ALL = "all"  # checkpoints


def inspect_run(
    run: Run,
    names: Sequence[str] | None = None,
    components: Sequence[str] = (),
    source: str = "rollout",
    fresh: bool = False,
    steps: Sequence[int] | str | None = None,
) -> dict[str, str]:
    """Run the analyses called `names` on the trained model of `run`; write and print what they say.

    Without names all run that the model has. `components` are those that an ablation removes,
    `source` is where the contexts come from. `steps` are the train steps of the checkpoints to
    analyze instead of the last one, or ALL. What is written already is kept, or with `fresh` made
    again. Returns why the model does not have some of the analyses, by name.

    Raises ConfigError for a name that is no analysis, no component or no source, for components
    that repeat or that no analysis reads, for an analysis that the model does not have, for a
    checkpoint that is not there, and for what `load_model` does.
    """
    chosen = load_analyses(ANALYSES.names() if names is None else names)
    _check_options(chosen, components, source)
    if steps is None:
        subjects = {train_steps(run.config): Subject.load(run, components, source)}
    else:
        subjects = {n: Subject.load(run, components, source, n) for n in _kept(run, steps)}
    subject = list(subjects.values())[-1]
    for component in components:
        parse_components(component, subject.model.transformer)
    problems = _problems(chosen, subject)
    if names is not None and problems:
        raise ConfigError(_sentence(*next(iter(problems.items()))))
    possible = {name: analysis for name, analysis in chosen.items() if name not in problems}
    if steps is None:
        _inspect(possible, subject, fresh)
    else:
        _inspect_over_training(possible, subjects, fresh)
    for name in problems:
        info(f"left out: {_sentence(name, problems[name])}")
    return _problems(load_analyses(ANALYSES.names()), subject)


def load_analyses(names: Sequence[str]) -> dict[str, Analysis]:
    """Return the analyses called `names`. Raises ConfigError for a name that is none."""
    try:
        return {name: ANALYSES.load(name)() for name in names}
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _check_options(chosen: dict[str, Analysis], components: Sequence[str], source: str) -> None:
    """Raise ConfigError for options that no model has."""
    if source not in SOURCES:
        raise ConfigError(f"--contexts must be {' or '.join(SOURCES)}, not {source!r}")
    if components and not any(analysis.reads_components for analysis in chosen.values()):
        raise ConfigError("--components is for the ablation, which is not among the analyses")
    for component in components:
        if components.count(component) > 1:
            raise ConfigError(f"--components names {component} twice")


def _kept(run: Run, steps: Sequence[int] | str) -> list[int]:
    """Return the train steps of the checkpoints to analyze, in order.

    Raises ConfigError for fewer than two, and for one that is not there.
    """
    chosen = checkpoints.steps(run.folder / "checkpoints") if steps == ALL else sorted({*steps})
    for step in chosen:
        checkpoint_at(run, step)
    if len(chosen) < 2:
        found = f"{run.folder} has {len(chosen)} of them: training.keep_every keeps more"
        named = f"only that of train step {chosen[0]} is named" if steps != ALL else found
        raise ConfigError(f"--checkpoints needs two checkpoints, and {named}")
    return chosen


def _problems(analyses: dict[str, Analysis], subject: Subject) -> dict[str, str]:
    """Return why the model does not have some of the analyses, by name."""
    problems = {name: analysis.problem(subject) for name, analysis in analyses.items()}
    return {name: problem for name, problem in problems.items() if problem}


def _sentence(name: str, problem: str) -> str:
    return f"the analysis {name} {problem}"


def _inspect(analyses: dict[str, Analysis], subject: Subject, fresh: bool) -> None:
    """Run analyses of one model; write and print what they say."""
    for name, analysis in analyses.items():
        path = subject.run.folder / "inspect" / name
        about = _about(name, analysis, subject)
        results, title = _kept_or_made(path, about, fresh, partial(analysis.run, subject))
        info(f"{title}\n{analysis.table(results).markdown()}")


def _inspect_over_training(
    analyses: dict[str, Analysis], subjects: dict[int, Subject], fresh: bool
) -> None:
    """Run analyses of a model's checkpoints; write and print what changes."""
    learning: Results = {}
    folder = next(iter(subjects.values())).run.folder / "inspect" / FOLDER
    for name, analysis in ({LEARNING: Learning()} | analyses).items():
        each = [_about(name, analysis, subject) for subject in subjects.values()]
        several = {key: [about[key] for about in each] for key in ("train_steps", "checkpoint")}
        about = each[0] | several
        make = partial(over_training, analysis, subjects)
        results, title = _kept_or_made(folder / name, about, fresh, make)
        if name == LEARNING:
            learning = results
            info(f"{title}\n{analysis.table(results).markdown()}\n{describe(results)}\n")
        else:
            info(f"{title}\n{changes_table(results, learning).markdown()}")


def _kept_or_made(
    path: Path, about: dict[str, object], fresh: bool, make: Callable[[], Results]
) -> tuple[Results, str]:
    """Return the results at `path`, after making them unless they are done, and their title."""
    if not fresh and (done := _done(path, about)) is not None:
        return done, f"{path.name}: {path}.npz (already done)"
    save(path, results := make(), about)
    return results, f"{path.name}: {path}.npz"


def _about(name: str, analysis: Analysis, subject: Subject) -> dict[str, object]:
    """Return what the model and the contexts of the analysis called `name` are."""
    config, split = subject.run.config, subject.run.split
    step = train_steps(config) if subject.step is None else subject.step
    about: dict[str, object] = {
        "analysis": name,
        "name": config.name,
        "config_hash": config_hash(config),
        "split_hash": split.hash,
        "train_steps": step,
        "checkpoint": sha256(checkpoint_at(subject.run, step)),
    }
    if analysis.reads_components:
        about["components"] = list(subject.components)
    if analysis.reads_contexts:
        tasks = split.held_out_tasks if subject.source == "rollout" else split.train_tasks
        about |= {"contexts": subject.source, "tasks": [task_name(task) for task in tasks]}
    return about


def _done(path: Path, about: dict[str, object]) -> Results | None:
    """Return the results at `path`, None unless they are of just what `about` says and readable."""
    try:
        written = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        is_same = written == about | {"arrays": written["arrays"]}
        return load(path) if is_same else None
    except (CorruptError, *UNREADABLE):
        return None
