"""What each method does that others do not, on a small room, with 95 % intervals over tasks.

The tasks of a test share one trained model: the intervals are those of that model.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student_t
from training_run import train, trained_run, words_of

from ad.collection.collect import collect
from ad.config.parser import load
from ad.data.episodes import episodes, index_in_actor
from ad.data.load import load_dataset
from ad.evaluation.evaluate import evaluation_rollouts, load_model
from ad.methods import build_method
from ad.rollout.rollout import Rollout
from ad.rollout.tasks import policy_of, rollout_envs
from ad.runtime.run import Run

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
UNIFORM = {"source.algorithm": f"{HERE}/components.py:Uniform"}
SAMPLED = {"evaluation.eval_seeds": 5, "evaluation.temperature": 1.0}


def played(run: Run, **changes) -> dict[str, Rollout]:
    """Return the rollouts of a run on its two splits, with changes of its evaluation."""
    config = replace(run.config, evaluation=replace(run.config.evaluation, **changes))
    return evaluation_rollouts(config, run.split, load_model(run))


def by_task(values: np.ndarray, tasks: np.ndarray) -> np.ndarray:
    """Return the means [K] over seeds and episodes of `values` [seeds * K, E]."""
    return values.reshape(-1, len(tasks), values.shape[1]).mean((0, 2))


def source_returns(run: Run, num_episodes: int | None = None) -> np.ndarray:
    """Return the mean return [K] of the actors of each train task over their first episodes."""
    means = []
    for history in load_dataset(run).histories:
        arrays = history.arrays
        found = episodes(arrays["terminated"] | arrays["truncated"], arrays["reward"])
        means.append(found.returns[index_in_actor(found.actor) < (num_episodes or np.inf)].mean())
    return np.array(means)


def interval(what: str, values: np.ndarray) -> tuple[float, float]:
    """Print and return the 95 % interval of the mean of `values` [K] (Student's t)."""
    error = values.std(ddof=1) / np.sqrt(len(values))
    low, high = student_t.interval(0.95, len(values) - 1, values.mean(), error)
    print(f"{what}: {values.mean():.3f} [{low:.3f}, {high:.3f}]")
    return low, high


def test_expert_distillation_does_not_search_where_algorithm_distillation_does(smoke, tmp_path):
    lives = {  # a learner that searches; each actor is a life of 15 episodes or more
        "source.algorithm": "posterior_sampling",
        "source.settings": "{noise: 0.05}",
        "source.num_envs": 60,
        "source.env_steps": 60 * 180,
        "split.num_train_tasks": 15,
        "training.steps": 500,
        "evaluation.episodes": 20,
        **SAMPLED,
    }
    cells, returns = {}, {}
    for name in ("algorithm_distillation", "expert_distillation"):
        run = trained_run(smoke, tmp_path, {**lives, "name": name, "method.name": name})
        held_out = played(run)["held_out"]
        returns[name] = by_task(held_out.returns[:, 10:], run.split.held_out_tasks)
        cells[name] = cells_seen(held_out)
        interval(f"return from episode 11 on, {name}", returns[name])
        interval(f"cells seen, {name}", cells[name])
    for what, (learner, expert) in {
        "returns": returns.values(),
        "cells seen": cells.values(),
    }.items():
        assert interval(f"difference of the {what}", learner - expert)[0] > 0


def cells_seen(rollout: Rollout) -> np.ndarray:
    """Return how many cells each recorded environment has been in, float [R]."""
    observation, episode = (rollout.trajectory[name] for name in ("observation", "episode"))
    return np.array([len(set(o[e >= 0])) for o, e in zip(observation, episode, strict=True)], float)


def test_dpt_explores_by_sampling(smoke, tmp_path):
    settings = {
        "method.name": "dpt",
        **UNIFORM,
        "source.env_steps": 20_000,
        "method.settings.contexts": "shuffled",
        "training.steps": 500,
        "evaluation.episodes": 20,
        "evaluation.temperature": 1.0,
        "evaluation.policy": "{context_update: episode}",
    }
    run = trained_run(smoke, tmp_path, settings)
    cells = {
        action: cells_seen(played(run, action=action)["held_out"])
        for action in ("sample", "greedy")
    }
    for action, seen in cells.items():
        interval(f"cells seen, {action}", seen)
    assert interval("difference", cells["sample"] - cells["greedy"])[0] > 0
    assert cells["sample"].mean() > 2 * cells["greedy"].mean()


def test_in_context_q_learning_improves_on_the_return_of_its_histories(smoke, tmp_path):
    settings = {
        "method.name": "in_context_q",
        **UNIFORM,
        "source.env_steps": 40_000,
        "training.steps": 600,
        "evaluation.episodes": 30,
        "evaluation.eval_seeds": 5,
    }
    run = trained_run(smoke, tmp_path, settings)
    rollouts, random, above = played(run), run.world.random_return, {}
    for split, tasks in {
        "train": run.split.train_tasks,
        "held_out": run.split.held_out_tasks,
    }.items():
        # The histories are of random actions, so that their return is known for held-out tasks too.
        source = random(tasks, run.config.env.episode_length)
        above[split] = by_task(rollouts[split].returns[:, 10:], tasks) - source
        interval(f"above random actions, {split}", above[split])
    interval("return of the histories", source_returns(run))
    assert interval("above random actions, all tasks", np.concatenate([*above.values()]))[0] > 0.1
    assert above["held_out"].mean() > 0.1


def test_planning_in_context_is_better_than_the_policy_that_it_imitates(tmp_path):
    words = {
        "config_path": HERE.parent / "configs" / "leaderboard" / "dark_room_7x7.yaml",
        "root": tmp_path,
        "threads": 1,
        "split.tuning": "true",
        "source.source_seed": 100,
        "training.train_seed": 100,
        "training.eval_every": 1000,
        "training.eval_episodes": 1,
        "method.name": "in_context_planning",
    }
    run = Run.open(load(words_of(words)))
    collect(run)
    train(run.config)
    model, tasks, returns = load_model(run), run.split.held_out_tasks, []
    for policy in ({"plan_steps": 0}, {"plan_steps": 8, "return_weight": 0}):
        config = replace(run.config, evaluation=replace(run.config.evaluation, policy=policy))
        new_policy = policy_of(config, build_method(config.method), model)
        envs = [(seed, task) for seed in range(2) for task in tasks]
        returns.append(by_task(rollout_envs(config, envs, new_policy, 25).returns, tasks))
    imitated, planned = returns / run.world.optimal_return(tasks, run.config.env.episode_length)
    interval("NAUC, imitation", imitated)
    interval("NAUC, 8 steps", planned)
    assert interval("difference", planned - imitated)[0] > 0
