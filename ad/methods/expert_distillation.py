"""Expert distillation (Laskin et al. 2022, section 4): the same model on the histories' ends.

The control for algorithm distillation: no learning is seen, so that only what one success in the
context says of the goal can raise the return over in-context episodes.
"""

from dataclasses import dataclass

from ad.config.fields import setting
from ad.methods.algorithm_distillation import AlgorithmDistillation


@dataclass(frozen=True)
class Settings:
    """Which part of a history counts as the expert's."""

    expert_fraction: float = setting(0.1, above=0, at_most=1)  # the last share of each history


class ExpertDistillation(AlgorithmDistillation):
    """Algorithm distillation that sees only the trained source agents."""

    Settings = Settings

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.history_part = (1.0 - settings.expert_fraction, 1.0)
