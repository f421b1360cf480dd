"""The settings of an agent of Stable-Baselines3, which import nothing of it."""

from dataclasses import dataclass

from ad.config.fields import field
from ad.errors import SettingError
from envs.extras import missing

ALGORITHM = "source.settings.algorithm"
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


def check_algorithm(name: str) -> None:
    """Raise SettingError unless an agent can learn by the algorithm `name`."""
    if name in CONTINUOUS:
        raise SettingError(ALGORITHM, f"must not be {name}, which is for continuous actions only")
    if name not in ALGORITHMS:
        raise SettingError(ALGORITHM, f"must be one of {', '.join(ALGORITHMS)}, not {name}")


def check_packages(setting: str) -> None:
    """Raise SettingError about `setting` if a package of the extra sb3 is missing."""
    if text := missing("sb3"):
        raise SettingError(setting, text)
