"""Thompson sampling on bandits (Thompson 1933; Chapelle and Li 2011).

An actor draws a mean of each arm from its posterior, and pulls the arm with the largest one. Where
rewards are 0 or 1, s successes in n pulls make the posterior Beta(1 + s, 1 + n - s). Where they are
normal with a known standard deviation σ, the posterior of a prior with the mean m and the precision
p is normal, with the precision p + n / σ² and the mean (p m + Σr / σ²) / (p + n / σ²); with p = 0,
a flat prior, arms that were not pulled yet come first.

With `optimistic`, a mean that was drawn below the posterior mean is raised to it (May et al. 2012,
"Optimistic Bayesian sampling in contextual-bandit problems").
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtri

from ad.config.fields import field
from ad.config.schema import Experiment
from ad.sources.bandit_learner import BanditLearner
from ad.sources.base import unfit
from envs.oracle import TaskOracle
from envs.rng import uniform


@dataclass(frozen=True)
class Settings:
    """Settings of Thompson sampling.

    The prior is that of normal rewards; rewards of 0 and 1 have the prior Beta(1, 1). Means uniform
    on [0, 1] have the mean 0.5 and the precision 12 (Lee et al. 2023).
    """

    prior_mean: float = field(0.5, at_least=-1e6, at_most=1e6)
    """mean of the normal prior of an arm's mean"""
    prior_precision: float = field(0.0, at_least=0)
    """precision, 1 / variance, of the normal prior of an arm's mean; 0: a flat prior"""
    optimistic: bool = field(False, added=True)
    """whether a mean that was drawn below its posterior mean is raised to it"""


class ThompsonSampling(BanditLearner):
    """K agents with N lives each, of a bandit whose kind of rewards is given."""

    Settings = Settings
    NAME = "thompson_sampling"
    privileged_info = "family"  # of which the distribution of the rewards is a part
    paper = "Thompson 1933"

    @classmethod
    def check(cls, config: Experiment, world: TaskOracle) -> None:
        """Raise SettingError unless `world` is a bandit with a known distribution of rewards."""
        if world.reward_distribution not in ("bernoulli", "normal"):
            raise unfit(config, "it needs a world whose rewards are 0 and 1, or normal")
        super().check(config, world)

    def _index(self) -> np.ndarray:
        """Draw a mean of each arm from its posterior, [K * N, A]; inf where that is flat."""
        arms, own = self.counts.shape[1], self.settings
        u = uniform(self.keys[:, None], self.actors.steps * arms + np.arange(arms))
        if self.world.reward_distribution == "bernoulli":
            mean = (1 + self.sums) / (2 + self.counts)
            drawn = betaincinv(1 + self.sums, 1 + self.counts - self.sums, u)
        else:
            variance = self.world.reward_noise**2
            precision = own.prior_precision + self.counts / variance
            proper = precision > 0
            precision = np.where(proper, precision, 1)
            mean = (own.prior_precision * own.prior_mean + self.sums / variance) / precision
            drawn = np.where(proper, mean + ndtri(u) / np.sqrt(precision), np.inf)
        return np.maximum(drawn, mean) if own.optimistic else drawn
