"""The split of an experiment: its train and its held-out tasks."""

from ad.config.schema import EnvConfig, SplitConfig
from envs.tasks import Split, make_split


def configured_split(env: EnvConfig, split: SplitConfig) -> Split:
    """Return the configured split. Raises ValueError if it is not possible."""
    return make_split(
        env.id, env.kwargs, split.split_seed, split.num_train_tasks, split.held_out, env.tasks
    )
