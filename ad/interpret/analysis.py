"""The interface of an analysis, and the model that it looks at."""

import itertools
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from ad.data.dataset import TrainingSet
from ad.data.episodes import ratio
from ad.data.histories import HistoryStore
from ad.data.load import load_training_set
from ad.errors import ConfigError
from ad.evaluation.evaluate import load_model
from ad.evaluation.metrics import bootstrap, json_number
from ad.evaluation.scores import UNKNOWN, Estimate
from ad.interpret.contexts import (
    RETURN_TO_GO,
    ChangePolicy,
    Contexts,
    Environments,
    asked_returns,
    environments,
    history_contexts,
    rollout_contexts,
)
from ad.interpret.directions import parse_direction
from ad.interpret.labeled import Axes, Results, with_interval
from ad.methods import build_method
from ad.methods.base import Method
from ad.methods.policy import Policy
from ad.models.memories.blocks import Blocks
from ad.models.memories.transformer import Transformer
from ad.models.sequence_model import SequenceModel
from ad.models.tokenizer import Tokenizer
from ad.reporting.page import Table
from ad.rollout.rollout import Rollout
from ad.rollout.tasks import policy_of
from ad.runtime.run import Run

SOURCES = ROLLOUT, HISTORIES, MADE = "rollout", "histories", "made"  # of contexts
MADE_CONTEXTS = 256  # for each asked return
MEASURES = ["divergence (nats)", "another best action"]  # of `compared`
HISTORY_WINDOWS = 512  # contexts from the histories


@dataclass(frozen=True)
class Choice:
    """The choice of what an analysis of a run looks at.

    step: train step of the checkpoint; None for the last one.
    source: where contexts come from, one of SOURCES.
    situation: of the decisions that are looked at; empty for all.
    asked: returns that rollouts ask for; empty for `asked_returns`.
    direction: of the outputs; empty for the best action against the second.
    components: what an ablation removes; empty for each head and each MLP.
    bank: the file of a bank of situations; empty for one of the model's own.
    """

    step: int | None = None
    source: str = ROLLOUT
    situation: str = ""
    asked: tuple[float, ...] = ()
    direction: str = ""
    components: tuple[str, ...] = ()
    bank: str = ""


DEFAULT_CHOICE = Choice()


def refuse_change(run: Run) -> None:
    """Raise ConfigError for a run whose tasks change."""
    if run.config.env.change:
        raise ConfigError("a model that was trained on tasks that change has no analyses yet")


@dataclass(frozen=True)
class Subject:
    """A trained model, frozen, with its run, its method, and what is looked at."""

    run: Run
    method: Method
    model: SequenceModel
    choice: Choice = DEFAULT_CHOICE

    @classmethod
    def load(cls, run: Run, choice: Choice = DEFAULT_CHOICE) -> "Subject":
        """Load the checkpoint of `run` that is chosen.

        It is on the CPU, where the arrays are made. Raises ConfigError for a model that is no
        sequence model and for tasks that change, and the errors of `load_model`.
        """
        refuse_change(run)
        method, model = build_method(run.config.method), load_model(run, step=choice.step).cpu()
        if not isinstance(model, SequenceModel):
            raise ConfigError(
                f"{run.config.method.name} trains no sequence model, which the analyses look inside"
            )
        return cls(run, method, model, choice)

    @property
    def policy(self) -> Policy:
        """The policy of the evaluation for one environment, without the temperatures around it."""
        policy = policy_of(self.run.config, self.method, self.model)(1)
        return getattr(policy, "policy", policy)

    @property
    def folder(self) -> Path:
        """The folder of the arrays: that of the run's analyses, or one in it for each choice."""
        own = self.choice
        asked = f"asked {' '.join(f'{value:g}' for value in own.asked)}" if own.asked else ""
        words = [word for word in (own.situation, asked, own.direction) if word]
        return self.run.folder / "inspect" / re.sub(r"[^\w.,+-]+", "_", ",".join(words))

    def check_choice(self) -> None:
        """Raise ConfigError unless the model has the situation, asked returns and direction."""
        own = self.choice
        if own.asked and RETURN_TO_GO not in self.model.tokenizer.inputs:
            raise ConfigError(
                "--asked is for models that read a return to go, and this one does not"
            )
        if own.asked and own.source == HISTORIES:
            raise ConfigError("--asked is for rollouts: leave out --contexts histories")
        if own.source == MADE and not own.situation:
            raise ConfigError("--contexts made is for a situation: add --situation")
        _ = self.output_direction
        if own.situation:
            _ = self.contexts

    @property
    def asked(self) -> list[float]:
        """The returns that rollouts ask for, none of a model that reads no return to go."""
        if RETURN_TO_GO not in self.model.tokenizer.inputs:
            return []
        return list(self.choice.asked) or asked_returns(self.run.config, self.model.spec)

    @property
    def output_direction(self) -> torch.Tensor | None:
        """The chosen direction of the outputs, float32 [A]; None for best against second.

        Raises ConfigError for actions that the world lacks.
        """
        if not self.choice.direction:
            return None
        names, bias = self.run.world.action_names, self.model.head.bias
        return parse_direction(self.choice.direction, names, len(bias)).to(bias.device)

    @cached_property
    def contexts(self) -> Contexts:
        """The windows of a rollout on the held-out tasks, windows of the histories, or made ones.

        Decisions outside the situation are not decided. Raises ConfigError if it never occurs.
        """
        if self.choice.source == MADE:
            from ad.interpret.situations import made_contexts

            return made_contexts(self, self.choice.situation, self.asked or None, MADE_CONTEXTS)
        return self._in_situation(self.all_contexts)

    @cached_property
    def all_contexts(self) -> Contexts:
        """The windows of a rollout, or of the histories, with the decisions in all situations.

        They say what a component does on average, and replace its outputs in an ablation: means
        over a single situation would keep what the component does there.
        """
        if self.choice.source == HISTORIES:
            return history_contexts(self.dataset, self.method, self.model, HISTORY_WINDOWS)
        return self.rollout(self.run.split.held_out_tasks)

    @cached_property
    def train_contexts(self) -> Contexts:
        """The windows of a rollout on the train tasks."""
        return self._in_situation(self.rollout(self.run.split.train_tasks))

    def environments(self, tasks: np.ndarray, first_seed: int = 0) -> Environments:
        """Return the environments of a rollout on `tasks`, with the returns that are asked for."""
        config, episodes = self.run.config, self.run.config.evaluation.episodes
        return environments(config, self.method, tasks, episodes, self.asked, first_seed)

    def rollout(self, tasks: np.ndarray) -> Contexts:
        """Return the windows of a rollout on `tasks`."""
        played = self.environments(tasks)
        return rollout_contexts(self.run.config, self.method, self.model, played)

    def play(self, played: Environments, change: ChangePolicy, length: int = 0) -> Rollout:
        """Return the rollout in the environments `played` with the policy changed by `change`.

        length: of the contexts, in transitions; 0 for that of the experiment.
        """
        data = replace(self.run.config.data, **({"context_length": length} if length else {}))
        return played.play(replace(self.run.config, data=data), self.method, self.model, change)

    def _in_situation(self, contexts: Contexts) -> Contexts:
        if not (name := self.choice.situation):
            return contexts
        from ad.interpret.situations import in_situation

        mask = in_situation(self.run.world, contexts, name)
        if not (contexts.decided & mask).any():
            raise ConfigError(f"the situation {name!r} does not occur in the contexts")
        return contexts.where(mask)

    @cached_property
    def dataset(self) -> TrainingSet:
        """The learning histories. Raises ConfigError if a train task has none."""
        return load_training_set(self.run)

    @property
    def heads(self) -> list[str]:
        """The names of all heads, "layer.head" from 0; none if the memory is no transformer."""
        memory = self.model.memory
        if not isinstance(memory, Transformer):
            return []
        layers, heads = len(memory.blocks), memory.heads
        return [f"{layer}.{head}" for layer in range(layers) for head in range(heads)]

    @property
    def components(self) -> list[str]:
        """The names of all heads and MLPs."""
        return [*self.heads, *(f"mlp {n}" for n in range(len(self.model.transformer.blocks)))]


class Analysis:
    """An analysis of a trained model: a subclass for each, named in `ad.registry.ANALYSES`.

    It is built without arguments; the first line of its docstring is its title. The flags say what
    it reads of a Subject: the attention of a transformer, the contexts, the outputs of all actions,
    the learning histories, and the components and the bank of its choice. `sources` are those of
    the contexts that it can read. `arrays` has the axes of every array that it may return but
    intervals, by name; it is empty if they depend on the model.
    """

    reads_attention: ClassVar[bool] = True
    reads_contexts: ClassVar[bool] = True
    reads_outputs: ClassVar[bool] = False
    reads_histories: ClassVar[bool] = False
    reads_components: ClassVar[bool] = False
    reads_bank: ClassVar[bool] = False
    sources: ClassVar[Sequence[str]] = SOURCES
    arrays: ClassVar[Axes] = {}

    @classmethod
    def check(cls, subject: Subject) -> None:
        """Raise ConfigError with the reason if the subject cannot be analyzed.

        The reason is a sentence about the model, its run or its contexts.
        """
        check_model(subject.model, cls.reads_attention)
        run, source = subject.run, subject.choice.source
        sources = (ROLLOUT,) if subject.model.carries else cls.sources
        if source not in sources:
            raise ConfigError(f"it reads contexts of rollouts: leave out --contexts {source}")
        needs_histories = cls.reads_histories and subject.method.reads_histories
        if needs_histories and HistoryStore(run.config).folders(run.split.train_tasks) is None:
            raise ConfigError("the learning histories are missing: run `ad collect` first")
        if cls.reads_outputs and subject.model.spec.num_actions < 2:
            raise ConfigError(
                "the world has a single action, so that nothing can be preferred: choose one with "
                "several by env.id"
            )
        mask = run.world.action_mask(run.world.all_tasks()) if cls.reads_outputs else None
        if mask is not None and not mask.all():
            raise ConfigError(
                "some tasks of the world have fewer actions than others: train on tasks with the "
                "same actions (env.tasks, env.kwargs), or run static, weights and circuits"
            )
        if cls.reads_contexts and source == ROLLOUT and not run.world.can_be_stepped:
            raise ConfigError("the world cannot be stepped: use --contexts histories")

    @abstractmethod
    def run(self, subject: Subject) -> Results:
        """Return the arrays of the analysis by name."""
        raise NotImplementedError

    @abstractmethod
    def table(self, results: Results) -> Table:
        """Return a table that sums the arrays up."""
        raise NotImplementedError


def check_model(model: SequenceModel, reads_attention: bool = True) -> None:
    """Raise ConfigError if no analysis can look inside `model`, or none that reads attention."""
    if model.carries and reads_attention:
        raise ConfigError(
            "it looks at the attention in a window, and a model that was trained with "
            "training.segments above 1 decides by a state of what came before it"
        )
    memory = model.transformer if reads_attention else model.memory
    if not isinstance(memory, Blocks):
        raise ConfigError(f"the memory of the model is a {type(memory).__name__}, without points")
    if not memory.blocks:
        raise ConfigError("the model has no block")
    if type(model.tokenizer).entries is Tokenizer.entries:
        raise ConfigError("the tokenizer has no entries(), which names the entries of its tokens")


def over_groups(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over K groups of `values` [K, ...] without NaN, and its 95 % interval.

    Groups are tasks, rollouts or episodes (`Contexts.unit`). The interval [2, ...] is a bootstrap
    over them, NaN where fewer than two have a value.
    """
    finite = np.isfinite(values)
    mean = ratio(np.where(finite, values, 0.0).sum(0), finite.sum(0))
    return mean, np.where(finite.sum(0) > 1, np.stack(bootstrap(values)), np.nan)


def estimated(
    name: str, values: np.ndarray, axes: Mapping[str, Sequence], about: str, unit: str = "task"
) -> Results:
    """Return the mean over K groups of `values` [K, ...] and its interval as labeled arrays.

    `unit` says what the groups are.
    """
    mean, interval = over_groups(values)
    return with_interval(name, mean, interval, axes, f"{about}: mean over {unit}s", unit)


def compared(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Return how far logits `after` [..., A] are from `before`, float64 [..., 2], as MEASURES say.

    They are the KL divergence of the action probabilities, and whether the best action differs.
    """
    log_p, log_q = (logits.double().log_softmax(-1) for logits in (before, after))
    divergence = (log_p.exp() * (log_p - log_q)).sum(-1)
    return torch.stack([divergence, (before.argmax(-1) != after.argmax(-1)).double()], -1)


def texts(values: Iterable[float], style: str) -> list[str]:
    """Format each of `values`, UNKNOWN if it is NaN."""
    return [UNKNOWN if np.isnan(value) else f"{value:{style}}" for value in values]


def estimate_text(value: float, low: float, high: float, style: str) -> str:
    """Format `value` with its interval; without it if the interval is NaN."""
    ends = (None, None) if np.isnan(low) else (low, high)
    return Estimate(json_number(value), *ends).text(style)


def rows_of(
    results: Results, *columns: tuple[str, str], intervals: Sequence[str] = ()
) -> list[list[str]]:
    """Return a row for each label of the first axis of the first column's array.

    A column is the name of an array with such labels first and the format of its numbers, which
    come with their intervals in the arrays of `intervals`. A label that an array lacks is UNKNOWN.
    """
    rows = {label: [str(label)] for label in next(iter(results[columns[0][0]].axes.values()))}
    for (name, style), label in itertools.product(columns, rows):
        axis, labels = next(iter(results[name].axes.items()))
        if label not in labels:
            rows[label] += [UNKNOWN] * results[name].values[0].size
            continue
        names = [name, f"{name}_interval"] if name in intervals else [name]
        values, *bounds = (results[n].at(**{axis: label}) for n in names)
        if bounds:
            numbers = zip(np.ravel(values), *bounds[0].reshape(2, -1), strict=True)
            rows[label] += [estimate_text(*each, style) for each in numbers]
        else:
            rows[label] += texts(np.ravel(values), style)
    return list(rows.values())


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation over finite pairs, NaN for fewer than three or constant ones."""
    finite = np.isfinite(a) & np.isfinite(b)
    if finite.sum() < 3 or np.ptp(a[finite]) < 1e-9 or np.ptp(b[finite]) < 1e-9:
        return np.nan
    return float(np.corrcoef(a[finite], b[finite])[0, 1])
