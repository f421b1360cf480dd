"""What a checkpoint was made of, kept in it, and the refusal to use it for anything else.

A held-out score means something only if the model never saw the task; so this is checked against
the checkpoint itself, not against the folder that it lies in.
"""

from ad.config.schema import Experiment, config_hash
from ad.errors import ConfigError
from ad.runtime.run import task_name
from envs.tasks import Split

LABELS = {"train_tasks": "list of train tasks"}


def origin(config: Experiment, split: Split) -> dict:
    """Hashes of the world, the split and the sections, the encoder, and the list of train tasks."""
    return {
        "world": config_hash(config.env),
        "split": split.hash,
        "encoder": config.model.encoder,
        "model": config_hash(config.model),
        "data": config_hash(config.data),
        "method": config_hash(config.method),
        "train_tasks": split.train_tasks.tolist(),
    }


def check_origin(content: dict, config: Experiment, split: Split) -> None:
    """Raise ConfigError, in one sentence, if a checkpoint is not one of this configuration."""
    known, present = content.get("origin"), origin(config, split)
    if known is None:
        raise ConfigError(
            "the checkpoint does not say what it was trained on: train again, with --fresh true"
        )
    if known["world"] == present["world"]:
        _refuse_tasks_trained_on(known["train_tasks"], split)
    for name in present:
        if known[name] != present[name]:
            raise ConfigError(
                f"the checkpoint was trained with another {LABELS.get(name, name)} than the "
                "configured one: its scores would not be what they are called"
            )


def _refuse_tasks_trained_on(train_tasks: list[list[int]], split: Split) -> None:
    trained = {tuple(task) for task in train_tasks}
    seen = [task_name(task) for task in split.held_out_tasks if tuple(task.tolist()) in trained]
    if seen:
        names = ", ".join(seen[:5]) + (", ..." if seen[5:] else "")
        raise ConfigError(
            f"the checkpoint was trained on {len(seen)} of the held-out tasks ({names}): "
            "its score on them would not be one on unseen tasks"
        )
