"""Methods: what is learned from windows of histories, and how the model acts in a rollout.

A method is a class with a `Settings` dataclass, built as `Method(settings)`. It has `history_part`
(the fractions of a history between which its windows lie), `loss(model, window, valid)` and
`begin(model, num_envs, context_length)`, which returns the policy of a rollout. A policy has
`act(observation, time)`, `observe(action, reward, next_observation)`, `select(envs)` and
`reward_in_context()`, bool [N]: whether its context holds a reward above 0 (`context_policy.py`).
Another method is one file here and one line of `ad.registry`.
"""

from ad.registry import METHODS


def build_method(config):
    """Build the method that a `MethodConfig` names, with its settings."""
    method_class = METHODS.load(config.name)
    return method_class(method_class.Settings(**config.settings))
