"""Aggregates over worlds agree with the values of rliable 1.2.0 for the same numbers."""

import numpy as np
import pytest

from ad.evaluation.aggregates import (
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
)

A = np.random.default_rng(0).random((5, 17))  # 5 runs in each of 17 worlds
B = np.random.default_rng(1).random((5, 17))


def test_aggregates_agree_with_rliable():
    assert interquartile_mean(A) == pytest.approx(0.52474526, abs=1e-8)
    assert probability_of_improvement(A, B) == pytest.approx(0.46588235, abs=1e-8)
    profile = performance_profile(A, np.array([0.25, 0.5, 0.75]))
    assert profile == pytest.approx([0.77647059, 0.51764706, 0.25882353], abs=1e-8)


def test_ties_count_half():
    assert probability_of_improvement(A, A) == 0.5
