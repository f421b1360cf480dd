"""Run analyses of a trained model: `logs/<run>/inspect/<analysis>.npz` and `.json`.

The npz file holds the arrays, the JSON file their axes, labels and meaning, and of which training
and contexts they are.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from ad.config.schema import config_hash
from ad.errors import ConfigError
from ad.interpret.analysis import SOURCES, Analysis, Subject
from ad.interpret.components import parse_components
from ad.interpret.labeled import load, save
from ad.registry import ANALYSES
from ad.runtime.console import info
from ad.runtime.run import Run
from envs.tasks import task_name


def inspect_run(
    run: Run,
    names: Sequence[str] | None = None,
    components: Sequence[str] = (),
    source: str = "rollout",
    fresh: bool = False,
) -> None:
    """Run the analyses called `names` on the trained model of `run`; write and print what they say.

    Without names all run that the model has. `components` are those that an ablation removes,
    `source` is where the contexts come from. What is written already is kept, or with `fresh` made
    again. Raises ConfigError for a name that is no analysis, no component or no source, for
    components that repeat or that no analysis reads, for an analysis that the model does not have,
    and for what `load_model` does.
    """
    chosen = load_analyses(ANALYSES.names() if names is None else names)
    if source not in SOURCES:
        raise ConfigError(f"--contexts must be {' or '.join(SOURCES)}, not {source!r}")
    if components and not any(analysis.reads_components for analysis in chosen.values()):
        raise ConfigError("--components is for the ablation, which is not among the analyses")
    for component in components:
        if components.count(component) > 1:
            raise ConfigError(f"--components names {component} twice")
    subject = Subject.load(run, components, source)
    for component in components:
        parse_components(component, subject.model.transformer)
    problems = {name: analysis.problem(subject) for name, analysis in chosen.items()}
    problems = {name: problem for name, problem in problems.items() if problem}
    for name, problem in problems.items():
        sentence = f"the analysis {name} {problem}"
        if names is not None:
            raise ConfigError(sentence)
        info(f"left out: {sentence}")
    for name in (name for name in chosen if name not in problems):
        path = run.folder / "inspect" / name
        about, said = _about(name, chosen[name], subject), ""
        if not fresh and _is_done(path, about):
            results, said = load(path), " (already done)"
        else:
            results = chosen[name].run(subject)
            save(path, results, about)
        info(f"{name}: {path}.npz{said}\n{chosen[name].table(results).markdown()}")


def load_analyses(names: Sequence[str]) -> dict[str, Analysis]:
    """Return the analyses called `names`. Raises ConfigError for a name that is none."""
    try:
        return {name: ANALYSES.load(name)() for name in names}
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _about(name: str, analysis: Analysis, subject: Subject) -> dict[str, object]:
    """Return what the model and the contexts of the analysis called `name` are."""
    config, split = subject.run.config, subject.run.split
    about: dict[str, object] = {
        "analysis": name,
        "name": config.name,
        "config_hash": config_hash(config),
        "split_hash": split.hash,
        "train_steps": config.training.steps,
    }
    if analysis.reads_components:
        about["components"] = list(subject.components)
    if analysis.reads_contexts:
        tasks = split.held_out_tasks if subject.source == "rollout" else split.train_tasks
        about |= {"contexts": subject.source, "tasks": [task_name(task) for task in tasks]}
    return about


def _is_done(path: Path, about: dict[str, object]) -> bool:
    """Return whether `path` holds an analysis of just what `about` says."""
    try:
        written = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return False
    return path.with_suffix(".npz").exists() and written == about | {"arrays": written["arrays"]}
