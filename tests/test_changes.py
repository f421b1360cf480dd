"""Tasks that change between episodes: the schedule, and environments that follow it."""

import numpy as np
import pytest

import envs
from envs.changes import Changes
from envs.rng import uniform

RIGHT, STAY = 4, 0
POOL = np.array([[0], [1], [2], [3], [4]])


def starts_of_tasks(changes: Changes, first, episodes: int) -> list[list[int]]:
    """The episodes, from 0, at which each environment has another task than before."""
    tasks = changes.tasks(np.array(first), episodes)
    return [np.flatnonzero((own[1:] != own[:-1]).any(1) + 0).tolist() for own in tasks]


def test_a_task_changes_after_every_n_episodes_or_never():
    keys, first = [3, 4], [[2], [0]]
    assert starts_of_tasks(Changes(0, keys, [POOL] * 2), first, 9) == [[], []]
    assert starts_of_tasks(Changes(1, keys, [POOL] * 2), first, 4) == [[0, 1, 2]] * 2
    assert starts_of_tasks(Changes(3, keys, [POOL] * 2), first, 9) == [[2, 5]] * 2


def test_a_probability_and_a_task_are_drawn_by_the_key_alone():
    together = Changes(0.3, [8, 9, 8], [POOL, POOL, POOL[:3]]).tasks(np.array([[1], [1], [0]]), 200)
    assert np.array_equal(together[1:2], Changes(0.3, [9], [POOL]).tasks(np.array([[1]]), 200))
    drawn = uniform(np.uint64(8), 2 * np.arange(200)) < 0.3
    assert np.array_equal(np.diff(together[0, :, 0]) != 0, drawn[1:])
    assert np.array_equal(np.diff(together[2, :, 0]) != 0, drawn[1:])  # the key says when
    assert set(together[2].ravel()) == {0, 1, 2}
    # 5 tasks in turn, each with a quarter of the moves to each of the other four.
    many = Changes(1, range(4000), [POOL] * 4000).tasks(np.full((4000, 1), 2), 2)[:, 1, 0]
    assert np.allclose(np.bincount(many) / 4000, [0.25, 0.25, 0, 0.25, 0.25], atol=0.03)


def test_the_goal_of_a_room_moves_between_two_episodes():
    """A corridor of the middle row: the goal is one or two cells right of the start."""
    pool = np.array([[2, 3], [2, 4]])
    changes = Changes(2, [1, 1], [pool] * 2)
    env = envs.make_vec("DarkRoom-v0", pool, 3, changes=changes, size=5, terminate=False)
    env.reset(seed=0)
    returns, tasks = np.zeros((5, 2)), []
    for episode in range(5):
        tasks.append(env.unwrapped.tasks[:, 1].tolist())
        for action in (RIGHT, RIGHT, STAY):
            _, reward, _, truncated, info = env.step(np.array([action] * 2))
            returns[episode] += reward
    assert tasks == [[3, 4], [3, 4], [4, 3], [4, 3], [3, 4]]
    # Right, right and stay: one step on the nearer goal, two on the farther one.
    assert returns.tolist() == [[1, 2], [1, 2], [2, 1], [2, 1], [1, 2]]
    assert truncated.all() and info["final_obs"].tolist() == [14, 14]
    env.reset(seed=0)
    assert env.unwrapped.tasks[:, 1].tolist() == [3, 4]  # a seed restarts the schedule


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: Changes(2.5, [1], [POOL]), "whole number of episodes, not 2.5"),
        (lambda: Changes(-1, [1], [POOL]), "not -1"),
        (lambda: Changes(2, [1], [POOL[:1]]), "no other one"),
        (lambda: Changes(2, [1], [POOL]).tasks(np.array([[7]]), 3), "one of those"),
        (
            lambda: envs.make_vec(
                "FrozenLake-v1",
                [[0]],
                task_kwargs=[{}, {"is_slippery": False}],
                changes=Changes(2, [1], [POOL]),
            ),
            "FrozenLake-v1 cannot change",
        ),
    ],
)
def test_a_bad_schedule_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        change()
