"""Evaluation: in-context rollouts on train and held-out tasks."""

from pathlib import Path

import numpy as np
import torch

from ad.config.schema import Experiment
from ad.data.spec import make_spec, spec_from_dict
from ad.errors import ConfigError, CorruptError
from ad.evaluation.results import SPLITS, write_results
from ad.evaluation.summary import is_evaluated, write_summary
from ad.methods import new_method
from ad.models.sequence_model import SequenceModel
from ad.rollout.rollout import Rollout, greedy, rollout, sampled
from ad.runtime.devices import choose_device
from ad.runtime.run import Run, config_world, task_name
from ad.training import checkpoints
from ad.training.provenance import check_origin
from envs import make_vec
from envs.rng import derive_key
from envs.tasks import Split


def evaluate(run: Run, fresh: bool = False) -> bool:
    """Play the trained model of `run` and write its results; False if they are there already."""
    config, settings = run.config, run.config.evaluation
    _trained(run)
    if not fresh and is_evaluated(run):
        return False
    model, method = load_model(run), new_method(config.method)
    seeds = (settings.eval_seeds, settings.train_eval_seeds)
    with run.timed("evaluate_s", again=True):
        results = play(
            config, run.split, model, method, settings.episodes, seeds, record=True, show=True
        )
    write_results(run.folder, run.split, results)
    write_summary(run)
    return True


def load_model(run: Run, world: Experiment | None = None) -> SequenceModel:
    """The trained model of `run`, frozen; for the world of another configuration, if one is given.

    Raises ConfigError if it was trained on other tasks, or is another model, than configured;
    CorruptError if its checkpoint is damaged: one of fewer steps would not be the same model.
    """
    device = choose_device(run.config)
    try:
        content = checkpoints.load(_trained(run))
    except CorruptError as error:
        raise CorruptError(f"{error}; scripts.train makes it again") from error
    check_origin(content, run.config, run.split)
    spec = spec_from_dict(content["spec"])
    if world is not None:
        spec = make_spec(config_world(world), world.env.episode_length, np.array(spec.rewards))
    model = SequenceModel(spec, run.config.model).to(device)
    model.load_state_dict(content["model"])
    return model.eval().requires_grad_(False)


def _trained(run: Run) -> Path:
    path = checkpoints.newest(run.folder / "checkpoints")
    wanted = checkpoints.name(run.config.training.steps)
    if path is None or path.name != wanted:
        raise ConfigError(f"{run.folder} holds no finished training: run scripts.train first")
    return path


def play(
    config: Experiment,
    split: Split,
    model: torch.nn.Module,
    method,
    episodes: int,
    seeds: tuple[int, int],
    record: bool = False,
    show: bool = False,
) -> dict[str, Rollout]:
    """Rollouts "held_out" and "train", each [seeds × tasks, E], seed by seed.

    All lanes of both in one rollout: what a step costs beside its arithmetic is paid once. `record`
    keeps the trajectories of the first seed. `show` draws a progress bar.
    """
    settings = config.evaluation
    choose = greedy if settings.action == "greedy" else sampled(settings.temperature)
    plays = [
        (part, seed, task)
        for part, count in zip(SPLITS, seeds, strict=True)
        for seed in range(count)
        for task in getattr(split, f"{part}_tasks")
    ]
    played = rollout(
        model,
        method,
        _lanes(config, [task for _, _, task in plays]),
        [derive_key(seed, "evaluate", task_name(task)) for _, seed, task in plays],
        episodes,
        config.data.context_length,
        choose,
        record=[lane for lane, (_, seed, _) in enumerate(plays) if seed == 0] if record else (),
        label="evaluate" if show else None,
    )
    parts = [part for part, _, _ in plays]
    ends = np.cumsum([parts.count(part) for part in SPLITS])
    return {
        part: played.part(end - parts.count(part), end)
        for part, end in zip(SPLITS, ends, strict=True)
    }


def _lanes(config: Experiment, tasks: list[np.ndarray]):
    env = config.env
    return make_vec(
        env.id, np.array(tasks), env.episode_length, task_kwargs=env.tasks, **env.kwargs
    )
