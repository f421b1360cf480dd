"""The interface of methods: what is learned from windows of histories, and how it acts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

import numpy as np

from ad.data.derived import DERIVED, Derive, knows_optimal_actions
from ad.data.schema import STORED
from ad.errors import SettingError
from ad.registry import TOKENIZERS
from envs.oracle import TaskOracle

if TYPE_CHECKING:  # torch is imported where it is used: a configuration needs only the class
    import torch

    from ad.config.schema import Experiment, ModelConfig
    from ad.data.dataset import TrainingSet
    from ad.data.sampler import Windows
    from ad.data.spec import Spec
    from ad.methods.contexts import Context
    from ad.models.sequence_model import SequenceModel


class Learner(Protocol):
    """A learner that a method brings: it takes the train steps, driven by `ad.training.learner`.

    A train step depends on the seed and its number, not on the process that takes it.
    `model` is what the method's `build` returns. `learning_rate` is that of the last train step.
    `state` holds tensors and plain types.
    """

    model: "SequenceModel"
    learning_rate: float

    def train_step(self, step: int) -> dict[str, float]:
        """Take train step number `step`, from 0, and return numbers for the log by name.

        `trial_return`, the mean return of the trials, is among them. Raises NumericError if the
        model is not finite any more.
        """

    def state(self) -> dict:
        """Return the state between two train steps, without the model's."""

    def load_state(self, state: dict) -> None:
        """Set the state to one returned by `state`."""


# The model of a method, as a text: torch is not imported here.
Model = TypeVar("Model", bound="SequenceModel")


class Method(Generic[Model]):
    """A method with the default of every member but `loss`; built as `Method(settings)`.

    `fields` are the fields of its windows: fields of a transition, fields in
    `ad.data.derived.DERIVED` (return_to_go, optimal_action), and fields that `derived` computes.
    `action_mask` is among them wherever tasks have different numbers of actions. `history_part`
    holds the fractions of a history between which its windows lie, and `best_fraction` that of a
    task's episodes, by their return, which they show. `within_episodes` says whether a context ends
    with its episode, in windows and (`ad.methods.contexts`) in rollouts.
    """

    @dataclass(frozen=True)
    class Settings:
        """This method has no settings of its own."""

    @dataclass(frozen=True)
    class PolicySettings:
        """The policy of this method has no settings."""

    fields: ClassVar[tuple[str, ...]] = (
        *("observation", "action", "reward", "next_observation", "time"),
    )
    derived: ClassVar[Mapping[str, Derive]] = {}
    history_part = (0.0, 1.0)
    best_fraction = 1.0
    within_episodes = False
    # Whether a model with an encoder for any size is one for any size of observations.
    any_size: ClassVar[bool] = True
    # Whether it learns from histories; one that does not brings a learner.
    reads_histories: ClassVar[bool] = True
    # Whether it trains a model; one that does not is played by `ad.evaluation.source_play`.
    has_model: ClassVar[bool] = True

    def __init__(self, settings):
        self.settings = settings

    def check(self, config: "Experiment", world: TaskOracle) -> None:
        """Raise SettingError if this method cannot learn as `config` says.

        It is called before anything runs. `world` is the base environment of `config.env`, which is
        not stepped.
        """
        if type(self).loss is Method.loss and type(self).learner is Method.learner:
            raise SettingError("method.name", f"cannot be {config.method.name}: it has no loss")
        if unknown := [f for f in self.fields if f not in {*STORED, *DERIVED, *self.derived}]:
            raise unfit(config, f"it reads the field {unknown[0]}, which nothing computes")
        if "optimal_action" in self.fields and not knows_optimal_actions(world):
            raise unfit(
                config, "it needs a world that knows its optimal actions by the observation"
            )

    @property
    def shows_rewards(self) -> bool:
        """Whether the context of a rollout holds the rewards of past episodes."""
        return not self.within_episodes

    @property
    def reads_segments(self) -> bool:
        """Whether its model may read a history in segments, with a state carried between them."""
        return not self.within_episodes

    def train_steps(self, config: "Experiment") -> int:
        """Return the number of train steps of a whole training."""
        return config.training.steps

    def transitions(self, config: "Experiment") -> int:
        """Return the number of transitions of the train tasks' whole histories."""
        return config.source.env_steps * config.split.num_train_tasks

    def build(self, spec: "Spec", config: "ModelConfig") -> "SequenceModel":
        """Return a new model: a SequenceModel, or a subclass with further heads on `hidden`.

        Its argument `inputs` maps further fields to vectors, e.g. {"return_to_go":
        nn.Linear(1, width)}; the policy then gives their values in `inputs()`. Parameters that do
        not require a gradient are not trained; `after_step` may change them.
        """
        from ad.models.sequence_model import SequenceModel

        return SequenceModel(spec, config)

    def sampler(self, dataset: "TrainingSet", held_out: bool = False) -> "Windows":
        """Return the sampler of training batches, or of batches of held-out actors.

        It has `sample(rng, count)`, which returns a dict of arrays [count, T + 1, ...], among them
        `valid`, bool [count, T + 1] (`ad.data.sampler.WindowSampler`).
        """
        return dataset.sampler(
            self.fields,
            held_out,
            self.history_part,
            self.derived,
            self.best_fraction,
            self.within_episodes,
        )

    def learner(self, config: "Experiment", tasks: np.ndarray) -> "Learner | None":
        """Return what takes the train steps, as it is before the first one.

        None: the trainer does, with `sampler`, `loss` and `after_step`. A method with a learner of
        its own reads no histories (`reads_histories`) and learns in the worlds of the train
        `tasks`, int [K, ...]. `train_steps` says for how many train steps, `training.steps` is not
        used; what the learner draws is derived from `training.train_seed`.
        """
        return None

    def loss(
        self, model: Model, batch: dict[str, "torch.Tensor"]
    ) -> tuple["torch.Tensor", dict[str, "torch.Tensor"]]:
        """Return the loss of a batch, 0-d, and metrics for the log by name, 0-d each.

        All of them are means over the decisions `ad.methods.losses.loss_mask(batch)`: decision t
        is at `model(batch)[:, t]` and its action at `batch["action"][:, t + 1]`. The logits also
        have actions that a task lacks; `batch["action_mask"]`, if there, marks those that it has.
        """
        raise NotImplementedError

    def after_step(self, model: Model, metrics: dict[str, "torch.Tensor"]) -> None:
        """Do what follows an optimizer step, without gradients, e.g. move a target network.

        `metrics` are the loss and the metrics of the whole batch, 0-d each. They can be NaN or
        infinite, in which case the optimizer changed nothing.
        """

    def policy(self, model: Model, num_envs: int, context_length: int, settings):
        """Return the policy of a rollout of `num_envs` environments (`ad.methods.policy.Policy`).

        `settings` are the method's `PolicySettings`, which `evaluation.policy` sets. A model with
        further inputs needs a subclass of ContextPolicy with `inputs()`.
        """
        from ad.methods.context_policy import ContextPolicy

        return ContextPolicy(model, self.context(model, num_envs, context_length))

    def context(self, model: Model, num_envs: int, context_length: int) -> "Context":
        """Return the context of a rollout, which ends with each episode if `within_episodes`."""
        from ad.methods.contexts import PresentEpisode, SlidingWindow

        kind = PresentEpisode if self.within_episodes else SlidingWindow
        return kind(model, num_envs, context_length)


def check_outcomes(config: "Experiment") -> None:
    """Raise SettingError if the tokens tell nothing of what actions led to."""
    if not TOKENIZERS.load(config.model.tokenizer).has_outcomes:
        text = f"must not be {config.model.tokenizer}: {config.method.name} reads rewards"
        raise SettingError("model.tokenizer", text)


def unfit(config: "Experiment", reason: str) -> SettingError:
    """Return the error of a method that cannot learn in the world of `config`."""
    text = f"cannot be {config.method.name} with {config.env.id}: {reason}"
    return SettingError("method.name", text)
