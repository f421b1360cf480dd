"""Permuted actions and observations, a new permutation for each training window.

A model that is trained on them cannot know beforehand what an action does or what an observation
means: it must identify both in its context, as in the training on randomly permuted labels of
Kirsch et al. 2022 (arXiv 2212.04458). Rollouts are in the world as it is, which is one of the
permutations.
"""

import numpy as np

from ad.data.sampler import Batch, Windows
from ad.data.spec import OBSERVATIONS, Spec
from envs.spaces import Discrete

ACTIONS = ("action", "optimal_action")  # fields that hold an action


class PermutedWindows:
    """A sampler whose windows have their actions or observations permuted.

    `permute` is "actions", "observations" or "both". Each window has permutations of its own, which
    all its entries and all fields share: the actions taken, `optimal_action` and `action_mask`, and
    both roles of the observation, which must be one undivided `Discrete`. Padding stays.
    """

    def __init__(self, windows: Windows, spec: Spec, permute: str):
        self.windows, self.num_actions = windows, spec.num_actions
        self.has_actions = permute in ("actions", "both")
        part = spec.observation.get("")
        has_observations = permute != "actions" and isinstance(part, Discrete)
        self.num_observations = part.n if has_observations else 0

    def sample(self, rng: np.random.Generator, count: int) -> Batch:
        """Draw `count` windows."""
        batch = self.windows.sample(rng, count)
        if self.has_actions:
            table = permutations(rng, count, self.num_actions)  # action a is renamed table[:, a]
            batch |= {name: _renamed(batch[name], table) for name in ACTIONS if name in batch}
            if "action_mask" in batch:
                old = table[:, None, :-1].argsort(-1)  # the action that a new one was, [B, 1, A]
                batch["action_mask"] = np.take_along_axis(batch["action_mask"], old, axis=2)
        if self.num_observations:
            table = permutations(rng, count, self.num_observations)
            batch |= {name: _renamed(batch[name], table) for name in OBSERVATIONS if name in batch}
        return batch


def permutations(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """Return `count` random permutations of 0 to size - 1, int64 [count, size + 1].

    The last entry of each, `size`, is itself: it stands for padding.
    """
    drawn = rng.permuted(np.tile(np.arange(size), (count, 1)), axis=1)
    return np.pad(drawn, ((0, 0), (0, 1)), constant_values=size)


def _renamed(values: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return `table`, int [B, n + 1], at `values`, int [B, T + 1], in the dtype of `values`."""
    return np.take_along_axis(table, values, axis=1).astype(values.dtype, copy=False)
