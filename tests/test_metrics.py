"""Scores: computed by hand, at their bounds, and where something is unknown."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from ad.data.episodes import episodes_to
from ad.evaluation import comparisons, metrics
from ad.reporting import tables

NAN = np.nan


def summary(
    returns, length: int = 4, optimal=1.0, random=0.1, shortest=2.0, success_ends: bool = True
) -> dict:
    """A split's entry for returns [N, S, E] whose successes are the returns above 0."""
    returns = np.asarray(returns, float)
    arrays_by_task = (np.broadcast_to(value, len(returns)) for value in (optimal, random, shortest))
    facts = metrics.TaskFacts(*arrays_by_task, success_ends)
    names = [f"{n}-0" for n in range(len(returns))]
    lengths = np.full(returns.shape, length)
    no_reward = np.zeros(returns.shape)
    return metrics.summarize(returns, lengths, returns > 0, facts, names, no_reward)


def test_nauc_is_the_mean_share_of_the_optimal_return():
    assert metrics.nauc(np.array([[0.0, 1.0], [1.0, 3.0]]), np.array([1, 4])).tolist() == [0.5, 0.5]


def test_the_normalized_return_is_0_for_random_and_1_for_optimal():
    random, optimal = np.array([0.2, 1.0]), np.array([1.0, 16.0])
    assert metrics.normalized(random, random, optimal).tolist() == [0, 0]
    assert metrics.normalized(optimal, random, optimal).tolist() == [1, 1]


def test_the_last_ten_are_all_episodes_when_there_are_fewer():
    assert metrics.last(np.arange(4.0)) == 1.5
    assert metrics.last(np.arange(20.0)) == 14.5


def test_the_path_ratio_counts_the_successful_episodes_among_the_last_ten_only():
    lengths = np.array([[[2] * 5 + [20] * 8 + [4, 6]]])
    successes = np.array([[[1] * 5 + [0] * 8 + [1, 1]]])
    assert metrics.path_ratio(lengths, successes, np.array([2.0])) == 2.5


def test_the_path_ratio_of_a_task_that_was_never_solved_is_unknown():
    assert np.isnan(metrics.path_ratio(np.full((1, 1, 3), 20), np.zeros((1, 1, 3)), np.ones(1)))


def test_a_single_good_episode_does_not_count_as_having_reached_the_target():
    curve = np.array([0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 1, 1, 0.0])
    assert episodes_to(curve, 0.8) == 12


def test_a_target_that_is_never_reached_or_unknown_has_no_episode():
    assert episodes_to(np.zeros(10), 0.5) is None
    assert episodes_to(np.ones(10), NAN) is None


def test_an_optimal_agent_has_every_score_at_its_best():
    best = summary(np.ones((3, 2, 20)), length=2)
    for name in ("nauc", "success_last10", "normalized_return_last10", "path_ratio_last10"):
        assert best[name] == pytest.approx(1)
    assert best["episodes_to_80pct"] == 1 and best["tasks_solved"] == best["num_tasks"] == 3


def test_a_task_is_solved_from_8_successes_in_10():
    returns = np.ones((2, 1, 10))
    returns[0, 0, :2], returns[1, 0, :3] = 0, 0
    assert summary(returns)["tasks_solved"] == 1


def test_every_key_of_the_design_is_there():
    keys = (
        "nauc success_last10 return_last10 normalized_return_last10 length_last10 optimal_length "
        "episodes_to_80pct tasks_solved num_tasks num_seeds ci95 per_task"
    )
    assert set(keys.split()) <= summary(np.ones((2, 3, 5))).keys()


def test_what_a_world_does_not_know_is_null_and_the_entry_is_valid_json():
    entry = summary(np.ones((2, 1, 5)), optimal=NAN, shortest=NAN, random=NAN)
    unknown = ("nauc", "normalized_return_last10", "path_ratio_last10", "episodes_to_80pct")
    assert all(entry[name] is None for name in unknown) and entry["ci95"]["nauc"] is None
    assert entry["success_last10"] == 1
    json.dumps(entry, allow_nan=False)


def test_successes_that_are_unknown_are_null_and_the_returns_are_not():
    returns, facts = np.ones((2, 1, 5)), metrics.TaskFacts(*np.ones((3, 2)), True)
    unknown = np.full(returns.shape, NAN)
    entry = metrics.summarize(returns, returns, unknown, facts, ["0", "1"], np.zeros(returns.shape))
    names = ("success_last10", "tasks_solved", "path_ratio_last10", "first_success")
    assert [entry[name] for name in names] == [None] * 4
    assert entry["nauc"] == 1
    result = {"splits": {"held_out": entry, "train": entry}, "references": {}, "timing": {}}
    json.dumps(result, allow_nan=False)
    assert tables.search_table(result) is None
    assert "solved" not in tables.run_table(result).compact().header


def test_a_task_out_of_reach_is_left_out_of_the_normalized_scores():
    returns = np.stack([np.ones((1, 5)), np.zeros((1, 5))])
    entry = summary(returns, optimal=[1, 0], random=[0.2, 0])
    assert entry["nauc"] == 1 and entry["normalized_return_last10"] == 1


def test_without_an_end_on_success_lengths_say_nothing_about_paths():
    assert summary(np.ones((2, 1, 5)), success_ends=False)["path_ratio_last10"] is None


def test_equal_scores_have_an_interval_of_no_width():
    assert summary(np.full((5, 1, 3), 0.3))["ci95"]["nauc"] == [0.3, 0.3]


def test_one_task_has_no_interval_and_the_method_says_so():
    entry = summary([[[0, 1, 1]]])
    assert entry["ci95"]["return_last10"] == [2 / 3, 2 / 3]
    assert "one task" in entry["ci95_method"]


def test_the_interval_of_one_run_is_said_to_be_over_the_tasks_of_one_model():
    assert "2 tasks of one trained model" in summary(np.ones((2, 1, 3)))["ci95_method"]


def test_the_bootstrap_interval_is_that_of_a_mean_of_many_tasks():
    scores = np.random.default_rng(0).normal(size=400)
    low, high = metrics.bootstrap(scores)
    half = 1.96 * scores.std() / np.sqrt(400)
    assert (high - low) / 2 == pytest.approx(half, rel=0.03)
    assert (high + low) / 2 == pytest.approx(scores.mean(), abs=0.01)


@settings(max_examples=10, deadline=None)
@given(arrays.arrays(float, st.tuples(st.integers(1, 6), st.just(2)), elements=st.floats(-5, 5)))
def test_the_interval_lies_within_the_scores(scores):
    low, high = metrics.bootstrap(scores)
    assert (scores.min(0) <= low).all() and (low <= high).all() and (high <= scores.max(0)).all()


def test_the_bootstrap_is_the_same_every_time():
    scores = np.random.default_rng(1).random(7)
    assert metrics.bootstrap(scores) == metrics.bootstrap(scores)


@pytest.mark.parametrize(("runs", "quantile"), [(2, 12.7062), (3, 4.3027), (10, 2.2622)])
def test_runs_have_the_t_interval_of_the_textbook(runs, quantile):
    entries = [summary(np.full((2, 1, 3), k / 10)) for k in range(runs)]
    nauc = metrics.across_runs(entries)["nauc"]
    half = quantile * np.std(np.arange(runs) / 10, ddof=1) / np.sqrt(runs)
    assert nauc["mean"] == pytest.approx((runs - 1) / 20) and nauc["n"] == runs
    assert nauc["hi"] - nauc["mean"] == pytest.approx(half, rel=1e-4)


def test_runs_of_several_splits_have_the_interval_of_the_split_means():
    entries = [summary(np.full((2, 1, 3), nauc)) for nauc in (0.4, 0.5, 0.6, 0.7, 0.7)]
    nauc = metrics.across_runs(entries, ["a", "a", "a", "b", "b"])["nauc"]
    half = 12.7062 * np.std([0.5, 0.7], ddof=1) / np.sqrt(2)
    assert (nauc["mean"], nauc["n"]) == (pytest.approx(0.6), 2)
    assert nauc["hi"] - nauc["mean"] == pytest.approx(half, rel=1e-4)
    assert nauc["method"] == "t-interval over the means of 2 splits"


def test_a_single_run_has_no_interval_and_says_so():
    nauc = metrics.across_runs([summary(np.ones((2, 1, 3)))])["nauc"]
    assert (nauc["mean"], nauc["lo"], nauc["hi"], nauc["method"]) == (1, None, None, "one run")


def test_a_run_without_a_score_is_not_counted():
    entries = [summary(np.zeros((2, 1, 6))), summary(np.ones((2, 1, 6)))]
    assert metrics.across_runs(entries)["episodes_to_80pct"]["n"] == 1


@pytest.mark.parametrize("optimal", [1.0, 0.0, NAN])
@pytest.mark.parametrize("score", [0.0, 1.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 12), (3, 1, 12), (3, 4, 12)])
def test_equal_scores_give_no_nan_in_any_table_nor_in_results_json(shape, score, optimal):
    entry = summary(np.full(shape, score), optimal=optimal)
    result = {"splits": {"held_out": entry, "train": entry}, "references": {}, "timing": {}}
    json.dumps(result, allow_nan=False)
    twins = [{"a": result}, {"b": result, "c": result}, {"d": "not evaluated"}]
    shown = [tables.run_table(result), tables.runs_table(twins), tables.tasks_table(entry, {})]
    assert not any("nan" in table.markdown().lower() for table in shown)


def test_a_search_is_measured_by_the_first_success_of_each_rollout():
    successes = np.array([[[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]], [[1, 0, 0, 0, 0, 0]] * 2])
    found = np.maximum.accumulate(successes, axis=2).mean(1)
    scores = {name: values.tolist() for name, values in metrics.search_scores(found).items()}
    np.testing.assert_equal(scores.pop("found_by_10"), [NAN, NAN])  # there are six episodes
    np.testing.assert_equal(scores.pop("found_by_25"), [NAN, NAN])
    assert scores == {
        "found_by_1": [0.0, 1.0],
        "found_by_5": [0.5, 1.0],
        "first_success": [4.0, 1.0],  # the mean of 2 and of 6, the last episode
    }


def test_a_reward_that_leaves_the_context_does_not_count_as_a_new_search():
    """Two walks that each find the goal in one of two episodes: both have found it by then."""
    successes = np.array([[[1.0, 0, 0, 0, 0]], [[0, 1.0, 0, 0, 0]]])
    entry = metrics.summarize(
        successes, successes, successes, metrics.TaskFacts(*np.ones((3, 2)), True), ["0", "1"],
        np.zeros(successes.shape),
    )  # fmt: skip
    assert (entry["found_by_1"], entry["found_by_5"], entry["first_success"]) == (0.5, 1.0, 1.5)
    assert entry["success_seen"] is None and entry["ci95"]["found_by_1"] == [0.0, 1.0]


def test_success_seen_is_that_of_episodes_with_a_reward_in_the_context():
    successes = np.array([[[0, 1, 1, 1], [0, 0, 0, 1]], np.zeros((2, 4), int)])
    reward_in_context = np.array([[[0, 0, 1, 1], [0, 1, 0, 0]], np.zeros((2, 4), int)])
    np.testing.assert_equal(metrics.success_seen(successes, reward_in_context), [2 / 3, NAN])


def test_the_pooled_deviation_is_that_of_an_analysis_of_variance():
    groups = [[1.0, 2.0, 3.0], [10.0, 12.0], [5.0]]
    pooled = comparisons.pool(groups)
    # sums of squares 2 and 2, degrees of freedom 2 and 1; the group of one run says nothing
    assert pooled.freedom == 3 and pooled.deviation == pytest.approx(np.sqrt(4 / 3))
    half = 3.18245 * np.sqrt(4 / 3) * np.sqrt(1 / 3 + 1 / 2)
    assert pooled.interval(-9.0, 3, 2) == pytest.approx((-9 - half, -9 + half), rel=1e-5)
    assert comparisons.pool([[1.0], [2.0], []]) is None


def test_two_groups_have_the_t_test_of_scipy():
    a, b = np.random.default_rng(0).normal(size=(2, 7))
    expected = stats.ttest_ind(a, b[:4])
    pooled, difference = comparisons.pool([a, b[:4]]), a.mean() - b[:4].mean()
    assert pooled.p_value(difference, 7, 4) == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert pooled.interval(difference, 7, 4) == pytest.approx((interval.low, interval.high))


def test_runs_without_variance_differ_surely_or_not_at_all():
    pooled = comparisons.pool([[0.5, 0.5], [0.5, 0.5]])
    assert (pooled.p_value(0.0, 2, 2), pooled.p_value(0.1, 2, 2)) == (1, 0)
    assert pooled.interval(0.1, 2, 2) == (0.1, 0.1)


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([], []),
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4, 3, 2 and 1 times, sorted
        ([0.01, 0.01, 0.01], [0.03, 0.03, 0.03]),
        ([0.9, 0.001, 0.4], [0.9, 0.003, 0.8]),
        ([0.5, 0.9], [1, 1]),
    ],
)
def test_holms_correction_is_that_of_his_sequential_test(p_values, corrected):
    assert comparisons.holm(p_values) == pytest.approx(corrected)
