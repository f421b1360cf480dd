"""A study of what single settings change in an experiment: its questions and the runs they need.

`configs/study/study.yaml` names the base experiment, the settings that all runs share (their budget
and split), the training seeds and the questions; `<question>.yaml` beside it says what changes. A
run that several questions need, such as that of the base experiment, is made once. The file also
states the verdicts, `better` and `worse`; `scripts.study --table true` prints those of the records
where they differ.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ad.config.fields import as_yaml, field, label
from ad.config.schema import Experiment, config_hash, diff
from ad.errors import ConfigError
from ad.sweeps.files import check_seeds, experiment_of, gather, read_file
from ad.sweeps.planned import PlannedRun, settings_text, training_hash
from envs.registry import did_you_mean

STUDY_FILE = "study.yaml"
COMPARED = ("nauc", "success_last10", "return_last10")


@dataclass(frozen=True)
class StudyConfig:
    """The content of study.yaml."""

    experiment: str = field("configs/quickstart.yaml")  # the YAML file of the base experiment
    settings: dict = field({})  # dotted setting: its value in all runs
    seeds: list[int] = field([0, 1, 2])  # training seeds
    score: str = field("nauc", choices=COMPARED)  # the score by which values are compared
    questions: list[str] = field([])  # names of the questions, in the order of the page


@dataclass(frozen=True)
class QuestionConfig:
    """The content of a question's file: either `change` and `values`, or `variants`."""

    question: str = field("")  # the question as a sentence
    base: dict = field({})  # dotted setting: its value in all runs of this question
    change: str = field("")  # the dotted setting that changes
    values: list = field([])  # its values
    variants: dict = field({})  # name: {dotted setting: value}, where several change together
    better: list = field([])  # values whose score is larger than that of the reference
    worse: list = field([])  # values whose score is smaller; the others are not told apart from it
    answer: str = field("")  # what the runs say and why, written once they are made


@dataclass(frozen=True)
class Question:
    """A question and the experiment of each value, all with the training seed of the base."""

    name: str
    config: QuestionConfig
    variants: dict[str, Experiment]

    def reference(self, base: Experiment) -> str:
        """Return the value that the others are compared with: that of `base`, or else the first."""
        same = [name for name, config in self.variants.items() if not diff(base, config)]
        return (same or list(self.variants))[0]


@dataclass(frozen=True)
class Study:
    """The base experiment (of the file `experiment`), the training seeds and the questions.

    score: the score by which values are compared, one of COMPARED.
    """

    folder: Path
    experiment: str
    base: Experiment
    seeds: list[int]
    questions: list[Question]
    score: str

    @property
    def records(self) -> Path:
        """The CSV file of the study's records."""
        return self.folder.parent / "records" / f"{self.folder.name}.csv"

    def planned_run(self, config: Experiment, seed: int) -> PlannedRun:
        """Return the run of `config` with the training seed `seed`."""
        changed = diff(self.base, config)
        trained = {
            path: value for path, value in changed.items() if not path.startswith("evaluation.")
        }
        name = re.sub(r"[^A-Za-z0-9.]+", "_", settings_text(trained))
        config = replace(config, training=replace(config.training, train_seed=seed))
        name = f"{name[:60]}-seed-{seed}-{training_hash(config)[:8]}"
        return PlannedRun(settings_text(changed), replace(config, name=name))

    def planned_runs(self) -> list[PlannedRun]:
        """Return all runs, each once, seed by seed, so that every question soon has a first answer.

        On a GPU `scripts.study` orders them by experiment, whose seeds train side by side there.
        """
        asked = [config for question in self.questions for config in question.variants.values()]
        runs = [self.planned_run(config, seed) for seed in self.seeds for config in asked]
        return list({run.key: run for run in runs}.values())


def load_study(
    folder: Path, names: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> Study:
    """Return the study in `folder`, restricted to the questions `names` and the `seeds` if given.

    Raises ConfigError with a line for each question, value and setting that is wrong.
    """
    config = read_file(folder / STUDY_FILE, StudyConfig)
    if unknown := [name for name in names if name not in config.questions]:
        known = f" (known: {', '.join(config.questions)})"
        hint = did_you_mean(unknown[0], config.questions) or known
        raise ConfigError(f"{as_yaml(unknown[0])} is not a question of {folder / STUDY_FILE}{hint}")
    seeds = list(config.seeds if seeds is None else seeds)
    check_seeds("the seeds", seeds)
    base = experiment_of(config.experiment, config.settings, str(folder / STUDY_FILE))
    asked = names or config.questions
    questions = gather(
        lambda name: _question(folder, name, config, base),
        [name for name in config.questions if name in asked],
    )
    return Study(folder, config.experiment, base, seeds, questions, config.score)


def _question(folder: Path, name: str, study: StudyConfig, base: Experiment) -> Question:
    """Read the file of a question. Raises ConfigError with a line for each value that is wrong."""
    path = folder / f"{name}.yaml"
    config = read_file(path, QuestionConfig)
    if bool(config.change and config.values) == bool(config.variants):
        raise ConfigError(f"{path} must have either change and values, or variants")
    changed = config.variants or {label(value): {config.change: value} for value in config.values}
    if wrong := [value for value in changed if not isinstance(changed[value], dict)]:
        raise ConfigError(f"{path}: {wrong[0]} must be a group of settings (setting: value)")
    settings = study.settings | config.base
    experiments = gather(
        lambda value: experiment_of(
            study.experiment, settings | changed[value], f"{path}: {value}"
        ),
        changed,
    )
    different = len({config_hash(experiment) for experiment in experiments})
    if different < max(len(experiments), len(config.values)):
        raise ConfigError(f"{path} has two values that make the same run")
    question = Question(name, config, dict(zip(changed, experiments, strict=True)))
    judged = [label(value) for value in (*config.better, *config.worse)]
    others = [value for value in changed if value != question.reference(base)]
    if wrong := [value for value in judged if value not in others or judged.count(value) > 1]:
        known = ", ".join(others)
        raise ConfigError(
            f"{path}: better and worse name each of {known} once at most, not {wrong[0]}"
        )
    return question
