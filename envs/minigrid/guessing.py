"""Exact learning curves of agents that guess which kind of object pays, one guess an episode.

The kind that pays is among the n objects of an episode; the others are a random choice of the other
kinds. An agent picks one object, and once it was paid it picks that kind for ever.

- guess_until_paid: picks any object, each equally likely.
- rule_out: picks any object of a kind that it has not picked before.
- best_guess: picks a kind that has been in every episode and that it has not picked before. All
  such kinds are equally likely to pay, so no agent does better.
"""

from collections.abc import Callable, Iterable

import numpy as np
from scipy.stats import hypergeom


def curves(num_kinds: int, numbers: Iterable[int], episodes: int) -> dict[str, np.ndarray]:
    """Return the probability of a success in each of E episodes, float [E], by name of the agent.

    numbers: the possible numbers n of objects in an episode, all equally likely.
    """
    after = {
        "guess_until_paid": lambda wrong, objects, present: wrong,
        "rule_out": lambda wrong, objects, present: wrong - 1,
        "best_guess": lambda wrong, objects, present: present - 1,
    }
    numbers = list(numbers)
    return {name: _curve(num_kinds, numbers, episodes, rule) for name, rule in after.items()}


def _curve(num_kinds: int, numbers: list[int], episodes: int, after: Callable) -> np.ndarray:
    """Return the curve of an agent, which may pick `wrong` kinds that do not pay, at first all.

    `after(wrong, objects, present)` is that number after it has picked a wrong one, of `present` in
    an episode with as many `objects`.
    """
    others = num_kinds - 1
    unpaid = np.zeros(num_kinds)  # probability of not being paid yet, by the number of wrong kinds
    unpaid[others] = 1
    paid = []
    for _ in range(episodes):
        later = np.zeros(num_kinds)
        for wrong in np.flatnonzero(unpaid):
            for objects in numbers:
                present = np.arange(objects)
                chance = hypergeom.pmf(present, others, wrong, objects - 1) / len(numbers)
                fails = unpaid[wrong] * chance * present / (present + 1)
                for count in np.flatnonzero(fails):
                    later[after(wrong, objects, int(count))] += fails[count]
        unpaid = later
        paid.append(1 - unpaid.sum())
    return np.array(paid)
