"""Run analyses of a trained model: `logs/<run>/inspect/<analysis>.npz` and `.json`.

The npz file holds the arrays, the JSON file their axes, labels and meaning, and of which training
and contexts they are.
"""

from collections.abc import Sequence

from ad.config.schema import config_hash
from ad.errors import ConfigError
from ad.interpret.analysis import SOURCES, Analysis, Subject
from ad.interpret.labeled import save
from ad.interpret.parts import parse_parts
from ad.registry import ANALYSES
from ad.runtime.console import info
from ad.runtime.run import Run


def inspect_run(
    run: Run,
    names: Sequence[str] | None = None,
    parts: Sequence[str] = (),
    source: str = "rollout",
) -> None:
    """Run the analyses called `names` on the trained model of `run`; write and print what they say.

    Without names all run that the model has. `parts` are those that an ablation removes,
    `source` is where the contexts come from. Raises ConfigError for a name that is no analysis, no
    part or no source, for an analysis that the model does not have, and for what `load_model` does.
    """
    chosen = load_analyses(ANALYSES.names() if names is None else names)
    if source not in SOURCES:
        raise ConfigError(f"--contexts must be {' or '.join(SOURCES)}, not {source!r}")
    subject = Subject.load(run, parts, source)
    for part in parts:
        parse_parts(part, subject.model.transformer)
    problems = {name: analysis.problem(subject) for name, analysis in chosen.items()}
    problems = {name: problem for name, problem in problems.items() if problem}
    for name, problem in problems.items():
        sentence = f"the analysis {name} {problem}"
        if names is not None:
            raise ConfigError(sentence)
        info(f"left out: {sentence}")
    for name in (name for name in chosen if name not in problems):
        path = run.folder / "inspect" / name
        results = chosen[name].run(subject)
        save(path, results, _about(name, chosen[name], subject))
        info(f"{name}: {path}.npz\n{chosen[name].table(results).markdown()}")


def load_analyses(names: Sequence[str]) -> dict[str, Analysis]:
    """Return the analyses called `names`. Raises ConfigError for a name that is none."""
    try:
        return {name: ANALYSES.load(name)() for name in names}
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _about(name: str, analysis: Analysis, subject: Subject) -> dict[str, object]:
    """Return what the model and the contexts of the analysis called `name` are."""
    config = subject.run.config
    about = {
        "analysis": name,
        "name": config.name,
        "config_hash": config_hash(config),
        "split_hash": subject.run.split.hash,
        "train_steps": config.training.steps,
    }
    if not analysis.reads_contexts:
        return about
    return about | {
        "contexts": subject.source,
        "episodes": subject.contexts.num_episodes,
        "tasks": subject.contexts.tasks,
    }
