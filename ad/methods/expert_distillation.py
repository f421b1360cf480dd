r"""Expert distillation (Laskin et al. 2022, section 4): train on the ends of histories.

The loss is that of algorithm distillation on windows that lie in the last `expert_fraction` f of
the T transitions of a history:

```math
L = -\operatorname{mean}_{t \geq (1 - f) T} \log \pi(a_t \mid o_0, a_0, r_0, \dots, o_t)
```

The control for algorithm distillation: the windows show no learning, so the return can rise over
in-context episodes only by what a success in the context reveals of the task. An action takes one
forward pass.
"""

from dataclasses import dataclass

from ad.config.fields import field
from ad.errors import SettingError
from ad.methods import algorithm_distillation


@dataclass(frozen=True)
class Settings(algorithm_distillation.Settings):
    """Settings of expert distillation."""

    expert_fraction: float = field(0.1, above=0, at_most=1)
    """fraction of each history, at its end, to train on"""


class ExpertDistillation(algorithm_distillation.AlgorithmDistillation):
    """Cross entropy of the actions of the trained source agents, at the ends of histories."""

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.history_part = (1.0 - settings.expert_fraction, 1.0)

    def check(self, config, world):
        """Raise SettingError for an end of a history that holds less than an episode."""
        steps = (config.data.env_steps or config.source.env_steps) // config.source.num_envs
        kept, episode = self.settings.expert_fraction * steps, config.env.episode_length
        if kept < episode:
            text = f"must keep an episode of env.episode_length ({episode}), not {kept:g} steps"
            raise SettingError("method.settings.expert_fraction", text)
        super().check(config, world)
