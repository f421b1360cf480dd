"""What each method does that others do not, on a small room, with 95 % intervals over tasks.

The tasks of a test share its trained models: the intervals are those of these models.
"""

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student_t
from training_run import trained_run

from ad.evaluation.evaluate import evaluation_rollouts, load_model
from ad.rollout.rollout import Rollout
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
    names, seeds = ("algorithm_distillation", "expert_distillation"), range(3)
    cells, returns = {name: [] for name in names}, {name: [] for name in names}
    for name, seed in itertools.product(names, seeds):
        own = {"name": f"{name}-{seed}", "method.name": name, "training.train_seed": seed}
        run = trained_run(smoke, tmp_path, lives | own)
        held_out = played(run)["held_out"]
        returns[name].append(by_task(held_out.returns[:, 10:], run.split.held_out_tasks))
        cells[name].append(cells_seen(held_out))
    for what, each in {"return from episode 11 on": returns, "cells seen": cells}.items():
        learner, expert = (np.mean(each[name], axis=0) for name in names)  # over the trainings
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
    assert cells["sample"].mean() > 1.2 * cells["greedy"].mean()
