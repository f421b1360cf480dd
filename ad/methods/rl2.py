r"""RL² (Duan et al. 2016, arXiv 1611.02779; Wang et al. 2016, arXiv 1611.05763): learn online.

A sequence model is trained by reinforcement learning on whole trials, episodes in one task whose
ends do not reset its memory, so that it learns to learn in the task. Its tokens tell the previous
action, reward and observation besides the present one, as those of any other method. The papers
have recurrent networks (`model.memory: gru`); a transformer is trained in the same way, with the
trial as its window. With `training.segments` a trial may be that many windows long. The algorithm
is proximal policy optimization (Schulman et al. 2017, arXiv 1707.06347) with generalized advantages
(Schulman et al. 2016, arXiv 1506.02438); the papers have TRPO and A2C. The loss, a mean over the
decisions t of trials, is

```math
L = -\min(\rho_t A_t, \operatorname{clip}(\rho_t, 1 - c, 1 + c) A_t)
  + \frac{v}{2} (V_t - G_t)^2 - h H(\pi_t)

A_t = \sum_{k \geq 0} (\gamma \lambda)^k (r_{t+k} + \gamma V_{t+k+1} - V_{t+k})
```

where the ratio of probabilities before and after an update is rho, G is A + V before it, H the
entropy, c `clip`, h `entropy_weight`, and v `value_weight` over the variance of G; A is then
standardized. An action takes one forward pass.

A train step plays a trial in each of `num_envs` environments, with a task drawn for each from the
train tasks, and updates on all of them. A trial has as many episodes as fit into `trial_steps` at
their full length: with a fixed number of env steps, tasks whose episodes end early would have more
of them and more reward, and training would neglect the others. For the same reason nothing counts
that would follow a trial. If `env.change` is at least n, the number of episodes of a trial, the
task changes after each of them with probability 1 / n: by its schedule it would never change.
Of the section `training` only the seed, `segments`, `gradient_norm` and what concerns the log,
evaluations and checkpoints is used; the section `source` is not, and of `data` only
`context_length`. The model plays and learns without dropout and random shifts: with them, the ratio
rho would differ from 1 before any update.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Optional

from ad.config.fields import field
from ad.errors import SettingError
from ad.methods.base import Method, check_outcomes
from ad.runtime.console import warn
from envs.rng import derive_key

if TYPE_CHECKING:
    from ad.methods.rl2_learner import ActorCritic


# The defaults were chosen on one split of Dark Room, 9x9, by 24 goals of which published rows hold
# out some: train steps of more environments learn less from as many env steps.
@dataclass(frozen=True)
class Settings:
    """Settings of RL²: its budget, its trials, and proximal policy optimization."""

    env_steps: int = field(12_288_000, at_least=1)
    """budget: env steps of the whole training, if trials are whole episodes and none ends early"""
    num_envs: int = field(128, at_least=1)
    """environments that play a trial in each train step"""
    trial_steps: Optional[int] = field(None, at_least=2)  # noqa: UP045
    """env steps of a trial in training whose episodes last until their time limit; null:
    data.context_length times training.segments"""
    epochs: int = field(3, at_least=1)
    """times that a train step learns from its trials"""
    minibatches: int = field(4, at_least=1)
    """optimizer steps of an epoch, each on whole trials; a divisor of num_envs"""
    learning_rate: float = field(1e-3, above=0)
    """learning rate of the first train step, from which it falls linearly to 0"""
    discount: float = field(0.99, at_least=0, at_most=1)
    """discount of rewards, also from one episode of a trial to the next"""
    gae_lambda: float = field(0.95, at_least=0, at_most=1)
    """decay of generalized advantages, also from one episode of a trial to the next"""
    entropy_weight: float = field(0.02, at_least=0)
    """weight of the entropy of the first train step, from which it falls linearly to 0"""
    value_weight: float = field(0.5, at_least=0)
    """weight of the squared error of the values, in variances of what they are to predict"""
    clip: float = field(0.2, above=0)
    """largest change of an action's probability ratio that the policy's loss rewards"""


class RL2(Method):
    """A sequence model that proximal policy optimization trains on trials in the train tasks."""

    Settings = Settings
    reads_histories = False

    def check(self, config, world):
        """Raise SettingError unless the settings fit together."""
        settings, path = self.settings, "method.settings"
        for name in ("dropout", "attention_dropout"):
            if getattr(config.model, name):
                raise SettingError(f"model.{name}", f"must be 0 with {config.method.name}")
        if config.evaluation.temperature_known is not None:
            text = f"must be null with {config.method.name}: no histories list the rewards"
            raise SettingError("evaluation.temperature_known", text)
        check_outcomes(config)
        if settings.num_envs % settings.minibatches:
            text = f"must divide num_envs ({settings.num_envs}), not be {settings.minibatches}"
            raise SettingError(f"{path}.minibatches", text)
        steps, lengths = self._steps(config), (config.env.episode_length, config.sequence_length)
        if not lengths[0] <= steps <= lengths[1]:
            segments = " times training.segments" if config.training.segments > 1 else ""
            text = f"must be from env.episode_length ({{}}) to data.context_length{segments} ({{}})"
            raise SettingError(f"{path}.trial_steps", f"{text.format(*lengths)}, not {steps}")
        if config.env.change and steps < 2 * lengths[0]:
            text = f"must be at least {2 * lengths[0]}, two episodes, where tasks change"
            raise SettingError(f"{path}.trial_steps", f"{text}, not {steps}")
        if world.life is not None and steps > world.life:
            text = f"must be at most {world.life}, env.kwargs.pulls, after which means stay"
            raise SettingError(f"{path}.trial_steps", f"{text}, not {steps}")
        if not self.train_steps(config):
            least = settings.num_envs * steps
            text = f"must be at least {least}, a trial in each of num_envs environments"
            raise SettingError(f"{path}.env_steps", f"{text}, not {settings.env_steps}")

    def train_steps(self, config):
        """Return the number of train steps, each of a trial in every environment."""
        return self.settings.env_steps // (self.settings.num_envs * self._steps(config))

    def transitions(self, config):
        """Return the env steps of all trials, if no episode ends before its time limit."""
        trial = self._steps(config) - self._steps(config) % config.env.episode_length
        return self.train_steps(config) * self.settings.num_envs * trial

    def build(self, spec, config) -> "ActorCritic":
        """Return a new model with values, and a linear map of rewards in place of a table."""
        from ad.methods.rl2_learner import ActorCritic

        is_listed = config.reward == "table"  # there are no histories to list the rewards of
        return ActorCritic(spec, replace(config, reward="projection") if is_listed else config)

    def learner(self, config, tasks):
        """Return proximal policy optimization with the trials of the train tasks."""
        from ad.methods.rl2_learner import TrialLearner

        steps, full = self._steps(config), config.sequence_length
        if steps < full:
            text = f"trials have {steps} env steps: the model is never trained on a full context"
            warn(f"{text} of {full}")
        key = derive_key(config.training.train_seed, "rl2")
        return TrialLearner(self, config, tasks, steps, key)

    def _steps(self, config) -> int:
        """Return the env steps of a trial whose episodes last until their time limit."""
        return self.settings.trial_steps or config.sequence_length
