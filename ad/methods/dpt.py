r"""The decision-pretrained transformer (Lee et al. 2023, arXiv 2306.14892): optimal actions.

A model that predicts the optimal action at a state from transitions of an unknown task imitates
posterior sampling: its probability of an action is that of the action being optimal given the
context (section 5 of the paper). With a* for the optimal action at an observation, the loss is

```math
L = -\operatorname{mean}_t \log \pi(a^*_t \mid o_0, a_0, r_0, \dots, o_{t-1}, a_{t-1}, r_{t-1}, o_t)
```

An action takes one forward pass. The training differs from Algorithm 1 of the paper:

- A window has a target at every decision, whose state is that of the decision. In the paper a
  window has one query state, which is drawn on its own, and a target after each transition.
- With `contexts: ordered` a context is a part of a learning history in its order, and its last
  transition leads to the state of the decision, unless an episode begins. With `contexts: shuffled`
  the transitions of a window are in random order, so that a context is a set, as in the paper, and
  the state of a decision has nothing to do with the transition before it.

In the dark rooms of the paper an episode has 100 steps. Where it is short, an action that is drawn
anew at each step explores slowly: the source `posterior_sampling` with `every_step` plays so,
exactly, with the memory of a whole life.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ad.config.fields import field
from ad.errors import SettingError
from ad.methods import algorithm_distillation
from ad.methods.base import Method
from ad.methods.losses import accuracy, cross_entropy
from ad.registry import MEMORIES

if TYPE_CHECKING:
    from ad.data.sampler import Batch, Windows


@dataclass(frozen=True)
class Settings(algorithm_distillation.Settings):
    """Settings of the decision-pretrained transformer."""

    contexts: str = field("ordered", choices=("ordered", "shuffled"))
    """order of the transitions in a training window: as in the history, or random"""


@dataclass(frozen=True)
class PolicySettings:
    """Settings of the policy of the decision-pretrained transformer.

    With `step` a decision reads all transitions before it. With `episode` it reads those of the
    episodes before the present one, as in the paper's online deployment (Algorithm 1), which fits
    models that were trained on shuffled contexts. `evaluation.action` is how actions are chosen;
    in the paper they are sampled at every step.
    """

    context_update: str = field("step", choices=("step", "episode"))
    """when transitions enter the context: after each step, or at the end of their episode"""


class DecisionPretrainedTransformer(algorithm_distillation.AlgorithmDistillation):
    """Cross entropy of the optimal actions at every decision of a window.

    Only for worlds that know their optimal actions by the observation.
    """

    Settings, PolicySettings = Settings, PolicySettings
    fields: ClassVar[tuple[str, ...]] = (*Method.fields, "optimal_action")

    @property
    def reads_segments(self):
        """Whether the transitions of its windows are in the order of a history."""
        return self.settings.contexts == "ordered"

    def check(self, config, world):
        """Raise SettingError if past episodes are less than what the model was trained to read."""
        super().check(config, world)
        reads_more = config.training.segments > 1 or MEMORIES.load(config.model.memory).retrieved
        if config.evaluation.policy.get("context_update") == "episode" and reads_more:
            text = "must be step where training.segments is above 1 or model.memory is retrieval"
            raise SettingError("evaluation.policy.context_update", text)

    def sampler(self, dataset, held_out=False):
        """Return the sampler of training batches, with transitions in the configured order."""
        windows = super().sampler(dataset, held_out)
        return ShuffledWindows(windows) if self.settings.contexts == "shuffled" else windows

    def loss(self, model, batch):
        """Return the mean cross entropy (nats), and the accuracy of the most likely actions."""
        logits = self.logits(model, batch)
        targets = batch | {"action": batch["optimal_action"]}
        loss = cross_entropy(logits, targets, self.label_smoothing)
        return loss, {"accuracy": accuracy(logits, targets)}

    def policy(self, model, num_envs, context_length, settings):
        """Return the policy of a rollout, whose context grows after each step or each episode."""
        if settings.context_update == "step":
            return super().policy(model, num_envs, context_length, settings)
        from ad.methods.context_policy import ContextPolicy
        from ad.methods.contexts import PastEpisodes

        return ContextPolicy(model, PastEpisodes(model, num_envs, context_length))


class ShuffledWindows:
    """A sampler whose windows hold their transitions in random order.

    The transition before a window, its entry 0, stays where it is. `step` numbers the places.
    """

    def __init__(self, windows: "Windows"):
        self.windows = windows

    def sample(self, rng: np.random.Generator, count: int) -> "Batch":
        """Draw `count` windows."""
        batch = self.windows.sample(rng, count)
        valid = batch["valid"][:, 1:]
        place = rng.random(valid.shape)
        order = np.where(valid, place, 1 + place).argsort(1)  # what is not valid stays behind
        order = np.pad(order + 1, ((0, 0), (1, 0)))
        rows = np.arange(count)[:, None]
        kept = {name: batch.pop(name) for name in ("step", "valid")}
        return {name: values[rows, order] for name, values in batch.items()} | kept
