"""A study: what it does to a row when one thing changes. Its questions, and the runs they need.

`configs/study/study.yaml` names the row to start from, what all runs have in common (their budget
and split), the training seeds and the questions; `<question>.yaml` beside it says what changes. A
run that several questions need, that of the base row above all, is one run.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ad.config.fields import as_yaml, did_you_mean, field, validate
from ad.config.parser import load_file
from ad.config.schema import EvaluationConfig, Experiment, config_hash, diff
from ad.config.yaml_io import YamlFile
from ad.errors import ConfigError

BASE = "base"  # what the base row is called
COMMON = "study.yaml"


@dataclass(frozen=True)
class Common:
    """The content of study.yaml."""

    row: str = field("configs/quickstart.yaml")  # to start from
    settings: dict = field({})  # dotted setting: its value in all runs
    seeds: list[int] = field([0, 1, 2])  # training seeds
    questions: list[str] = field([])  # in the order of the page


@dataclass(frozen=True)
class Wording:
    """The content of a question's file: either `change` and `values`, or `variants`."""

    question: str = field("")  # in words
    probe: str = field("")  # what the probe of the field notes found, if it asked
    base: dict = field({})  # dotted setting: its value in all runs of this question
    change: str = field("")  # the dotted setting that changes
    values: list = field([])  # its values
    variants: dict = field({})  # name: {dotted setting: value}, where several go together
    better: str = field("")  # the value that had the larger NAUC in the probe
    than: str = field("")  # the one that it was compared with
    answer: str = field("")  # what the runs say and why, in words: written after them


@dataclass(frozen=True)
class Question:
    """A question: its words, and the experiment of each value, all of the base's training seed."""

    name: str
    words: Wording
    variants: dict[str, Experiment]

    def reference(self, base: Experiment) -> str:
        """The value that the others are compared with: the base row's, or else the first."""
        alike = [name for name, config in self.variants.items() if _same(config, base)]
        return (alike or list(self.variants))[0]


@dataclass(frozen=True)
class Trial:
    """One run: how it differs from the base row, in words, and its configuration."""

    changed: str
    config: Experiment

    @property
    def training(self) -> str:
        """The name of its folder, shared with runs that differ in evaluation only."""
        return self.config.name

    @property
    def key(self) -> str:
        """What a raw row is found by."""
        return config_hash(self.config)[:16]


@dataclass(frozen=True)
class Study:
    """The base row (of the file `row`), the training seeds and the questions."""

    folder: Path
    row: str
    base: Experiment
    seeds: list[int]
    questions: list[Question]

    def trial(self, config: Experiment, seed: int) -> Trial:
        """The run of `config` with the training seed `seed`."""
        changed = diff(self.base, config)
        trained = [path for path in changed if not path.startswith("evaluation.")]
        name = re.sub(r"[^A-Za-z0-9.]+", "_", _words({path: changed[path] for path in trained}))
        config = replace(config, training=replace(config.training, train_seed=seed))
        code = config_hash(replace(config, evaluation=EvaluationConfig()))[:8]
        return Trial(_words(changed), replace(config, name=f"{name[:60]}-seed-{seed}-{code}"))

    def trials(self) -> list[Trial]:
        """All runs, each once, seed by seed, so that there is an early answer to everything.

        On a GPU `scripts.study` makes them by families, since their seeds train at once there.
        """
        asked = [config for question in self.questions for config in question.variants.values()]
        found = [self.trial(config, seed) for seed in self.seeds for config in asked]
        return list({trial.key: trial for trial in found}.values())


def load_study(
    folder: Path, names: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> Study:
    """The study in `folder`, only its questions `names` and `seeds` where these are given.

    Reads only. Raises ConfigError with a line for each question, value and setting that is wrong.
    """
    common = _read(folder / COMMON, Common)
    if unknown := [name for name in names if name not in common.questions]:
        known = f" (known: {', '.join(common.questions)})"
        hint = did_you_mean(unknown[0], common.questions) or known
        raise ConfigError(f"{as_yaml(unknown[0])} is not a question of {folder / COMMON}{hint}")
    seeds = list(common.seeds if seeds is None else seeds)
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(f"the seeds must be whole numbers from 0 on, each once, not {seeds}")
    base = _experiment(common.row, common.settings, str(folder / COMMON))
    asked = names or common.questions
    questions = _gather(
        lambda name: _question(folder, name, common),
        [n for n in common.questions if n in asked],
    )
    return Study(folder, common.row, base, seeds, questions)


def trainings(trials: Sequence[Trial]) -> list[list[Trial]]:
    """`trials` in groups that share a training, in the order of their first."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.training, []).append(trial)
    return list(groups.values())


def families(groups: Sequence[list[Trial]]) -> list[list[list[Trial]]]:
    """`trainings` in families that differ in their training seeds alone, in the same order."""
    found: dict[str, list[list[Trial]]] = {}
    for group in groups:
        config = group[0].config
        training = replace(config.training, train_seed=0)
        alike = replace(config, training=training, evaluation=EvaluationConfig())
        found.setdefault(config_hash(alike), []).append(group)
    return list(found.values())


def shard(trials: Sequence[Trial], part: int, parts: int) -> list[Trial]:
    """The runs of shard `part` (from 1) of `parts`, in the same order.

    Every run is in one, and with it those that share its training or differ in the seed alone.
    """
    mine = families(trainings(trials))[part - 1 :: parts]
    chosen = {trial.key for family in mine for group in family for trial in group}
    return [trial for trial in trials if trial.key in chosen]


def label(value: Any) -> str:
    """A value in a table."""
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else as_yaml(value)


def _words(changed: dict[str, Any]) -> str:
    """Changed settings in words, e.g. model.encoder=table."""
    return " ".join(f"{path}={label(value)}" for path, value in sorted(changed.items())) or BASE


def _read(path: Path, kind: type) -> Any:
    """The YAML at `path` as a dataclass. Raises ConfigError."""
    try:
        file = YamlFile(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file (UTF-8)") from None
    problems = file.problems or list(validate(kind, file.data))
    if problems:
        raise ConfigError(_lines([f"{path}: {where} {text}" for where, text in problems]))
    return kind(**file.data)


def _question(folder: Path, name: str, common: Common) -> Question:
    """The question of a file. Raises ConfigError with a line for each value that is wrong."""
    path = folder / f"{name}.yaml"
    words = _read(path, Wording)
    if bool(words.change and words.values) == bool(words.variants):
        raise ConfigError(f"{path} must have either change and values, or variants")
    changed = words.variants or {label(value): {words.change: value} for value in words.values}
    if wrong := [value for value in changed if not isinstance(changed[value], dict)]:
        raise ConfigError(f"{path}: {wrong[0]} must be a group of settings (setting: value)")
    settings = common.settings | words.base
    found = _gather(
        lambda value: _experiment(common.row, settings | changed[value], f"{path}: {value}"),
        changed,
    )
    variants = dict(zip(changed, found, strict=True))
    if len({config_hash(config) for config in found}) < max(len(found), len(words.values)):
        raise ConfigError(f"{path} has two values that make the same run")
    for value in (words.better, words.than) if words.better or words.than else ():
        if value not in changed:
            known = ", ".join(changed)
            raise ConfigError(f"{path}: {as_yaml(value)} is none of its values: {known}")
    return Question(name, words, variants)


def _experiment(row: str, settings: dict[str, Any], where: str) -> Experiment:
    """The row with dotted `settings`. Raises ConfigError that names `where` they are set."""
    try:
        return load_file(row, **settings)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _gather(make: Callable[[str], Any], names: Iterable[str]) -> list:
    """`make(name)` for each name; all their problems in one ConfigError."""
    made, problems = [], []
    for name in names:
        try:
            made.append(make(name))
        except ConfigError as error:
            problems += _sentences(error)
    if problems:
        raise ConfigError(_lines(problems))
    return made


def _sentences(error: ConfigError) -> Iterator[str]:
    heading, *lines = str(error).split("\n  ")
    return iter(lines or [heading])


def _lines(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"{len(problems)} problems, nothing was run:", *problems])


def _same(config: Experiment, other: Experiment) -> bool:
    return config_hash(config) == config_hash(other)
