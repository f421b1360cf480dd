"""In-context methods: a loss on windows, a memory in a rollout. One file and one line add another.

A method is built as `Method(settings)` from its own `Settings` dataclass and offers `history_part`
(which share of each history it learns from), `loss(model, window)` and `begin(model, lanes,
context_length)`, whose memory has `act(observation, time)`, `record(action, reward,
next_observation)` and `rewarded()`, whether it holds a reward above 0, bool [N].
"""

from ad.registry import METHODS


def build_method(config):
    """Build the method that a `MethodConfig` names, with its settings."""
    method_class = METHODS.load(config.name)
    return method_class(method_class.Settings(**config.settings))
