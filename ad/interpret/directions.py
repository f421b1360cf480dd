"""Directions in the space of outputs: an action against another, or against the mean of the others.

A direction d [A] sums to 0. Its product with the outputs of the actions is a preference, e.g. the
logit of forward minus the logit of turn right, and everything that is linear in the output layer
contributes to it.
"""

import itertools
from collections.abc import Sequence

import torch

from ad.errors import ConfigError
from envs.registry import did_you_mean

AGAINST = " - "  # between two actions
MOST_PAIRS = 45  # of actions, which ten have; with more actions the pairs are left out


def direction_names(world, num_actions: int) -> list[str]:
    """Return the names of directions: "forward" for an action, "forward - turn right" for a pair.

    A pair stands once, the later action first. Actions are numbers where `world`, a vector
    environment or None, does not name them.
    """
    names = action_labels(world, num_actions)
    pairs = [f"{b}{AGAINST}{a}" for a, b in itertools.combinations(names, 2)]
    return names + (pairs if len(pairs) <= MOST_PAIRS else [])


def action_labels(world, num_actions: int) -> list[str]:
    """Return the name of each action of `world`, a vector environment or None, or its number."""
    return _labels(getattr(world, "action_names", ()), num_actions)


def parse_direction(name: str, action_names: Sequence[str], num_actions: int) -> torch.Tensor:
    """Return the direction called `name`, float32 [A]: "forward - turn right", or "forward".

    One action is against the mean of the others. An action is named by its name, by the last word
    of a name that no other action ends with, or by its number. Raises ConfigError for a name of no
    action, and for an action against itself.
    """
    actions = [
        _action(word.strip(), action_names, num_actions) for word in name.split(AGAINST, maxsplit=1)
    ]
    if len(set(actions)) < len(actions):
        raise ConfigError(f"the direction {name!r} is an action against itself")
    if num_actions < 2:
        raise ConfigError("a direction needs two actions, and the world has a single one")
    direction = torch.zeros(num_actions)
    if len(actions) == 1:
        direction -= 1 / (num_actions - 1)
    else:
        direction[actions[1]] = -1.0
    direction[actions[0]] = 1.0
    return direction


def _labels(action_names: Sequence[str], num_actions: int) -> list[str]:
    """Return the name of each action, its number where the world has none."""
    return [*action_names[:num_actions], *map(str, range(len(action_names), num_actions))]


def _action(word: str, action_names: Sequence[str], num_actions: int) -> int:
    """Return the number of the action called `word`."""
    labels = _labels(action_names, num_actions)
    if word in labels:
        return labels.index(word)
    if word.isdecimal() and int(word) < num_actions:
        return int(word)
    ends = [action for action, label in enumerate(labels) if label.split()[-1] == word]
    if len(ends) == 1:
        return ends[0]
    known = f"the actions are {', '.join(labels)}"
    raise ConfigError(f"there is no action {word!r}: {known}{did_you_mean(word, labels)}")
