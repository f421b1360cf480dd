"""Posterior sampling: it goes to tasks that are still possible, and is optimal once one is left."""

import numpy as np
import pytest
from recorded import played

from ad.sources.posterior_sampling import PosteriorSampling, Settings
from envs import make_base, make_vec

TASKS = np.array([[0, 0], [2, 1]])


def agents(
    num_envs: int = 30,
    nearness: float = 1.0,
    noise: float = 0.0,
    every_step: bool = False,
    window: int | None = None,
    **kwargs,
) -> PosteriorSampling:
    """Return agents on two 3 x 3 rooms before their first step."""
    env = make_vec("DarkRoom-v0", np.repeat(TASKS, num_envs, axis=0), 6, size=3, **kwargs)
    settings = Settings(nearness, noise, every_step, window)
    return PosteriorSampling(settings, env, TASKS, num_envs, [11, 12])


def sampler(steps: int, **settings):
    """Return agents after `steps` steps, and their transitions, [T, K, N]."""
    source = agents(**settings)
    return source, played(source, steps)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"terminate": False},
        {"start": "random"},
        {"reward": "once", "terminate": False},
        {"reward": "once", "terminate": False, "goal_on_start": True},
    ],
    ids=str,
)
def test_the_true_task_is_never_refuted_and_soon_the_only_one(kwargs):
    source, _ = sampler(80, **kwargs)
    true = (source.tasks == TASKS[:, None]).all(-1).argmax(1)  # index of each agent's task
    possible = source.possible.reshape(2, 30, -1)
    assert possible[np.arange(2), :, true].all()
    assert (possible.sum(-1) == 1).all()
    np.testing.assert_array_equal(source.sampled.reshape(2, 30), true[:, None].repeat(30, 1))


@pytest.mark.parametrize("window, first", [(None, 0), (20, 0), (8, 0), (6, 3), (4, 4), (2, 6)])
def test_a_task_is_possible_until_a_transition_of_the_window_refutes_it(window, first):
    source, seen = sampler(7, window=window)
    world = make_base("DarkRoom-v0", size=3)
    seen = {name: values.reshape(7, -1)[first:] for name, values in seen.items()}
    np.testing.assert_array_equal(source.possible, world.possible(seen, source.tasks).all(0))


def test_after_the_first_reward_every_path_is_a_shortest_one():
    _, seen = sampler(120)
    lengths = []
    for k, n in np.ndindex(2, 30):
        done = np.flatnonzero((seen["terminated"] | seen["truncated"])[:, k, n])
        first = np.flatnonzero(seen["reward"][:, k, n])[0]
        lengths += [(k, gap) for gap in np.diff(done[done >= first])]
    assert {gap for k, gap in lengths if k == 0} == {2} and {g for k, g in lengths if k == 1} == {1}


def test_a_life_visits_no_cell_as_a_goal_twice_before_the_first_reward():
    for nearness in (0.0, 1000.0):  # with which far tasks have no weight but the least there is
        source, _ = sampler(60, nearness=nearness)
        assert source.draws.max() <= len(source.tasks)  # each sample refutes at least one task


def test_a_task_that_is_sampled_at_every_step_leads_back_and_forth():
    found = {}
    for every_step in (False, True):
        source, seen = sampler(6, num_envs=400, nearness=0.0, every_step=every_step)
        goals = (source.tasks == TASKS[:, None]).all(-1).argmax(1)
        assert source.possible.reshape(2, 400, -1)[np.arange(2), :, goals].all()
        found[every_step] = np.mean(seen["reward"].max(0))  # share of lives
    assert found[True] < found[False] - 0.03


def test_nearness_prefers_near_tasks():
    near = []
    for nearness in (0.0, 2.0):
        source = agents(400, nearness)
        steps = source.world.steps_to_success(source.tasks)[source.sampled, 4]  # from the center
        near.append((steps == 1).mean())
    assert near[0] == pytest.approx(0.5, abs=0.06) and near[1] > 0.85


def test_noise_is_a_share_of_random_actions_that_leaves_the_posterior_right():
    source, seen = sampler(400, noise=0.25)
    true = (source.tasks == TASKS[:, None]).all(-1).argmax(1)
    np.testing.assert_array_equal(source.sampled.reshape(2, 30), true[:, None].repeat(30, 1))
    known = seen["action"][200:, 1]  # of the task (2, 1), one step below the center
    down = np.bincount(known[seen["time"][200:, 1] == 0]).argmax()
    share = np.mean(known[seen["time"][200:, 1] == 0] != down)
    assert share == pytest.approx(0.25 * 4 / 5, abs=0.02)  # one of five random actions is down
