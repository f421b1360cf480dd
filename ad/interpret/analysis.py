"""The interface of an analysis, and the model that it looks at."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from ad.data.dataset import TrainingSet
from ad.data.load import load_dataset
from ad.errors import ConfigError
from ad.evaluation.evaluate import load_model
from ad.evaluation.metrics import bootstrap, json_number
from ad.interpret.contexts import Contexts, history_contexts, rollout_contexts
from ad.interpret.hooks import model_problem
from ad.interpret.labeled import Axes, Results
from ad.methods import build_method
from ad.methods.asked_policy import AskedContextPolicy
from ad.methods.base import Method
from ad.methods.committed_policy import CommittedPolicy
from ad.methods.online import OnlineMethod
from ad.models.sequence_model import SequenceModel
from ad.reporting.tables import UNKNOWN, Table, interval
from ad.rollout.rollout import Policy
from ad.rollout.tasks import policy_of
from ad.runtime.run import Run

SOURCES = ("rollout", "histories")  # of contexts
HISTORY_WINDOWS = 512  # contexts from the histories


@dataclass(frozen=True)
class Subject:
    """A trained model, frozen, with its run and its method."""

    run: Run
    method: Method
    model: SequenceModel
    components: tuple[str, ...] = ()  # names of what an ablation removes; empty for its default
    source: str = "rollout"  # of the contexts: one of SOURCES
    step: int | None = None  # train step of the checkpoint; None for the last one

    @classmethod
    def load(
        cls,
        run: Run,
        components: Sequence[str] = (),
        source: str = "rollout",
        step: int | None = None,
    ) -> "Subject":
        """Load the trained model of `run`, or that of its checkpoint of train step `step`.

        Raises ConfigError for an online method, whose model is no transformer, and what
        `load_model` does.
        """
        method = build_method(run.config.method)
        if isinstance(method, OnlineMethod):
            raise ConfigError(
                f"{run.config.method.name} trains no transformer, which the analyses look inside"
            )
        return cls(run, method, load_model(run, step=step), tuple(components), source, step)

    @property
    def policy(self) -> Policy:
        """A policy of the evaluation for one environment, without temperatures around it."""
        policy = policy_of(self.run.config, self.method, self.model)(1)
        return getattr(policy, "policy", policy)

    @cached_property
    def contexts(self) -> Contexts:
        """The windows of a rollout on the held-out tasks, or windows of the histories.

        The rollout is that of the first evaluation seed.
        """
        if self.source == "histories":
            return history_contexts(self.dataset, self.method, self.model, HISTORY_WINDOWS)
        return self._rolled_out(self.run.split.held_out_tasks)

    @cached_property
    def train_contexts(self) -> Contexts:
        """The windows of a rollout on the train tasks."""
        return self._rolled_out(self.run.split.train_tasks)

    def _rolled_out(self, tasks: np.ndarray) -> Contexts:
        config = self.run.config
        return rollout_contexts(config, self.method, self.model, tasks, config.evaluation.episodes)

    @cached_property
    def dataset(self) -> TrainingSet:
        """The learning histories. Raises ConfigError if a train task has none."""
        return load_dataset(self.run)

    @property
    def heads(self) -> list[str]:
        """The names of all heads, "layer.head" from 0."""
        transformer = self.model.transformer
        layers, heads = len(transformer.blocks), transformer.heads
        return [f"{layer}.{head}" for layer in range(layers) for head in range(heads)]


class Analysis:
    """An analysis of a trained model: a subclass for each, named in `ad.registry.ANALYSES`.

    It is built without arguments; its first line of documentation is its title. `reads_contexts`,
    `reads_outputs` and `reads_components` say whether it looks at contexts, at all outputs of the
    head, and at the components of a Subject. `arrays` has the axes of every array that it may have,
    by name; it is empty if they depend on the model.
    """

    reads_contexts: ClassVar[bool] = True
    reads_outputs: ClassVar[bool] = False
    reads_components: ClassVar[bool] = False
    arrays: ClassVar[Axes] = {}

    @classmethod
    def problem(cls, subject: Subject) -> str | None:
        """Return why the model does not have this analysis, None if it does.

        It is the rest of a sentence about the analysis.
        """
        if problem := model_problem(subject.model):
            return problem
        if cls.reads_outputs and _lacks_actions(subject):
            return "needs a world whose tasks have the same number of actions"
        if cls.reads_contexts and subject.source == "rollout":
            return _rollout_problem(subject)
        return None

    @abstractmethod
    def run(self, subject: Subject) -> Results:
        """Return the arrays of the analysis by name."""
        raise NotImplementedError

    @abstractmethod
    def table(self, results: Results) -> Table:
        """Return what the arrays say in short."""
        raise NotImplementedError


def _lacks_actions(subject: Subject) -> bool:
    """Return whether some tasks of the world lack actions of others."""
    world = subject.run.world
    mask = world.action_mask(world.all_tasks())
    return mask is not None and not mask.all()


def _rollout_problem(subject: Subject) -> str | None:
    """Return why no windows of what the policy reads can be cut from rollouts, None if they can."""
    if not subject.run.world.can_be_stepped:
        return "cannot cut contexts from rollouts in a world that cannot be stepped"
    policy = subject.policy
    if isinstance(policy, AskedContextPolicy):
        changed = "writes the returns of past episodes into its context when they end"
    elif isinstance(policy, CommittedPolicy):
        changed = "does not read the present episode"
    else:
        return None
    return f"cannot cut contexts from rollouts of a policy that {changed}"


def over_tasks(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean over tasks of `values` [K, ...] without NaN, and its 95 % interval [2, ...].

    The interval is that of a bootstrap over tasks, NaN where fewer than two tasks are known.
    """
    finite = np.isfinite(values)
    total = np.where(finite, values, 0.0).sum(0)
    mean = np.divide(total, finite.sum(0), out=np.full(total.shape, np.nan), where=finite.any(0))
    return mean, np.where(finite.sum(0) > 1, np.stack(bootstrap(values)), np.nan)


def interval_text(low: float, high: float, style: str) -> str:
    """Format the interval from `low` to `high`, UNKNOWN if they are NaN."""
    return UNKNOWN if np.isnan(low) else f"[{low:{style}}, {high:{style}}]"


def estimate_text(value: float, low: float, high: float, style: str) -> str:
    """Format `value` with its interval, UNKNOWN if it is NaN, and alone if the interval is."""
    return interval(json_number(value), None if np.isnan(low) else (low, high), style)
