"""Evaluation: every number belongs to its task and its seed."""

import csv

import numpy as np
import pytest
import torch

from ad.evaluation.metrics import TaskFacts
from ad.evaluation.results import read_results, write_results
from ad.evaluation.summary import split_entry
from ad.methods.policy import Policy
from ad.rollout.tasks import rollout_tasks
from ad.runtime.run import Run

HELD_OUT = "[[0, 0], [0, 1], [2, 2]]"
ABOVE = "0-1"  # the task whose goal is one step up from the start


class Upwards(Policy):
    """A policy that always goes up: it succeeds in one step on one task, and on no other."""

    def act(self, observation: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return torch.tensor([-1e9, 0.0, -1e9, -1e9, -1e9]).expand(len(observation), 5)

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        pass

    def select(self, envs: torch.Tensor) -> None:
        pass


@pytest.fixture
def run(smoke, tmp_path) -> Run:
    """Return a run with the results of going up, with three seeds per held-out task."""
    made = Run.open(smoke(tmp_path, "--split.held_out", HELD_OUT))
    results = rollout_tasks(made.config, made.split, lambda _: Upwards(), 4, (3, 1), record=True)
    write_results(made.folder, made.split, results)
    return made


def test_every_row_of_the_results_belongs_to_its_task(run):
    with open(run.folder / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == (3 * 3 + 5) * 4
    for row in rows:
        won = row["task"] == ABOVE
        assert (row["success"], row["length"]) == (("1", "1") if won else ("0", "5")), row
        assert float(row["return"]) == won


def test_scores_by_episode_are_of_the_episodes_that_every_rollout_completed(smoke, tmp_path):
    # In 12 env steps the task above has 12 episodes, and the others two and the beginning of one.
    words = ["--split.held_out", HELD_OUT, "--evaluation.env_steps", "12"]
    made = Run.open(smoke(tmp_path, *words))
    results = rollout_tasks(
        made.config, made.split, lambda _: Upwards(), 4, (3, 1), True, False, 12
    )
    write_results(made.folder, made.split, results)
    found = read_results(made.folder / "results.csv")["held_out"]
    won = (found.tasks == [0, 1]).all(1)
    assert found.returns.shape == (3, 3, 2) and found.completed.shape == (3, 3, 12)
    np.testing.assert_array_equal(found.completed[won], 1)
    np.testing.assert_array_equal(found.completed[~won][..., :2], 0)
    assert np.isnan(found.completed[~won][..., 2:]).all()
    entry = split_entry(found, TaskFacts(*np.full((3, 3), np.nan), True))
    assert entry["return_completed"] == entry["return_last"] == pytest.approx(1 / 3)
    assert entry["falls"] == pytest.approx((0 + 1 / 2 + 1 / 2) / 3)  # 0 after 0 falls
    assert entry["success_last10"] == pytest.approx(1 / 3) and entry["num_episodes"] == 2


def test_every_trajectory_belongs_to_its_task(run):
    steps = np.load(run.folder / "trajectories.npz", allow_pickle=False)
    assert steps["split"].tolist() == ["held_out"] * 3 + ["train"] * 5
    assert steps["task"].tolist() == [
        *run.split.held_out_tasks.tolist(),
        *run.split.train_tasks.tolist(),
    ]
    won = (steps["task"] == [0, 1]).all(1)
    np.testing.assert_array_equal((steps["reward"] > 0).any(1), won)


def test_trajectories_of_different_lengths_are_padded_with_episode_minus_one(run):
    steps = np.load(run.folder / "trajectories.npz", allow_pickle=False)
    assert steps["episode"].shape == (8, 20)
    won = (steps["task"] == [0, 1]).all(1)
    np.testing.assert_array_equal((steps["episode"] >= 0).sum(1), np.where(won, 4, 20))


def test_seeds_of_one_task_differ_and_a_seed_is_the_same_in_any_number_of_them(smoke, tmp_path):
    class Wanderer(Upwards):
        def act(self, observation, time):
            return torch.zeros(len(observation), 5)

    made, policy = Run.open(smoke(tmp_path)), Wanderer()
    one, three = (
        rollout_tasks(made.config, made.split, lambda _: policy, 6, (count, 1))["held_out"].lengths
        for count in (1, 3)
    )
    by_seed = three.reshape(3, 3, 6)  # [S, N, E]
    np.testing.assert_array_equal(one, by_seed[0])
    assert not np.array_equal(by_seed[0], by_seed[1])


def test_results_say_of_each_episode_whether_the_context_held_a_reward(run):
    path = run.folder / "results.csv"
    for evaluation in read_results(path).values():
        np.testing.assert_array_equal(
            evaluation.reward_in_context, np.zeros_like(evaluation.successes)
        )
    text = path.read_text().replace(",0,5,0,0\n", ",0,5,0,1\n")
    path.write_text(text)
    for evaluation in read_results(path).values():
        np.testing.assert_array_equal(evaluation.reward_in_context, 1 - evaluation.successes)
