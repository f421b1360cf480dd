r"""The decision transformer (Chen et al. 2021, section 3): actions given the return that follows.

The loss is the mean over decisions t, whose episode begins at s and ends at e:

```math
L = -\operatorname{mean}_t \log \pi(a_t \mid R_s, o_s, a_s, \dots, R_t, o_t)

R_t = \sum_{k=t}^{e} r_k
```

The return to go R of a decision is what is left of its episode's return, computed on whole
histories before windows are cut. A rollout begins each episode with a target return and counts down
the rewards. An action takes one forward pass. The paper's tokens are
`model.tokenizer: conditioned`, its embedding of time is `model.position: env_time`. With another
tokenizer the return to go is added to the observation.

The paper's context ends with its episode. With `across_episodes` it spans episodes, so that their
returns to go encode what they achieved, and the task can be inferred in context. Conditioned tokens
do not show the last observation of a past episode, e.g. the goal's cell; other tokens do. On tuning
tasks (one run of 600 train steps each, fused tokens, histories of Q-learning) it has NAUC 0.90 in
dark rooms whose goal ends the episode, at a temperature of 0.5, and at most 0.10 in dense rooms,
whichever single return is asked: it never read a large return to go before a goal was found.
"""

from dataclasses import dataclass, replace
from typing import Optional

from ad.config.fields import field
from ad.methods import behavior_cloning
from ad.methods.base import Method


@dataclass(frozen=True)
class Settings(behavior_cloning.Settings):
    """Settings of the decision transformer."""

    across_episodes: bool = field(False, added=True)
    """whether the context of a decision transformer spans episodes"""


@dataclass(frozen=True)
class PolicySettings:
    """Settings of the policy of the decision transformer."""

    asked_return: Optional[float] = field(None, at_least=-1e9, at_most=1e9)  # noqa: UP045
    """return that each episode is conditioned on; null: the mean over train tasks of the return
    that a tenth of a task's episodes reach"""


class DecisionTransformer(behavior_cloning.BehaviorCloning):
    """Cross entropy of the actions of an episode given the return to go at each decision.

    The model reads no other rewards.
    """

    Settings, PolicySettings = Settings, PolicySettings
    fields = (*Method.fields, "return_to_go")

    def __init__(self, settings):
        super().__init__(settings)
        self.within_episodes = not getattr(settings, "across_episodes", False)

    @property
    def reads_segments(self):
        """Return False: what was read of an episode changes when it ends below its target."""
        return False

    def build(self, spec, config):
        """Return a model that reads the return to go, and no rewards."""
        from ad.models.rewards import ReturnToGo
        from ad.models.sequence_model import SequenceModel

        inputs = {"return_to_go": ReturnToGo(spec, config.width)}
        return SequenceModel(spec, replace(config, reward="none"), inputs)

    def policy(self, model, num_envs, context_length, settings):
        """Return a policy that is conditioned on `settings.asked_return` in each episode.

        It is a number or one for each environment; None is the `reached_return` of the histories.
        """
        from ad.methods.context_policy import ReturnConditionedPolicy

        context = self.context(model, num_envs, context_length)
        return ReturnConditionedPolicy(model, context, settings.asked_return)
