"""The scores of an entry on the tasks of its claim and on others, for the process that verifies it.

`evaluate_files` runs in a child process (`ad.runtime.isolated`): the files are those of a stranger.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ad.config.parser import load_file
from ad.config.schema import Experiment
from ad.config.world import configured_world, task_changes
from ad.errors import CorruptError, MachineError
from ad.evaluation.results import Evaluation, read_results, write_results
from ad.evaluation.summary import split_entry, task_facts
from ad.exchange.release import CLAIM, PROGRAM, load_release
from ad.methods import build_method
from ad.methods.policy import Policy
from ad.rollout.program import ProgramPolicy
from ad.rollout.rollout import Rollout
from ad.rollout.tasks import policy_of, rollout_envs, rollout_tasks
from ad.runtime.devices import choose_device
from ad.runtime.isolated import has_network
from ad.runtime.run import Run
from ad.training.provenance import check_fingerprint, evaluation_hardware
from envs.presets import resolve

LEAST_TASKS, MOST_TASKS = 10, 100  # of those that `seed` draws
NewPolicy = Callable[[int], Policy]


def evaluate_files(folder: str, threads: int, seed: int) -> dict:
    """Return the scores of the entry whose files lie in `folder`; for a child process.

    splits: the entry `splits` of results.json. fresh: such an entry for what `seed` draws, and
    `about` says what that is. evaluated_on: the hardware. program: whether the policy is one.
    Raises CorruptError and ConfigError.
    """
    place = Path(folder)
    own = {"root": folder, "device": "cpu", "threads": threads}
    run = Run(load_file(place / "config.yaml", **own))  # checks the settings, the name among them
    claim, is_program = json.loads((place / CLAIM).read_bytes()), (place / PROGRAM).exists()
    if not is_program:
        check_fingerprint(claim, run.config, run.split)
    if claim["split"] != run.split.hash:
        raise CorruptError("its list of tasks is not the one that the claim is about")
    device = choose_device(run.config)
    new_policy = _program(run, place / PROGRAM) if is_program else _model(run, place)
    splits = _splits(run, new_policy, place / "again")
    about, fresh = _fresh(run, new_policy, seed)
    on = evaluation_hardware(run.config, device)
    scores = {"splits": splits, "about": about, "fresh": fresh, "evaluated_on": on}
    return scores | {"program": is_program}


def _model(run: Run, folder: Path) -> NewPolicy:
    return policy_of(run.config, build_method(run.config.method), load_release(folder).model)


def _program(run: Run, path: Path) -> NewPolicy:
    """Return what starts the program. Raises MachineError where it would have a network."""
    if has_network():
        raise MachineError(
            "this kernel lets no process be without a network (unshare), so that no program is run"
        )
    actions, length = int(run.world.single_action_space.n), run.config.env.episode_length
    return partial(ProgramPolicy, path, num_actions=actions, episode_length=length)


def _splits(run: Run, new_policy: NewPolicy, folder: Path) -> dict:
    """Return the scores of both splits by way of results.csv, as an evaluation does."""
    settings, split = run.config.evaluation, run.evaluated_split
    seeds = (settings.eval_seeds, settings.train_eval_seeds)
    played = rollout_tasks(
        run.config, split, new_policy, settings.episodes, seeds, True, True, settings.env_steps
    )
    write_results(folder, split, played)
    evaluations = read_results(folder / "results.csv")
    return {name: _scores(run.config, own) for name, own in evaluations.items()}


def _scores(config: Experiment, evaluation: Evaluation) -> dict:
    world, length = configured_world(config.env), config.env.episode_length
    return split_entry(evaluation, task_facts(world, length, evaluation.tasks))


def _fresh(run: Run, new_policy: NewPolicy, seed: int) -> tuple[str, dict]:
    """Return what `seed` draws, as text, and the scores there."""
    config, split, settings = run.config, run.split, run.config.evaluation
    used = np.concatenate([split.train_index, split.held_out_index])
    tasks = np.delete(split.all_tasks, used, axis=0)
    about = "tasks that are in neither part of the split"
    world, kwargs = resolve(config.env.id, config.env.kwargs)
    if hasattr(run.world, "family_seed"):
        env = replace(config.env, id=world, kwargs=kwargs | {"family_seed": seed})
        config = replace(config, env=env)
        tasks, about = configured_world(config.env).all_tasks(), f"tasks of family_seed {seed}"
    elif len(tasks) < LEAST_TASKS:
        tasks = split.held_out_tasks
        about = f"held-out tasks, evaluation seeds from {seed} on"
    tasks = np.random.default_rng(seed).permutation(tasks)[:MOST_TASKS]
    envs = [(seed + n, task) for n in range(settings.eval_seeds) for task in tasks]
    changes = task_changes(config.env, [tasks], envs)
    played = rollout_envs(
        config, envs, new_policy, settings.episodes, (), "fresh", settings.env_steps, changes
    )
    return about, _scores(config, _evaluation(tasks, played))


def _evaluation(tasks: np.ndarray, played: Rollout) -> Evaluation:
    """Return the episodes that all rollouts [S * K, E] completed, seed by seed, as [K, S, E]."""

    def by_task(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, len(tasks), values.shape[1]).swapaxes(0, 1)

    common = np.isfinite(played.returns).sum(1).min()
    names = ("returns", "lengths", "successes", "reward_in_context")
    first = (by_task(getattr(played, name))[..., :common] for name in names)
    present = None
    if played.tasks is not None:
        same = played.tasks[:, :common, None] == tasks  # [S * K, E, K, D]
        present = by_task(same.all(-1).argmax(-1))
    return Evaluation(tasks, *first, completed=by_task(played.returns), present=present)
