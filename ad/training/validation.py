"""Validation during training: the loss on held-out actors and a few in-context episodes."""

import math

import numpy as np
import torch

from ad.data.dataset import to_device
from ad.data.sampler import Windows
from ad.rollout.tasks import policy_of, rollout_asked, rollout_tasks
from ad.runtime.metrics_log import ASKED
from ad.training.trainer import BaseTrainer
from envs.rng import derive_key

HELD_OUT_WINDOWS = 256  # windows of held-out actors over which the held-out loss is a mean


def validate(trainer: BaseTrainer) -> dict[str, float]:
    """Return the numbers of a validation of the trainer's model, by their tags in the log.

    One evaluation seed plays `training.eval_episodes` episodes on every task that the model will be
    evaluated on, if the world can be stepped, and on the held-out tasks for each of
    `evaluation.asked_returns`. Raises NumericError if the model's logits are not finite.
    """
    trainer.model.eval()
    values, config = {}, trainer.config
    if (held_out := trainer.held_out) is not None:
        values |= _held_out_metrics(trainer, held_out)
    if not trainer.run.world.can_be_stepped:
        return values
    episodes = min(config.training.eval_episodes, config.evaluation.episodes)
    new_policy = policy_of(config, trainer.method, trainer.model)
    results = rollout_tasks(config, trainer.run.evaluated_split, new_policy, episodes, (1, 1))
    for split, result in results.items():
        last = slice(-min(10, episodes), None)
        values[f"evaluate/{split}/return"] = result.returns.mean()
        values[f"evaluate/{split}/return_last10"] = result.returns[:, last].mean()
        if np.isfinite(success := result.successes[:, last].mean()):  # the world can tell
            values[f"evaluate/{split}/success_last10"] = success
    if asked := list(dict.fromkeys(config.evaluation.asked_returns)):
        envs = [(0, task) for task in trainer.run.split.held_out_tasks]
        played = rollout_asked(config, trainer.method, trainer.model, asked, envs, episodes)
        means = played.returns.reshape(len(asked), -1).mean(1)
        values |= {f"{ASKED}{value:g}": mean for value, mean in zip(asked, means, strict=True)}
    return values


@torch.inference_mode()
def _held_out_metrics(trainer: BaseTrainer, held_out: Windows) -> dict[str, float]:
    """Return the means of loss and metrics on windows of held-out actors, by their tags.

    The windows are the same at every validation.
    """
    settings = trainer.config.training
    rng = np.random.default_rng(derive_key(settings.train_seed, "train", "held_out_windows"))
    means: dict[str, list[float]] = {}
    for _ in range(math.ceil(HELD_OUT_WINDOWS / settings.batch_size)):
        batch = to_device(held_out.sample(rng, settings.rows), trainer.device)
        loss, metrics = trainer.method.loss(trainer.model, batch)
        for name, value in {"loss": loss, **metrics}.items():
            means.setdefault(f"train/held_out_actor_{name}", []).append(float(value))
    return {tag: float(np.mean(values)) for tag, values in means.items()}
