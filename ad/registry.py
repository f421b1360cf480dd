"""All components that a configuration can name: a table for each kind, name -> "module:Class".

`Registry.load` imports the class; the tables import nothing. To add a component, write its file and
add a line here.
"""

import difflib
import importlib
from collections.abc import Iterable


class Registry(dict):
    """A dict of name -> "module:Class" for one kind of component."""

    def __init__(self, kind: str, entries: dict[str, str]):
        super().__init__(entries)
        self.kind = kind

    def load(self, name: str) -> type:
        """Import and return the class called `name`. Raises ValueError for an unknown name."""
        if name not in self:
            raise ValueError(f"unknown {self.kind} {name!r}{self.suggest(name)}")
        module, attribute = self[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def suggest(self, name: str) -> str:
        """Return '; did you mean ...?' if a known name is close to `name`, else all known names."""
        return did_you_mean(str(name), self) or f" (known: {', '.join(self)})"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return '; did you mean ...?' if `name` is close to a known one, or ''.

    Only the last word of a dotted path in `known` is compared.
    """
    last_words = {path.rpartition(".")[2]: path for path in reversed(list(known))}
    near = difflib.get_close_matches(name, last_words, n=1)
    return f"; did you mean {last_words[near[0]]}?" if near else ""


SOURCES = Registry(
    "source algorithm",
    {
        "a2c": "ad.sources.a2c:A2C",
        "noise_distillation": "ad.sources.noisy_expert:NoiseDistillation",
    },
)

METHODS = Registry(
    "method",
    {
        "algorithm_distillation": "ad.methods.algorithm_distillation:AlgorithmDistillation",
        "expert_distillation": "ad.methods.expert_distillation:ExpertDistillation",
    },
)

TOKENIZERS = Registry(
    "tokenizer",
    {
        "fused": "ad.models.tokenizer:FusedTokens",
        "separate": "ad.models.tokenizer:InterleavedTokens",
        "modal": "ad.models.tokenizer:ParallelStreams",
    },
)

ENCODERS = Registry(
    "observation encoder",
    {
        "table": "ad.models.encoders.table:TableEncoder",
        "factored": "ad.models.encoders.factored:FactoredEncoder",
        "offsets": "ad.models.encoders.offsets:OffsetEncoder",
    },
)
# Encoders whose vectors do not depend on the size of the world: they serve worlds of any size.
SIZE_INDEPENDENT_ENCODERS = {"offsets"}

POSITIONS = Registry(
    "position embedding",
    {
        "env_time": "ad.models.positions.env_time:EnvTime",
        "window": "ad.models.positions.learned:WindowIndex",
        "history": "ad.models.positions.learned:HistoryIndex",
        "rotary": "ad.models.positions.rotary:Rotary",
        "none": "ad.models.positions.none:NoPosition",
    },
)

BACKENDS = Registry(
    "backend of the transformer",
    {  # in the order of preference: `auto` takes the first that supports the model and device
        "compiled": "ad.models.kernels.transformer:CompiledTransformer",
        "torch": "ad.models.transformer:Transformer",
    },
)

REWARDS = Registry(
    "reward embedding",
    {
        "table": "ad.models.rewards:RewardTable",
        "projection": "ad.models.rewards:RewardProjection",
    },
)
