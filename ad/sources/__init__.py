"""Source algorithms, whose learning is recorded: an algorithm a file, a subclass of `base.Source`.

Another source is one file here and one line of `ad.registry`, or a class in a file of the user.
"""

from ad.config.schema import EnvConfig, Experiment, SourceConfig, SplitConfig
from ad.errors import SettingError
from ad.registry import SOURCES
from envs.oracle import TaskOracle


def fits(algorithm: str, env: EnvConfig, world: TaskOracle) -> bool:
    """Return whether `algorithm` with its default settings can learn in the `world` of `env`."""
    source, split = SourceConfig(algorithm=algorithm, num_envs=1), SplitConfig(num_train_tasks=1)
    config = Experiment(env=env, split=split, source=source)
    try:
        SOURCES.load(algorithm).check(config, world)
    except SettingError:
        return False
    return True
