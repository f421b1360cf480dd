"""Vector environments of Gymnasium ids: interface, checks, and equal transitions in any batch."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from trajectories import batch_trajectories

import envs
from envs.gymnasium_vec import GymnasiumVectorEnv

MODES = [mode.value for mode in AutoresetMode]
ICE = [{"is_slippery": True}, {"is_slippery": False}]  # two tasks of a lake or of a cliff


@pytest.mark.parametrize("mode", MODES[1:])
def test_random_transitions_are_the_same_in_every_autoreset_mode(mode):
    actions = np.random.default_rng(0).integers(4, size=(3, 80))
    trajectories = [
        batch_trajectories(
            envs.make_vec("FrozenLake-v1", [[0], [1], [0]], 7, m, ICE), actions, seed=5
        )
        for m in (MODES[0], mode)
    ]
    assert trajectories[0] == trajectories[1]


def test_environments_in_processes_have_the_same_transitions():
    actions = np.random.default_rng(2).integers(4, size=(2, 20))
    make = [
        envs.make_vec("FrozenLake-v1", [[0], [1]], 9, "NextStep", ICE, asynchronous=asynchronous)
        for asynchronous in (False, True)
    ]
    trajectories = [batch_trajectories(vec_env, actions, 5) for vec_env in make]
    make[1].close()
    assert trajectories[0] == trajectories[1]


def test_the_time_limit_of_the_id_stays_in_force():
    vec_env = envs.make_vec("FrozenLake-v1", [[0]], 50, max_episode_steps=2)
    vec_env.reset(seed=0)
    vec_env.step([0])
    _, _, terminated, truncated, info = vec_env.step([0])
    assert truncated.tolist() == [True] and not terminated.any() and info["time"].tolist() == [0]
    for tasks, limit in (([{}], 2), ([{"max_episode_steps": 7}, {}], 7), ([{}, {}], 2)):
        world = envs.make_base("FrozenLake-v1", tasks, max_episode_steps=2)
        assert world.max_episode_steps == limit


def test_the_first_reset_is_of_all_environments():
    vec_env = envs.make_vec("CartPole-v1", [[0], [0]], 5, "Disabled")
    with pytest.raises(ResetNeeded, match="the first reset must be of all environments"):
        vec_env.reset(options={"reset_mask": np.array([True, False])})


def test_unknown_facts_are_none():
    world = envs.make_base("FrozenLake-v1", ICE)
    tasks = world.all_tasks()
    assert tasks.tolist() == [[0], [1]] and world.observation_factors is None
    facts = (world.optimal_return(tasks, 20), world.random_return(tasks, 20))
    assert [*facts, world.shortest_episode(tasks), world.optimal_policy(tasks)] == [None] * 4
    assert world.references(tasks, 20, 10) == {}


def test_a_success_is_a_return_at_the_reward_threshold_of_the_id():
    returns = np.array([[0.0, 1.0]])
    for env_id in ("FrozenLake-v1", "gymnasium.envs.toy_text:FrozenLake-v1"):
        assert envs.make_base(env_id).success(returns).tolist() == [[False, True]]
    returns = np.array([1.0, 474.5, 475.0, 500.0])
    found = envs.make_base("CartPole-v1").success(returns)
    assert found.tolist() == [False, False, True, True]
    assert envs.make_base("CliffWalking-v1").success(returns) is None


@pytest.mark.parametrize(
    ("env_id", "task_kwargs", "kwargs", "name"),
    [
        ("MountainCarContinuous-v0", None, {}, "Discrete"),
        ("FrozenLake-v1", [{"slip": 1}], {}, "FrozenLake-v1"),
        ("FrozenLake-v1", [], {}, "task_kwargs"),
        ("FrozenLake-v1", ICE, {"tasks": [[2]]}, "tasks"),
        ("FrozenLaek-v1", None, {}, "FrozenLake"),
        ("no_such_module:Lake-v0", None, {}, "no_such_module:Lake-v0"),
    ],
)
def test_a_bad_argument_or_space_is_refused(env_id, task_kwargs, kwargs, name):
    with pytest.raises(ValueError, match=name):
        _ = envs.make_base(env_id, task_kwargs, **kwargs).single_observation_space


def test_an_id_may_name_the_module_that_registers_it():
    env_id = "gymnasium.envs.toy_text:FrozenLake-v1"
    assert isinstance(envs.make_base(env_id), GymnasiumVectorEnv)
    assert isinstance(envs.make(env_id), gymnasium.Env)
