"""The settings of an agent of Stable-Baselines3, which import nothing of it."""

from dataclasses import dataclass
from importlib.util import find_spec

from ad.config.fields import field

ALGORITHMS = {  # name -> package; those that learn with discrete actions
    "PPO": "stable_baselines3",
    "A2C": "stable_baselines3",
    "DQN": "stable_baselines3",
    "RecurrentPPO": "sb3_contrib",
    "TRPO": "sb3_contrib",
    "QRDQN": "sb3_contrib",
}
CONTINUOUS = ("SAC", "TD3", "DDPG", "TQC", "CrossQ")
SCHEDULES = {"learning_rate", "clip_range", "clip_range_vf"}  # arguments that may be "lin_<number>"
LINEAR = "lin_"  # a value that falls linearly to 0 over a history, as RL Zoo writes it
INSTALL = 'needs packages that are not installed: pip install -e ".[sb3]"'


@dataclass(frozen=True)
class SB3Settings:
    """Settings of Stable-Baselines3: an algorithm, its policy and its arguments."""

    algorithm: str = field("PPO")
    """algorithm: PPO, A2C or DQN; RecurrentPPO, TRPO or QRDQN of sb3-contrib"""
    policy: str = field("auto")
    """policy class, e.g. MlpPolicy; auto: MlpPolicy, or the like for several parts or memory"""
    arguments: dict = field({})
    """keyword arguments of the algorithm, e.g. {n_steps: 64, learning_rate: lin_2.5e-4};
    policy_kwargs {features_extractor_class: OneHotCells} reads MiniGrid's cells one-hot"""

    def __hash__(self) -> int:
        return hash(repr(self))  # a dict has none


def algorithm_problem(name: str) -> str | None:
    """Return why no agent can learn by the algorithm `name`, None if one can."""
    if name in ALGORITHMS:
        return None
    if name in CONTINUOUS:
        return f"must not have the algorithm {name}, which is for continuous actions only"
    return f"must have one of the algorithms {', '.join(ALGORITHMS)}, not {name}"


def missing_packages() -> str | None:
    """Return what to install if a package of the extra sb3 is missing, else None."""
    return INSTALL if None in map(find_spec, set(ALGORITHMS.values())) else None
