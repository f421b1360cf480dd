"""Episode length, time and the three autoreset modes."""

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from trajectories import ScalarRoom, batch_trajectories, scalar_trajectory

import envs
from envs.wrappers import VectorEpisodeLength

STAY, UP, DOWN = 0, 1, 2
MODES = [mode.value for mode in AutoresetMode]


@st.composite
def rooms(draw):
    """Settings of a room, a task and a list of actions for each environment, and a limit."""
    size = draw(st.integers(2, 5) | st.sampled_from([[2, 4], [5, 3]]))
    num_envs = draw(st.integers(1, 3))
    kwargs = {
        "size": size,
        "start": draw(st.sampled_from(["center", "corner", "random", [1, 0]])),
        "goal_on_start": draw(st.booleans()),
        "reward": draw(st.sampled_from(["every_step", "once"])),
        "terminate": draw(st.booleans()),
    }
    all_tasks = envs.make_base("DarkRoom-v0", **kwargs).all_tasks().tolist()
    tasks = draw(st.lists(st.sampled_from(all_tasks), min_size=num_envs, max_size=num_envs))
    num_steps = draw(st.integers(1, 30))
    line = st.lists(st.integers(0, 4), min_size=num_steps, max_size=num_steps)
    actions = draw(st.lists(line, min_size=num_envs, max_size=num_envs))
    return kwargs, tasks, np.array(actions), draw(st.integers(1, 9)), draw(st.integers(0, 99))


@given(rooms(), st.sampled_from(MODES))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_a_batch_has_the_transitions_of_the_scalar_reference_in_every_autoreset_mode(room, mode):
    kwargs, tasks, actions, limit, seed = room
    vec_env = envs.make_vec("DarkRoom-v0", tasks, limit, mode, **kwargs)
    for i, trajectory in enumerate(batch_trajectories(vec_env, actions, seed)):
        reference = ScalarRoom(goal=tasks[i], episode_length=limit, seed=seed + i, **kwargs)
        assert trajectory == scalar_trajectory(reference, actions[i].tolist())


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize(("env_id", "kwargs"), [("DarkRoom-v0", {}), ("FrozenLake-v1", {})])
def test_a_batch_returns_what_gymnasiums_sync_vector_env_returns(env_id, kwargs, mode):
    tasks = envs.make_base(env_id).all_tasks()[[0] * 4]
    ours = envs.make_vec(env_id, tasks, 6, mode, **kwargs)
    theirs = SyncVectorEnv([lambda: envs.make(env_id, 6, **kwargs)] * 4, autoreset_mode=mode)
    np.testing.assert_array_equal(ours.reset(seed=3)[0], theirs.reset(seed=3)[0])
    rng = np.random.default_rng(0)
    for _ in range(60):
        actions = rng.integers(ours.single_action_space.n, size=4)
        *mine, info = ours.step(actions)
        *expected, their_info = theirs.step(actions)
        for array, other in zip(mine, expected, strict=True):
            np.testing.assert_array_equal(array, other)
        np.testing.assert_array_equal(info["time"], their_info["time"])
        assert ("final_obs" in info) == ("final_obs" in their_info)
        if "final_obs" in info:
            mask = their_info["_final_obs"]
            np.testing.assert_array_equal(info["_final_obs"], mask)
            np.testing.assert_array_equal(info["final_obs"][mask], their_info["final_obs"][mask])
            final, their_final = info["final_info"], their_info["final_info"]
            np.testing.assert_array_equal(final["time"][mask], their_final["time"][mask])


def single(episode_length, goal=(0, 0)):
    env = envs.make("DarkRoom-v0", episode_length, size=3, goal=goal)
    env.reset(seed=0)
    return env


def two_envs(mode, episode_length=3):
    """The goal of environment 0 is one step up, that of environment 1 one step down."""
    vec_env = envs.make_vec("DarkRoom-v0", [[0, 1], [2, 1]], episode_length, mode, size=3)
    vec_env.reset(seed=0)
    return vec_env


def test_a_single_environment_truncates_at_the_limit_and_reports_the_time():
    env = single(3)
    assert env.reset()[1] == {"time": 0}
    steps = [env.step(STAY) for _ in range(3)]
    assert [info["time"] for *_, info in steps] == [1, 2, 3]
    assert [truncated for *_, truncated, _ in steps] == [False, False, True]


@pytest.mark.parametrize("episode_length", [0, -1, 2.0, True, "20"])
def test_a_limit_that_is_not_a_positive_integer_is_refused(episode_length):
    for maker in (single, lambda length: two_envs("SameStep", length)):
        with pytest.raises(ValueError, match="episode_length must be a positive integer"):
            maker(episode_length)


def test_disabled_refuses_a_step_after_an_end_until_a_reset():
    vec_env = two_envs("Disabled")
    *_, terminated, _, _ = vec_env.step([UP, UP])
    with pytest.raises(ResetNeeded, match=r"environments \[0\]"):
        vec_env.step([STAY, STAY])
    observation, info = vec_env.reset(options={"reset_mask": terminated})
    assert observation.tolist() == [4, 1] and info["time"].tolist() == [0, 1]
    assert vec_env.step([STAY, STAY])[-1]["time"].tolist() == [1, 2]


def test_next_step_refuses_an_environment_whose_step_does_not_take_active():
    inner = SyncVectorEnv([lambda: single(5)], autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ValueError, match="active"):
        VectorEpisodeLength(inner, 3, "NextStep")
