"""Try the world, source, model and method of an experiment against their contracts, in seconds.

Each trial plays or trains on a few hundred transitions in a temporary folder, and names what a
component gets wrong before hours of collection and training depend on it. A component whose numbers
depend on its batch is the fault that is hardest to see later.
"""

import contextlib
import io
import math
import re
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ad.collection.collect import collect_tasks
from ad.config.parser import load_file
from ad.config.schema import Experiment, dump
from ad.config.world import configured_world, make_envs, task_changes
from ad.data.dataset import to_device
from ad.data.histories import HistoryStore
from ad.data.store import load_history
from ad.errors import ADError, ConfigError, MachineError
from ad.methods import build_method, build_model
from ad.methods.base import Method
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.pipeline import run_all
from ad.rollout.rollout import rollout
from ad.rollout.tasks import policy_of
from ad.runtime import console
from ad.runtime.run import Run
from ad.training.trainer import TrainingData, load_training_data
from envs.rng import draw_allowed
from envs.world_check import world_problems

LIBRARIES = re.compile(r"/(torch|numpy|gymnasium)/")
PLAYED = 30  # env steps of a rollout
TOLERANCE = 1e-3  # of logits that are computed in another order of additions
SMALL = {
    "source.state_every": 0,
    "data.history_stride": 1,
    "data.env_steps": 0,
    "training.steps": 3,
    "training.micro_batches": 1,
    "training.warmup_steps": 0,
    "training.eval_every": 3,
    "training.eval_episodes": 1,
    "training.log_every": 1,
    "evaluation.episodes": 2,
    "evaluation.env_steps": None,
    "evaluation.eval_seeds": 1,
    "evaluation.calibration": [],
    "evaluation.worlds": [],
    "record.held_out_videos": 0,
    "record.source_videos": False,
}


def check(config: Experiment) -> None:
    """Print a line for each trial of `config`; raises ConfigError with what is wrong, if anything.

    The experiment itself is not run: a small one with its components is, on at most three of its
    train tasks. Of a method that learns in the worlds only the world is tried.
    """
    problems, method = [], build_method(config.method)
    titles = TRIALS if method.reads_histories and method.has_model else ["world"]
    with tempfile.TemporaryDirectory() as root:
        small = _small(config, Path(root))
        for title in titles:
            with contextlib.redirect_stdout(io.StringIO()):
                found = _tried(TRIALS[title], small)
            console.info(f"{title}: {'wrong' if found else 'fine'}")
            problems += [f"{title}: {problem}" for problem in found]
            if found and title in NEEDED:
                break  # what follows would say the same again
    if problems:
        raise ConfigError("\n  ".join([f"problems: {len(problems)}", *problems]))


def _small(config: Experiment, root: Path) -> Experiment:
    """Return the experiment with few and short histories, in the folder `root`."""
    path, episode = root / "experiment.yaml", config.env.episode_length
    path.write_text(dump(replace(config, root=str(root), name="check")))
    length = min(max(12, episode), config.data.context_length)
    world, split, method = configured_world(config.env), config.split, build_method(config.method)
    first, last = method.history_part  # which holds an episode
    steps = max(120, 3 * episode, 2 * length, math.ceil(2 * episode / (last - first)))
    steps = min(steps, world.life or steps)
    changed = {
        "split.num_train_tasks": min(3, config.split.num_train_tasks),
        "env.change": min(config.env.change, 1),  # evaluations have two episodes
        "source.env_steps": config.source.num_envs * steps,
        "training.batch_size": 8 * config.training.segments,
        "model.positions": max(steps, config.model.positions),
    }
    if split.held_out is None and not split.tuning and len(world.all_tasks()) > 20:
        changed["split.num_held_out"] = 3
    if world.life:
        changed["evaluation.env_steps"] = world.life
    if method.reads_histories:  # else its settings may depend on the length
        changed["data.context_length"] = length
    try:
        return load_file(path, **SMALL | changed)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(path), "the small experiment")) from error


def _tried(trial: Callable[[Experiment], Iterator[str]], config: Experiment) -> list[str]:
    """Return the problems that a trial finds, among them the error that ends it."""
    found = []
    try:
        found.extend(trial(config))
    except MachineError:  # which no component has caused
        raise
    except (ADError, ValueError) as error:
        found.append(str(error))
    except Exception as error:  # whatever a user's class raises
        frames = traceback.extract_tb(error.__traceback__)
        theirs = [own for own in frames if not LIBRARIES.search(own.filename)]
        frame = (theirs or frames)[-1]
        place = f"{frame.filename}:{frame.lineno}"
        found.append(f"it raises {type(error).__name__} at {place}: {error}")
    return found


def _world(config: Experiment) -> Iterator[str]:
    """Yield what is wrong with the world."""
    world = configured_world(config.env)

    def envs_of(tasks: np.ndarray):
        changes = task_changes(config.env, [world.all_tasks()], [(0, task) for task in tasks])
        return make_envs(config.env, tasks, changes)

    yield from world_problems(world, envs_of, config.env.episode_length)


def _source(config: Experiment) -> Iterator[str]:
    """Yield what differs between the histories of a task alone and among others."""
    tasks = Run.open(config).split.train_tasks
    roots = config.root, str(Path(config.root) / "alone")
    stores = [HistoryStore(replace(config, root=root)) for root in roots]
    for store, own in zip(stores, (tasks, tasks[-1:]), strict=True):
        collect_tasks(store, own)
    together, alone = (load_history(store.folder(tasks[-1])).arrays for store in stores)
    for name, values in together.items():
        if not np.array_equal(values, alone[name], equal_nan=values.dtype.kind == "f"):
            yield (
                f"a task has another {name} when it is learned alone than among others, or twice: "
                "random numbers must come from the keys of the agent"
            )


def _model(config: Experiment) -> Iterator[str]:
    """Yield what is wrong with encoders and memory: gradients, and logits of a rollout."""
    method, data = _prepared(config)
    model = build_model(method, data.spec, config, torch.device("cpu"))
    loss, _ = method.loss(model, _batch(data))
    loss.backward()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    given = [(name, p.grad) for name, p in trained if p.grad is not None]
    if broken := [name for name, grad in given if not grad.isfinite().all()]:
        yield f"the gradient of {broken[0]} is not finite"
    without_gradient = [
        name
        for name, p in trained
        if (p.grad is None or not p.grad.any()) and name != "tokenizer.reward.none.weight"
    ]  # a window may not begin a history, where no reward is
    if without_gradient:
        yield f"no gradient reaches {', '.join(without_gradient)}"
    if model.tokenizer.inputs:
        return  # a policy of the method gives them
    torch.nn.init.normal_(model.head.weight)  # logits that are large enough to compare
    differences = []

    class Compared(ContextPolicy):
        def act(self, observation, time):
            logits = super().act(observation, time)
            full = model(self.window())[:, -1]
            differences.append(float((logits - full).abs().max()))
            return logits

    model.eval()
    # The window of a model that carries a state holds all that was played.
    length = PLAYED if model.carries else config.data.context_length
    tasks = Run.open(config).split.train_tasks[[0, 0, -1]]
    _play(config, Compared(model, SlidingWindow(model, 3, length)), tasks, [1, 2, 3])
    if max(differences) > TOLERANCE:
        step = next(i for i, own in enumerate(differences) if own > TOLERANCE)
        yield (
            f"logits of a rollout differ by {max(differences):.2g} from those of a pass over the "
            f"whole window, first at env step {step}: a cache must hold what the window holds"
        )


def _method(config: Experiment) -> Iterator[str]:
    """Yield what is wrong with the loss and the policy of the method."""
    method, data = _prepared(config)
    model = build_model(method, data.spec, config, torch.device("cpu"))
    batch = _batch(data)
    losses = [method.loss(model, own)[0].item() for own in (batch, _with_other_padding(batch))]
    if not np.isfinite(losses).all():
        yield f"its loss is {losses[0]}"
    elif abs(losses[0] - losses[1]) > TOLERANCE * max(1, abs(losses[0])):
        yield "its loss depends on entries of the window that are not `valid`"
    model.eval()
    new_policy = policy_of(config, method, model)
    tasks = Run.open(config).split.train_tasks[[0, -1, 0]]
    together = _play(config, new_policy(3), tasks, [1, 2, 3])
    alone = _play(config, new_policy(1), tasks[1:2], [2])
    difference = max(
        np.abs(ours[1] - own[0]).max() for ours, own in zip(together, alone, strict=True)
    )
    if difference > TOLERANCE:
        yield (
            f"its logits in an environment differ by {difference:.2g} with what other environments "
            "play beside it"
        )


def _whole(config: Experiment) -> Iterator[str]:
    """Collect, train, evaluate and report; yield nothing."""
    run_all([Run.open(config)])
    yield from ()


TRIALS: dict[str, Callable[[Experiment], Iterator[str]]] = {
    "world": _world,
    "source": _source,
    "model": _model,
    "method": _method,
    "all verbs": _whole,
}
NEEDED = ("world", "source")  # by all that follow


def _prepared(config: Experiment) -> tuple[Method, TrainingData]:
    """Return the method and the data that it trains on."""
    torch.manual_seed(0)
    method = build_method(config.method)
    return method, load_training_data(Run.open(config), method)


def _batch(data: TrainingData) -> dict[str, torch.Tensor]:
    """Return windows whose last third is not valid, as at the end of a short history."""
    batch = to_device(data.train.sample(np.random.default_rng(0), 16), torch.device("cpu"))
    length = batch["valid"].shape[1]
    return batch | {"valid": batch["valid"] & (torch.arange(length) < max(2, 2 * length // 3))}


def _with_other_padding(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the windows with entries of other windows where they are not valid."""
    invalid = ~batch["valid"]
    invalid[:, 0] = False  # the transition before the window
    changed = {name: values.clone() for name, values in batch.items()}
    for name, values in changed.items():
        if name != "valid" and values.shape[:2] == invalid.shape:
            values[invalid] = values.roll(1, 0).roll(3, 1)[invalid]
    return changed


def _play(config: Experiment, policy, tasks: np.ndarray, seeds: list[int]) -> list[np.ndarray]:
    """Return the logits [N, A] of each step of a rollout whose actions are random."""
    played = []

    def select_action(logits: np.ndarray, u: np.ndarray) -> np.ndarray:
        played.append(logits.copy())
        return draw_allowed(np.isfinite(logits), u)

    rollout(policy, make_envs(config.env, tasks), seeds, 0, select_action, env_steps=PLAYED)
    return [np.where(np.isfinite(logits), logits, 0) for logits in played]
