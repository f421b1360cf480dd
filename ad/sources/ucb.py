"""UCB1 on bandits (Auer, Cesa-Bianchi and Fischer 2002, figure 1).

An actor pulls each arm once, in random order, and then the arm with the largest

    mean reward + sqrt(c ln(t) / n)

where n are the pulls of the arm and t those of all arms. The paper has rewards in [0, 1] and c = 2.
With a `discount` below 1 the rewards and pulls count less the older they are, for tasks that change
(discounted UCB: Garivier and Moulines 2011, arXiv 0805.3415, section 2.1).
"""

from dataclasses import dataclass

import numpy as np

from ad.config.fields import field
from ad.sources.bandit_learner import BanditLearner


@dataclass(frozen=True)
class Settings:
    """Settings of UCB1."""

    exploration: float = field(2.0, at_least=0)
    """factor c of ln(t) / n below the square root of the bonus; 2 in the paper"""
    discount: float = field(1.0, above=0, at_most=1, added=True)
    """factor of the pulls and rewards so far at each pull; 1: nothing is forgotten"""


class UCB(BanditLearner):
    """K agents with N lives each, of a bandit."""

    Settings = Settings
    NAME = "ucb"
    privileged_info = "nothing"
    paper = "Auer et al. 2002"

    def _index(self) -> np.ndarray:
        """Return the upper confidence bound of each arm, float64 [K * N, A]; inf if not pulled."""
        pulls = np.where(self.counts > 0, self.counts, 1)
        total = np.maximum(self.counts.sum(1, keepdims=True), 1)
        bonus = np.sqrt(self.settings.exploration * np.log(total) / pulls)
        return np.where(self.counts > 0, self.sums / pulls + bonus, np.inf)

    def _learn(self, rollout):
        """Discount what was counted, and count the pull of a step of each actor."""
        self.counts *= self.settings.discount
        self.sums *= self.settings.discount
        super()._learn(rollout)
