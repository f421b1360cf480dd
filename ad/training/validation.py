"""How far a model in training is: its loss on held-out streams, a few episodes in its context."""

import math

import numpy as np
import torch

from ad.data.dataset import to_device
from ad.rollout.tasks import rollout_tasks
from envs.rng import derive_key

HELD_OUT_WINDOWS = 256  # windows of held-out streams over which the held-out loss is a mean


def seen(trainer) -> dict[str, float]:
    """Tag -> number of an `ad.training.trainer.Trainer`, for its log."""
    values, config = {}, trainer.config
    if trainer.data.held_out is not None:
        values["train/held_out_actor_loss"] = _held_out_loss(trainer)
    episodes = min(config.training.eval_episodes, config.evaluation.episodes)
    results = rollout_tasks(
        config, trainer.run.split, trainer.model, trainer.method, episodes, (1, 1)
    )
    for part, result in results.items():
        last = slice(-min(10, episodes), None)
        values[f"evaluate/{part}/return"] = result.returns.mean()
        values[f"evaluate/{part}/return_last10"] = result.returns[:, last].mean()
        values[f"evaluate/{part}/success_last10"] = result.successes[:, last].mean()
    return values


@torch.inference_mode()
def _held_out_loss(trainer) -> float:
    settings = trainer.config.training
    rng = np.random.default_rng(derive_key(settings.train_seed, "train", "held_out_windows"))
    losses = []
    for _ in range(math.ceil(HELD_OUT_WINDOWS / settings.batch_size)):
        batch = trainer.data.held_out.sample(rng, settings.batch_size)
        window, valid = to_device(batch, trainer.device)
        losses.append(float(trainer.method.loss(trainer.model, window, valid)))
    return float(np.mean(losses))
