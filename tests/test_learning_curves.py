"""Learning curves of source agents: counted chunk by chunk, over strided episodes."""

import numpy as np
import pytest

from ad.data import curves as learning_curves
from ad.data.curves import LearningCurves
from ad.data.schema import TransitionChunk
from envs import make_base

NAN = np.nan


def lives(seed: int, steps: int, agents: int, actors: int) -> dict[str, np.ndarray]:
    """Random rewards and ends [T, K, N]."""
    rng = np.random.default_rng(seed)
    shape = (steps, agents, actors)
    return {
        "action": np.zeros(shape, np.uint8),
        "reward": rng.integers(2, size=shape).astype(np.float32) * (rng.random(shape) < 0.3),
        "terminated": rng.random(shape) < 0.1,
        "truncated": rng.random(shape) < 0.1,
    }


def one_by_one(data: dict[str, np.ndarray], agent: int, stride: int) -> list[list[tuple]]:
    """(return, length, success, success_length) of the episodes of each strided episode."""
    bins: dict[int, list[tuple]] = {}
    for actor in range(data["reward"].shape[2]):
        number, total, length = 0, 0.0, 0
        for t in range(len(data["reward"])):
            place = (t, agent, actor)
            total, length = total + data["reward"][place], length + 1
            if data["terminated"][place] or data["truncated"][place]:
                success = total > 0
                row = (total, length, success, success * length)
                bins.setdefault(number // stride, []).append(row)
                number, total, length = number + 1, 0.0, 0
    whole = stride * data["reward"].shape[2]
    return [bins[j] for j in sorted(bins) if len(bins[j]) == whole]


@pytest.mark.parametrize("cuts", [(), (1, 2, 3, 50), (97,), (30, 60, 90, 91, 92)])
@pytest.mark.parametrize("stride", [1, 3])
def test_a_curve_is_the_mean_over_all_phases_and_actors_of_an_agent(stride, cuts):
    data = lives(0, 150, 2, 4)
    curves = LearningCurves(make_base("DarkRoom-v0"), 2, 4, 150, stride)
    for start, stop in zip((0, *cuts), (*cuts, 150), strict=True):
        curves.add(TransitionChunk({name: array[start:stop] for name, array in data.items()}))
    found = curves.curves()
    for k in range(2):
        expected = np.array([np.mean(rows, axis=0) for rows in one_by_one(data, k, stride)]).T
        for name, row in zip(found, expected, strict=True):
            np.testing.assert_allclose(found[name][k, : len(row)], row, err_msg=name)
            assert np.isnan(found[name][k, len(row) :]).all()


def test_the_area_counts_a_return_for_as_many_steps_as_its_episodes_took():
    curve = {"return": np.array([[0.0, 1.0, NAN]]), "length": np.array([[20.0, 5.0, NAN]])}
    assert learning_curves.area(curve) == [0.2]


def test_the_final_value_is_the_mean_of_the_last_tenth():
    values = np.array([[*np.arange(20.0), NAN], [5.0, 7.0, *[NAN] * 19], [NAN] * 21])
    np.testing.assert_array_equal(learning_curves.final_mean(values), [18.5, 7.0, NAN])


def test_a_rise_ends_at_nine_tenths_of_the_final_return():
    returns = np.array([[0.1, 0.5, 0.89, 0.91, 1.0, 1.0], [0.2] * 6, [NAN] * 6])
    np.testing.assert_array_equal(learning_curves.episodes_to_converge(returns, 400), [4, 1, NAN])


def test_points_of_few_episodes_are_averaged_before_a_rise_is_over():
    returns = np.array([[0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0]])
    assert learning_curves.episodes_to_converge(returns, 100) == [2]
    assert learning_curves.episodes_to_converge(returns, 34) == [6]  # three points are 102 episodes


def test_the_steps_of_a_rise_are_those_of_its_episodes():
    lengths = np.array([[20.0, 10.0, 5.0], [20.0, NAN, NAN], [1.0, 1.0, 1.0]])
    steps = learning_curves.steps_until(lengths, np.array([2.0, 1.0, NAN]))
    np.testing.assert_array_equal(steps, [30, 20, NAN])
