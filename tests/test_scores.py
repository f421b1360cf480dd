"""Estimates and comparisons of runs: against SciPy, by hand, and at the bounds of a score."""

import numpy as np
import pytest
from scipy import stats

from ad.evaluation.scores import (
    NOT_SIGNIFICANT,
    Comparison,
    Estimate,
    compare,
    estimate,
    holm,
    pool,
)


@pytest.mark.parametrize(("runs", "quantile"), [(2, 12.7062), (3, 4.3027), (10, 2.2622)])
def test_runs_have_the_t_interval_of_the_textbook(runs, quantile):
    values = np.arange(runs) / 10
    found = estimate(values.tolist())
    half = quantile * np.std(values, ddof=1) / np.sqrt(runs)
    assert found.mean == pytest.approx((runs - 1) / 20) and found.n == runs
    assert found.high - found.mean == pytest.approx(half, rel=1e-4)
    assert found.mean - found.low == pytest.approx(half, rel=1e-4)


def test_runs_of_several_splits_have_the_interval_of_the_split_means():
    found = estimate([0.4, 0.5, 0.6, None, 0.7, 0.7], ["a", "a", "a", "a", "b", "b"])
    half = 12.7062 * np.std([0.5, 0.7], ddof=1) / np.sqrt(2)
    assert (found.mean, found.n) == (pytest.approx(0.6), 2)
    assert found.high - found.mean == pytest.approx(half, rel=1e-4)


def test_split_means_that_agree_by_chance_do_not_make_an_interval_narrower():
    runs = [0.4, 0.6, 0.8, 0.8, 0.6, 0.4]  # both splits have the mean 0.6
    found = estimate(runs, ["a"] * 3 + ["b"] * 3)
    half = 2.570582 * np.std(runs, ddof=1) / np.sqrt(6)  # that of six runs
    assert found.high - found.mean == pytest.approx(half, rel=1e-4) and found.n == 2


def test_unknown_values_do_not_count_and_one_value_has_no_interval():
    assert estimate([None, 0.5, None]) == Estimate(0.5, n=1)
    assert estimate([None]) == Estimate(None)
    assert estimate([0.4, 0.6], ["a", "a"]).n == 2  # one split: the runs are independent


def test_the_interval_of_a_bounded_score_stays_within_its_bounds():
    found = estimate([0.99, 0.93, 0.96, 1.0], low=0, high=1)
    free = estimate([0.99, 0.93, 0.96, 1.0])
    assert free.high > 1 == found.high and found.low == free.low
    assert estimate([5, 107], low=1).low == 1
    beyond = estimate([1.02, 1.02], high=1)  # noisy rewards may exceed the expected optimum
    assert beyond.low == beyond.mean == beyond.high == 1.02


def test_an_estimate_is_written_with_its_interval_if_it_has_one():
    assert Estimate(0.5, 0.25, 0.75, 3).text(".2f") == "0.50 [0.25, 0.75]"
    assert (Estimate(0.5, n=1).text(".1f"), Estimate(None).text(".1f")) == ("0.5", "–")


def test_the_pooled_deviation_is_that_of_an_analysis_of_variance():
    pooled = pool([[1.0, 2.0, 3.0], [10.0, 12.0], [5.0]])
    # sums of squares 2 and 2, degrees of freedom 2 and 1; the group of one run says nothing
    assert pooled.freedom == 3 and pooled.value == pytest.approx(np.sqrt(4 / 3))
    half = 3.18245 * np.sqrt(4 / 3) * np.sqrt(1 / 3 + 1 / 2)
    found = pooled.estimate(-9.0, 3, 2)
    assert (found.low, found.high) == pytest.approx((-9 - half, -9 + half), rel=1e-5)
    assert pool([[1.0], [2.0], []]) is None


def test_two_groups_have_the_t_test_of_scipy():
    a, b = np.random.default_rng(0).normal(size=(2, 7))
    expected = stats.ttest_ind(a, b[:4])
    (found,) = compare({"a": a, "b": b[:4]}, "b").values()
    interval = expected.confidence_interval()
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.difference.low, found.difference.high) == pytest.approx(interval)


def test_differences_are_compared_with_0():
    values = np.random.default_rng(0).normal(1, size=5)
    expected = stats.ttest_1samp(values, 0)
    found = compare({"a": values, "none": []}, None)
    assert list(found) == ["a"] and found["a"].p == pytest.approx(expected.pvalue)


def test_groups_with_a_pooled_deviation_share_it_and_have_their_own_baselines():
    groups = {"x": [1.0, 3.0], "y": [4.0, 6.0], "u": [0.0], "v": [9.0], "w": []}
    baselines = {"x": "x", "y": "x", "v": "u", "w": "u"}
    found = compare(groups, baselines, pooled=groups.values())
    deviation = pool(groups.values())
    assert list(found) == ["y", "v"]  # a baseline and a group without runs have no comparison
    p_values = [deviation.p_value(3.0, 2, 2), deviation.p_value(9.0, 1, 1)]
    assert [found["y"].p, found["v"].p] == pytest.approx(holm(p_values))
    assert found["v"].difference == deviation.estimate(9.0, 1, 1)


def test_runs_without_variance_differ_surely_or_not_at_all():
    found = compare({"a": [0.5, 0.5], "b": [0.5, 0.5], "c": [0.6, 0.6]}, "a")
    assert (found["b"].p, found["b"].verdict) == (1, NOT_SIGNIFICANT)
    assert (found["c"].p, found["c"].verdict) == (0, "better")


def test_single_runs_have_a_difference_without_a_verdict():
    assert compare({"a": [1.0], "b": [1.5]}, "a") == {"b": Comparison(Estimate(0.5, n=1))}


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
    assert holm(p_values) == pytest.approx(corrected)
