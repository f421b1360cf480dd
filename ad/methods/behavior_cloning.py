r"""Behavior cloning (Pomerleau 1989): predict actions from the observations of an episode alone.

The loss is the mean over decisions t, whose episode begins at s:

```math
L = -\operatorname{mean}_t \log \pi(a_t \mid o_s, a_s, \dots, o_{t-1}, a_{t-1}, o_t)
```

With a `best_fraction` it is the percentile clone of Chen et al. 2021, section 5.1, which decision
transformers are compared with. An action takes one forward pass.
"""

from dataclasses import dataclass, replace

from ad.config.fields import field
from ad.methods import algorithm_distillation
from ad.methods.losses import accuracy, cross_entropy


@dataclass(frozen=True)
class Settings(algorithm_distillation.Settings):
    """Settings of methods that imitate the actions of single episodes."""

    best_fraction: float = field(1.0, above=0, at_most=1)
    """fraction of each task's episodes, those with the highest returns, to train on"""


class BehaviorCloning(algorithm_distillation.AlgorithmDistillation):
    """Cross entropy of the actions given the observations and actions before, of the same episode.

    The model reads no rewards (`model.reward none`), and the context ends with its episode, so
    that nothing shows how well an action did.
    """

    Settings = Settings
    within_episodes = True

    def __init__(self, settings: Settings):
        super().__init__(settings)
        self.best_fraction = getattr(settings, "best_fraction", 1.0)

    def build(self, spec, config):
        """Return a model whose tokens encode no rewards."""
        from ad.models.sequence_model import SequenceModel

        return SequenceModel(spec, replace(config, reward="none"))

    def loss(self, model, batch):
        """Return the mean cross entropy (nats), and the accuracy of the most likely actions."""
        logits = self.logits(model, batch)
        loss = cross_entropy(logits, batch, self.label_smoothing)
        return loss, {"accuracy": accuracy(logits, batch)}
