"""n-step returns and generalized advantages, by hand and against discounted sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ad.sources.returns import generalized_advantages, n_step_returns

NO, YES = False, True


def returns(rewards, terminated, truncated, next_values, discount=0.5) -> list[float]:
    """Return the returns of one environment as a list."""
    flags = (np.array(terminated), np.array(truncated))
    values = (np.array(rewards, np.float32), *flags, np.array(next_values, np.float32))
    return n_step_returns(*values, discount).tolist()


def test_truncation_within_a_rollout_bootstraps_from_the_final_observation():
    # 2 + 0.5 * 6 = 5, 1 + 0.5 * 5 = 3.5
    assert returns([1, 2, 4], [NO] * 3, [NO, YES, NO], [90, 6, 8]) == [3.5, 5, 8]


def test_nan_in_a_value_that_is_not_used_does_not_matter():
    assert returns([1, 2, 4], [NO, YES, NO], [NO] * 3, [np.nan, np.nan, 8]) == [2, 2, 8]


def test_returns_are_float32_of_the_shape_of_the_values():
    rewards, flags = np.ones((4, 3, 2), np.float32), np.zeros((4, 3, 2), bool)
    result = n_step_returns(rewards, flags, flags, rewards, 0.9)
    assert (result.dtype, result.shape) == (np.float32, (4, 3, 2))


@st.composite
def rollouts(draw):
    """Rewards, terminated, truncated and next values [T, N], and a discount."""
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 3)))
    number = st.floats(-10, 10, width=32)
    floats = arrays.arrays(np.float32, shape, elements=number)
    flags = arrays.arrays(bool, shape)
    return (*(draw(kind) for kind in (floats, flags, flags, floats)), draw(st.floats(0, 1)))


def discounted_sum(rewards, terminated, truncated, next_values, discount, t):
    """Return the return of step t of one environment, summed forward in time."""
    total, weight = 0.0, 1.0
    while True:
        total += weight * rewards[t]
        weight *= discount
        if terminated[t]:
            return total
        if truncated[t] or t == len(rewards) - 1:
            return total + weight * next_values[t]
        t += 1


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rollouts())
def test_each_environment_has_the_discounted_sum_of_its_own_steps(rollout):
    *columns, discount = rollout
    result = n_step_returns(*columns, discount)
    for t, env in np.ndindex(result.shape):
        own = [column[:, env] for column in columns]
        assert result[t, env] == pytest.approx(discounted_sum(*own, discount, t), abs=1e-3)


def test_generalized_advantages_by_hand():
    # δ = 1 + 0.5 * 4 - 2 = 1, 2 + 0 - 4 = -2, 0 + 0.5 * 6 - 1 = 2, 4 + 0.5 * 2 - 3 = 2;
    # with γ λ = 0.25: 2, 2 (a time limit), -2 (a termination), 1 - 0.25 * 2 = 0.5
    rewards, values, next_values = ([1, 2, 0, 4], [2, 4, 1, 3], [4, 90, 6, 2])
    flags = [NO, YES, NO, NO], [NO, NO, YES, NO]
    columns = (np.array(column, np.float64) for column in (values, next_values))
    found = generalized_advantages(np.array(rewards), *map(np.array, flags), *columns, 0.5, 0.5)
    assert found.tolist() == [0.5, -2, 2, 2]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(rollouts())
def test_without_decay_a_generalized_advantage_is_the_return_less_the_value(rollout):
    rewards, terminated, truncated, next_values, discount = rollout
    values = np.roll(next_values, 1, axis=0)
    flags = terminated, truncated
    found = generalized_advantages(rewards, *flags, values, next_values, discount, 1.0)
    # The value of an observation is that of the next observation one step earlier.
    expected = n_step_returns(rewards, *flags, next_values, discount) - values
    np.testing.assert_allclose(found, expected, atol=1e-3)
