"""Say why a world does not learn: play, train for a minute, and look for the known causes.

`ad.findings` has the causes. The numbers are those of a short look: fewer env steps than the source
has, fewer train steps, and one rollout.
"""

import contextlib
import io
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import entr, softmax

from ad.collection.collect import collect_tasks
from ad.config.parser import load_file
from ad.config.schema import Experiment, dump
from ad.config.world import make_envs
from ad.data.dataset import to_device
from ad.data.histories import HistoryStore
from ad.data.schema import transition_fields
from ad.data.store import load_history
from ad.errors import ConfigError, NumericError
from ad.evaluation.evaluate import load_model
from ad.evaluation.references import UniformPolicy
from ad.findings import Evidence, findings, summary
from ad.methods import build_method
from ad.methods.losses import loss_mask
from ad.rollout.rollout import Rollout, rollout
from ad.rollout.tasks import policy_of, sampling_temperature, selection_of
from ad.runtime.console import info
from ad.runtime.run import Run
from ad.training import checkpoints
from ad.training.trainer import Trainer
from envs.rng import draw_allowed

SECONDS = 20.0  # for the collection, and as many for the training
MOST_TASKS = 48  # of each split that are played at random
RANDOM_STEPS = 1000  # of random actions in each task
MODEL_STEPS = 1200  # of the model in each task
MODEL_TASKS = 16  # of each split that the model plays
BYTES = 2**27  # of the observations of random actions
WINDOWS = 128  # of held-out actors, for the loss with and without a context


def doctor(config: Experiment) -> None:
    """Print what was seen of `config` and the findings, the most likely cause first.

    Raises ConfigError for tasks that change.
    """
    if config.env.change:
        raise ConfigError("the doctor looks at tasks that stay: env.change must be 0")
    info("doctor: plays, collects and trains for about a minute")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        evidence = gather(config, Path(folder))
    info(f"saw: {summary(evidence)}")
    found = findings(evidence)
    for number, sentence in enumerate(found.values(), 1):
        info(f"{number}. {sentence}")
    if not found and evidence.learns:
        assert evidence.model is not None  # it has played
        info(
            "nothing is wrong that a short look can tell: the return rises in one rollout of each "
            f"of {len(evidence.model.returns)} held-out tasks; a whole run has the interval"
        )
    elif not found:
        info("no known cause was found: look at the report of a whole run")


def gather(config: Experiment, folder: Path) -> Evidence:
    """Play, collect and train in `folder`; what the run has already is used in its place."""
    run = Run(config)
    train = _some(run.split.train_tasks, MOST_TASKS)
    tasks = np.concatenate([train, _some(run.split.held_out_tasks, MOST_TASKS)])
    evidence = Evidence(run, tasks, len(train), _play_at_random(run, tasks))
    method = build_method(config.method)
    if not (method.reads_histories and method.has_model):
        return evidence
    small = _collected(config, folder)
    evidence.share = small.source.env_steps / config.source.env_steps
    store, names = HistoryStore(small), ("reward", "terminated", "truncated", "observation")
    for task in train:
        arrays = load_history(store.folder(task)).arrays
        evidence.histories.append({name: arrays[name] for name in names if name in arrays})
    if not evidence.pays_the_same:  # else a model has nothing to learn
        with contextlib.suppress(NumericError):
            _train(evidence, small)
    return evidence


def _some(tasks: np.ndarray, most: int) -> np.ndarray:
    """Return at most `most` of `tasks` [K, ...], evenly spread."""
    return tasks[np.unique(np.linspace(0, len(tasks) - 1, most).astype(int))]


def _play_at_random(run: Run, tasks: np.ndarray) -> Rollout:
    """Return the rollout of equal random actions in `tasks`, in worlds with equal seeds."""
    parts = transition_fields(run.world).values()
    steps = min(RANDOM_STEPS, BYTES // (len(tasks) * sum(part.nbytes for part in parts)))
    steps = max(steps, 2 * run.config.env.episode_length)
    policy = UniformPolicy(int(run.world.single_action_space.n), len(tasks))
    everywhere = range(len(tasks))
    return rollout(
        policy,
        make_envs(run.config.env, tasks),
        [0 for _ in tasks],
        0,
        lambda logits, u: draw_allowed(np.isfinite(logits), u),
        everywhere,
        env_steps=steps,
    )


def _changed(config: Experiment, folder: Path, **changes) -> Experiment:
    """Return the experiment with other settings, whose root is `folder`."""
    path = folder / "experiment.yaml"
    path.write_text(dump(replace(config, root=str(folder), name="doctor")))
    return load_file(path, **changes)


def _collected(config: Experiment, folder: Path) -> Experiment:
    """Return the experiment in `folder` with its histories, or with as much as is collected soon.

    Histories of the run are linked. Otherwise a twentieth of the env steps is timed first.
    """
    store, tasks = HistoryStore(config), Run(config).split.train_tasks
    if not len(store.missing(tasks)):
        (folder / "histories").symlink_to(os.path.abspath(Path(config.root) / "histories"))
        return _changed(config, folder)
    source, begin = config.source, time.perf_counter()
    least = 4 * max(config.env.episode_length, config.sequence_length)
    least = source.num_envs * max(least, config.data.history_stride)
    most = max(source.env_steps // 20, least)
    while True:
        steps = min(source.env_steps, most - most % source.num_envs)
        small = _changed(config, folder, **{"source.env_steps": steps, "data.env_steps": 0})
        collect_tasks(HistoryStore(small), tasks)
        seconds, begin = time.perf_counter() - begin, time.perf_counter()
        most = int(steps * SECONDS / seconds)
        if steps == source.env_steps or most < 2 * steps:
            return small


def _train(evidence: Evidence, small: Experiment) -> None:
    """Add the losses, the comparison without a context, and the model's rollout to the evidence."""
    run, steps = evidence.run, small.training.steps
    trainer = Trainer(Run.open(small))
    newest = checkpoints.newest(run.folder / "checkpoints")
    is_trained = newest is not None and newest.name == checkpoints.name(steps)
    if is_trained and not run.changed_settings():
        trainer.model.load_state_dict(load_model(run).state_dict())
    else:
        begin = time.perf_counter()
        for _ in range(10):
            trainer.train_step()
        steps = max(10, min(steps, int(10 * SECONDS / (time.perf_counter() - begin))))
        changes = {"steps": steps, "warmup_steps": min(small.training.warmup_steps, steps // 5)}
        shorter = replace(small.training, **changes, schedule_steps=0)
        shorter_run = Run.open(replace(small, name="shorter", training=shorter))
        trainer = Trainer(shorter_run, trainer.data)
        for _ in range(steps):
            trainer.train_step()
        evidence.losses = np.array([float(metrics["loss"]) for metrics in trainer.metrics])
    trainer.model.eval()
    evidence.ratio = _ratio_without_context(trainer)
    if run.world.can_be_stepped:
        _play_model(evidence, trainer)


@torch.inference_mode()
def _ratio_without_context(trainer: Trainer) -> float | None:
    """Return the loss on windows of held-out actors over that on their single transitions."""
    rng = np.random.default_rng(0)
    batch = to_device((trainer.held_out or trainer.data.train).sample(rng, WINDOWS), trainer.device)
    length = batch["valid"].shape[1]
    whole = float(trainer.method.loss(trainer.model, batch)[0])
    singles = []
    for start in np.linspace(0, length - 2, min(16, length - 1)).astype(int):
        single = {
            name: values[:, start : start + 2] if values.shape[1:2] == (length,) else values
            for name, values in batch.items()
        }
        if loss_mask(single).any():
            singles.append(float(trainer.method.loss(trainer.model, single)[0]))
    alone = float(np.mean(singles))
    return whole / alone if alone > 0 else None


def _play_model(evidence: Evidence, trainer: Trainer) -> None:
    """Add the rollout of the model on held-out tasks and its entropy to the evidence."""
    run, config = evidence.run, evidence.config
    tasks = _some(run.split.held_out_tasks, MODEL_TASKS)
    select, settings, seen = selection_of(config.evaluation), config.evaluation, []
    two = settings.temperature_known is not None
    divided = settings.temperature if two else 1.0  # by which the policy has divided the logits

    def select_action(logits: np.ndarray, u: np.ndarray) -> np.ndarray:
        acting = logits / sampling_temperature(settings)
        seen.append([_entropy(acting), _entropy(logits * divided)])
        return select(logits, u)

    length = config.env.episode_length
    steps = min(max(MODEL_STEPS, 8 * length), settings.episodes * length)
    policy = policy_of(config, trainer.method, trainer.model)(len(tasks))
    envs, everywhere = make_envs(config.env, tasks), range(len(tasks))
    evidence.model = rollout(
        policy, envs, [*everywhere], 0, select_action, everywhere, env_steps=steps
    )
    acting, model = np.array(seen).swapaxes(0, 1)  # [T, N] each
    if settings.action == "greedy":
        acting = np.zeros_like(acting)
    is_first, end = np.arange(steps)[:, None] < evidence.model.lengths[:, 0], -steps // 3
    first, late, cool = (float(own.mean()) for own in (acting[is_first], acting[end:], model[end:]))
    evidence.entropy = first, late, cool


def _entropy(logits: np.ndarray) -> np.ndarray:
    """Return the entropy of softmax(logits) as a share of the largest one, [N]."""
    most = np.log(np.maximum(np.isfinite(logits).sum(1), 2))
    return entr(softmax(logits, 1)).sum(1) / most
