"""Scores of a run: computed by hand, at their bounds, and where something is unknown."""

import json

import numpy as np
import pytest

from ad.data.episodes import episodes_to
from ad.evaluation import metrics
from ad.evaluation.metrics import TaskFacts
from ad.evaluation.results import Evaluation
from ad.evaluation.summary import split_entry
from ad.reporting import tables

NAN = np.nan


def summary(
    returns, length: int = 4, optimal=1.0, random=0.1, shortest=2.0, success_ends: bool = True,
    successes=None, reward_in_context=0,
) -> dict:  # fmt: skip
    """A split's entry for returns [K, S, E]; the successes are the returns above 0."""
    returns = np.asarray(returns, float)
    facts = (np.broadcast_to(value, len(returns)) for value in (optimal, random, shortest))
    tasks = np.array([[k, 0] for k in range(len(returns))])
    successes = (returns > 0).astype(float) if successes is None else successes
    in_context = np.broadcast_to(reward_in_context, returns.shape)
    lengths = np.full(returns.shape, length)
    evaluation = Evaluation(tasks, returns, lengths, successes, in_context, returns)
    return split_entry(evaluation, TaskFacts(*facts, success_ends))


def test_nauc_is_the_mean_share_of_the_optimal_return():
    assert metrics.nauc(np.array([[0.0, 1.0], [1.0, 3.0]]), np.array([1, 4])).tolist() == [0.5, 0.5]


def test_the_normalized_return_is_0_for_random_and_1_for_optimal():
    random, optimal = np.array([0.2, 1.0]), np.array([1.0, 16.0])
    assert metrics.normalized(random, random, optimal).tolist() == [0, 0]
    assert metrics.normalized(optimal, random, optimal).tolist() == [1, 1]


def test_the_last_ten_are_all_episodes_when_there_are_fewer():
    assert metrics.last(np.arange(4.0)) == 1.5
    assert metrics.last(np.arange(20.0)) == 14.5


def test_episodes_that_fall_are_counted_among_all_completed_ones():
    completed = np.array([[1.0, 0.9, 0.95, NAN], [0.5, 0.475, 0.0, 0.0], [0.2, NAN, NAN, NAN]])
    assert metrics.falls(completed) == pytest.approx([1 / 3, 3 / 4, 0])
    assert np.isnan(metrics.falls(-completed[:2])).all()
    assert metrics.last_completed(completed).tolist() == [0.95, 0.0, 0.2]
    assert metrics.mean_of_known(completed, -1) == pytest.approx([0.95, 0.24375, 0.2])


def test_the_path_ratio_counts_the_successful_episodes_among_the_last_ten_only():
    lengths = np.array([[[2] * 5 + [20] * 8 + [4, 6]], [[20] * 15]])
    successes = np.array([[[1] * 5 + [0] * 8 + [1, 1]], [[0] * 15]])
    facts = TaskFacts(*np.full((3, 2), 2.0), True)
    np.testing.assert_equal(metrics.path_ratio(lengths, successes, facts), [2.5, NAN])


def test_a_single_good_episode_does_not_count_as_having_reached_the_target():
    curve = np.array([0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 0.0])
    assert episodes_to(curve, 0.8) == 12
    assert episodes_to(np.zeros(10), 0.5) is None
    assert episodes_to(np.ones(10), NAN) is None


def test_an_optimal_agent_has_every_score_at_its_best():
    best = summary(np.ones((3, 2, 20)), length=2)
    for name in ("nauc", "success_last10", "normalized_return_last10", "path_ratio_last10"):
        assert best[name] == pytest.approx(1)
    assert best["episodes_to_80pct"] == 1 and best["tasks_solved"] == best["num_tasks"] == 3
    assert (best["num_seeds"], best["num_episodes"], best["optimal_length"]) == (2, 20, 2)


def test_a_task_is_solved_from_8_successes_in_10():
    returns = np.ones((2, 1, 10))
    returns[0, 0, :2], returns[1, 0, :3] = 0, 0
    assert summary(returns)["tasks_solved"] == 1


def test_unknown_facts_are_null_and_the_entry_is_valid_json():
    entry = summary(np.ones((2, 1, 5)), optimal=NAN, shortest=NAN, random=NAN)
    unknown = ("nauc", "normalized_return_last10", "path_ratio_last10", "episodes_to_80pct")
    assert all(entry[name] is None for name in unknown) and entry["ci95"]["nauc"] is None
    assert entry["success_last10"] == 1
    json.dumps(entry, allow_nan=False)


def test_unknown_successes_are_null_and_the_returns_are_not():
    entry = summary(np.ones((2, 1, 5)), successes=np.full((2, 1, 5), NAN))
    names = ("success_last10", "tasks_solved", "path_ratio_last10", "first_success")
    assert [entry[name] for name in names] == [None] * 4
    assert entry["nauc"] == 1
    result = {"splits": {"held_out": entry, "train": entry}, "references": {}, "checkpoint": None}
    json.dumps(result, allow_nan=False)
    assert tables.search_table(result) is None
    assert "tasks solved" not in tables.run_table(result).compact().header


def test_a_task_out_of_reach_is_left_out_of_the_normalized_scores():
    returns = np.stack([np.ones((1, 5)), np.zeros((1, 5))])
    entry = summary(returns, optimal=[1.0, 0.0], random=[0.0, 0.0])
    assert (entry["nauc"], entry["normalized_return_last10"], entry["return_last10"]) == (1, 1, 0.5)
    assert [task["nauc"] for task in entry["per_task"]] == [1, None]


def test_a_path_has_no_length_where_success_does_not_end_the_episode():
    assert summary(np.ones((2, 1, 5)), success_ends=False)["path_ratio_last10"] is None


def test_the_interval_is_that_of_resampled_tasks():
    scores = np.array([0.0, 1.0])
    assert metrics.bootstrap(scores) == (0, 1)
    scores = np.random.default_rng(0).normal(size=400)
    low, high = metrics.bootstrap(scores)
    half = 1.96 * scores.std() / 20
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)
    assert (high + low) / 2 == pytest.approx(scores.mean(), abs=0.01)
    np.testing.assert_array_equal(metrics.bootstrap(scores), (low, high))  # no chance in it


def test_a_search_is_measured_by_the_first_success_of_each_rollout():
    successes = np.array([[[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], [[1, 0, 0, 0, 0, 0]] * 2])
    p_success = np.maximum.accumulate(successes, axis=2).mean(1)
    assert metrics.success_by(p_success, 1).tolist() == [0.0, 1.0]
    assert metrics.success_by(p_success, 5).tolist() == [0.5, 1.0]
    assert np.isnan(metrics.success_by(p_success, 10)).all()  # there are six episodes
    assert metrics.first_success(p_success).tolist() == [4.0, 1.0]  # 2 and 6, the last episode


def test_a_reward_that_leaves_the_context_does_not_count_as_a_new_search():
    """Two walks that each reach the goal in one of two episodes: both have reached it by then."""
    entry = summary([[[1.0, 0, 0, 0, 0]], [[0, 1.0, 0, 0, 0]]])
    assert (entry["found_by_1"], entry["found_by_5"], entry["first_success"]) == (0.5, 1.0, 1.5)
    assert entry["success_seen"] is None and entry["ci95"]["found_by_1"] == [0.0, 1.0]


def test_success_seen_is_that_of_episodes_with_a_reward_in_the_context():
    successes = np.array([[[0, 1, 1, 1], [0, 0, 0, 1]], np.zeros((2, 4), int)])
    reward_in_context = np.array([[[0, 0, 1, 1], [0, 1, 0, 0]], np.zeros((2, 4), int)])
    np.testing.assert_equal(metrics.success_seen(successes, reward_in_context), [2 / 3, NAN])
