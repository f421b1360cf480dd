"""Runs of few training steps, and what they left behind."""

import json

import torch

from ad.collection.collect import collect
from ad.runtime.run import Run
from ad.training import loop
from ad.training.loop import never
from ad.training.trainer import Trainer, checkpoints
from ad.training.validation import validate

SHORT = {
    "training.steps": "8",
    "training.warmup_steps": "2",
    "training.batch_size": "16",
    "training.checkpoint_every": "3",
    "training.log_every": "1",
    "training.eval_every": "8",
    "training.eval_episodes": "1",
    "model.layers": "1",
    "model.dropout": "0.1",
    "model.attention_dropout": "0.1",
}

# A room that a small model learns in about a minute on one core.
ROOM = {
    "env.kwargs": "{size: 5}",
    "env.episode_length": 12,
    "split.num_train_tasks": 18,
    "source.num_envs": 10,
    "data.history_stride": 1,
    "data.context_length": 48,
    "model.width": 32,
    "training.batch_size": 32,
    "training.learning_rate": 3e-3,
}


def words_of(settings: dict) -> list[str]:
    """Return the words of the command line for settings by their dotted paths."""
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


def finish(trainer, stop_requested=never) -> None:
    """Take the train steps that are left, with the validation of the command line."""
    loop.train(trainer, validate, stop_requested)


def train(config, stop_requested=never) -> Run:
    """Train from the newest checkpoint and return the run."""
    run = Run.open(config)
    try:
        finish(Trainer(run), stop_requested)
    finally:
        run.log.close()
    return run


def trained_run(smoke, root, settings: dict) -> Run:
    """Collect histories of `ROOM`, changed by `settings`, and return the run trained on them."""
    settings = ROOM | {"training.eval_every": settings["training.steps"]} | settings
    run = Run.open(smoke(root, *words_of(settings)))
    collect(run)
    return train(run.config)


def checkpoint(run: Run) -> dict:
    return checkpoints.load(checkpoints.newest(run.folder / "checkpoints"))


def states(run: Run) -> tuple[dict, dict]:
    """The weights and the optimizer's state of the newest checkpoint."""
    content = checkpoint(run)
    return content["model"], content["optimizer"]["state"]


def assert_same_bits(one: Run, other: Run) -> None:
    torch.testing.assert_close(states(one), states(other), rtol=0, atol=0)


def forget_last_checkpoint(run: Run) -> None:
    """Leave the folder as an interruption in the seventh or eighth step does."""
    path = checkpoints.newest(run.folder / "checkpoints")
    path.with_suffix(".json").unlink()
    path.unlink()
    assert checkpoint(run)["step"] == 6


def log(run: Run) -> list[dict]:
    """metrics.jsonl without the speeds."""
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    return [
        {tag: value for tag, value in json.loads(line).items() if "per_second" not in tag}
        for line in lines
    ]


def logged(run: Run, tag: str) -> list[float]:
    return [line[tag] for line in log(run) if tag in line]
