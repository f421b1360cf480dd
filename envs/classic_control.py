"""Gymnasium's cart pole and pendulum with physics that differ between tasks and are not observed.

They are families for `env.tasks`, e.g. `[{length: 0.25}, {length: 1}]` with the id
"envs.classic_control:CartPole". The equations are those of Gymnasium.
"""

import gymnasium.envs.classic_control as classic_control

from envs.checks import check_number


class CartPole(classic_control.CartPoleEnv):
    """CartPole-v1 (Barto et al. 1983) with a pole of its own: half its length in m, mass in kg."""

    def __init__(self, length: float = 0.5, mass: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        self.length = check_number("length", length, 0.01, 100)
        self.masspole = check_number("mass", mass, 0.001, 100)
        self.total_mass = self.masscart + self.masspole
        self.polemass_length = self.masspole * self.length


class Pendulum(classic_control.PendulumEnv):
    """Pendulum-v1 with a rod of its own: mass in kg, length in m; needs `action_bins`."""

    def __init__(self, mass: float = 1.0, length: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.m = check_number("mass", mass, 0.01, 100)
        self.l = check_number("length", length, 0.01, 100)
