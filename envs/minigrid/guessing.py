"""Exact learning curves of agents that guess which kind of object pays, one guess an episode.

The kind that pays is among the n objects of an episode; the others are a random choice of the other
kinds. An agent picks one object, and once it was paid it picks that kind for ever.

- guess until paid: picks any object, each equally likely.
- rule out kinds: picks any object of a kind that it has not picked before.
- best guess: picks a kind that has been in every episode and that it has not picked before. All
  such kinds are equally likely to pay, so no agent does better.
"""

from collections.abc import Callable, Iterable
from math import comb

import numpy as np


def curves(num_kinds: int, numbers: Iterable[int], episodes: int) -> dict[str, np.ndarray]:
    """Return the probability of a success in each of E episodes, float [E], by name of the agent.

    numbers: the possible numbers n of objects in an episode, all equally likely.
    """
    after = {
        "guess until paid": lambda wrong, present: wrong,
        "rule out kinds": lambda wrong, present: wrong - 1,
        "best guess": lambda wrong, present: present - 1,
    }
    numbers = list(numbers)
    return {name: _curve(num_kinds, numbers, episodes, rule) for name, rule in after.items()}


def _curve(num_kinds: int, numbers: list[int], episodes: int, after: Callable) -> np.ndarray:
    """Return the curve of an agent, which may pick `wrong` kinds that do not pay, at first all.

    `after(wrong, present)` is that number after an episode in which it picked one of `present`
    kinds that do not pay; how many of them are present has a hypergeometric distribution.
    """
    others = num_kinds - 1
    unpaid = np.zeros(num_kinds)  # probability of not being paid yet, by the number of wrong kinds
    unpaid[others] = 1
    paid = []
    for _ in range(episodes):
        later = np.zeros(num_kinds)
        for wrong in np.flatnonzero(unpaid).tolist():
            for objects in numbers:
                for present in range(1, min(wrong, objects - 1) + 1):
                    ways = comb(wrong, present) * comb(others - wrong, objects - 1 - present)
                    chance = ways / comb(others, objects - 1) / len(numbers)
                    fails = unpaid[wrong] * chance * present / (present + 1)
                    later[after(wrong, present)] += fails
        unpaid = later
        paid.append(1 - unpaid.sum())
    return np.array(paid)
