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

The paper's context ends with its episode, and the model reads no rewards. With `across_episodes`
the context spans episodes, whose returns to go are what they achieved, so that the task can be
inferred in context. The model then reads rewards, too, as the multi-game decision transformer does
(Lee et al. 2022, arXiv 2205.15241). Conditioned tokens show neither rewards nor the last
observation of a past episode, e.g. the goal's cell; others do. Few episodes of a learner have a
large return before it has found a reward, so a model that is asked for one has few examples of how
to explore: `asked_before_reward` asks for another return until then.
"""

from dataclasses import dataclass, replace
from typing import Optional

from ad.config.fields import field
from ad.errors import ConfigError, SettingError
from ad.methods import behavior_cloning
from ad.methods.base import Method


@dataclass(frozen=True)
class Settings(behavior_cloning.Settings):
    """Settings of the decision transformer."""

    across_episodes: bool = field(False, added=True)
    """whether the context spans episodes; the model then reads rewards, as `model.reward` says"""


@dataclass(frozen=True)
class PolicySettings:
    """Settings of the policy of the decision transformer."""

    asked_return: Optional[float] = field(None, at_least=-1e9, at_most=1e9)  # noqa: UP045
    """return that each episode is conditioned on; null: the mean over train tasks of the return
    that a tenth of a task's episodes reach"""
    asked_before_reward: Optional[float] = field(None, added=True, at_least=-1e9, at_most=1e9)  # noqa: UP045
    """return that an episode is conditioned on if no reward above 0 is in the context as it begins,
    for `across_episodes`; null: `asked_return`"""


class DecisionTransformer(behavior_cloning.BehaviorCloning):
    """Cross entropy of the actions given the return to go at each decision."""

    Settings, PolicySettings = Settings, PolicySettings
    fields = (*Method.fields, "return_to_go")

    def __init__(self, settings):
        super().__init__(settings)
        self.within_episodes = not getattr(settings, "across_episodes", False)

    @property
    def reads_segments(self):
        """Return False: what was read of an episode changes when it ends below its target."""
        return False

    def check(self, config, world):
        """Raise SettingError for a return before the first reward where no context tells of one."""
        name = "asked_before_reward"
        if self.within_episodes and config.evaluation.policy.get(name) is not None:
            raise SettingError(f"evaluation.policy.{name}", "needs across_episodes of the method")
        super().check(config, world)

    def build(self, spec, config):
        """Return a model that reads the return to go; within episodes, no rewards."""
        from ad.models.rewards import ReturnToGo
        from ad.models.sequence_model import SequenceModel

        inputs = {"return_to_go": ReturnToGo(spec, config.width)}
        shown = replace(config, reward="none") if self.within_episodes else config
        return SequenceModel(spec, shown, inputs)

    def policy(self, model, num_envs, context_length, settings):
        """Return a policy that is conditioned on `settings.asked_return` in each episode.

        It is a number or one for each environment; None is the `reached_return` of the histories.
        Raises ConfigError for an `asked_before_reward` that no reward can end.
        """
        from ad.methods.context_policy import ReturnConditionedPolicy

        context = self.context(model, num_envs, context_length)
        asked, before_reward = settings.asked_return, settings.asked_before_reward
        if before_reward is not None and (self.within_episodes or model.spec.reward_range[1] <= 0):
            raise ConfigError("asked_before_reward needs across_episodes, and rewards above 0")
        return ReturnConditionedPolicy(model, context, asked, before_reward)
