"""Worlds that someone else wrote: the same interface, the same strictness, the same lives."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode
from lives import batch_lives

import envs
from ad.errors import ConfigError
from envs.gymnasium_vec import GymnasiumVectorEnv

MODES = [mode.value for mode in AutoresetMode]
ICE = [{"is_slippery": True}, {"is_slippery": False}]  # two tasks of FrozenLake-v1


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_slippery_foreign_world_lives_the_same_life_in_every_mode(mode):
    actions = np.random.default_rng(0).integers(4, size=(3, 80))
    lives = [
        batch_lives(envs.make_vec("FrozenLake-v1", [[0], [1], [0]], 7, m, ICE), actions, seed=5)
        for m in (MODES[0], mode)
    ]
    assert lives[0] == lives[1]


def test_a_foreign_lane_alone_lives_as_in_the_batch():
    actions = np.random.default_rng(1).integers(4, size=(3, 50))
    together = batch_lives(
        envs.make_vec("FrozenLake-v1", [[0], [1], [0]], 9, "SameStep", ICE), actions, 5
    )
    alone = envs.make_vec("FrozenLake-v1", [[0]], 9, "SameStep", ICE)
    assert batch_lives(alone, actions[2:], 7) == together[2:]


def test_foreign_lanes_in_processes_live_the_same_lives():
    actions = np.random.default_rng(2).integers(4, size=(2, 20))
    make = [
        envs.make_vec("FrozenLake-v1", [[0], [1]], 9, "NextStep", ICE, asynchronous=asynchronous)
        for asynchronous in (False, True)
    ]
    lives = [batch_lives(lanes, actions, 5) for lanes in make]
    make[1].close()
    assert lives[0] == lives[1]


@pytest.mark.parametrize("seeds", [[5, 6], np.array([5, 6]), np.int64(5)], ids=repr)
def test_foreign_lanes_take_seeds_in_every_form(seeds):
    actions = np.random.default_rng(3).integers(4, size=(2, 30))
    lives = [
        batch_lives(envs.make_vec("FrozenLake-v1", [[0], [0]], 9, "SameStep", ICE), actions, seed)
        for seed in (5, seeds)
    ]
    assert lives[0] == lives[1]


def test_a_foreign_world_keeps_its_own_time_limit():
    lanes = envs.make_vec("FrozenLake-v1", [[0]], 50, max_episode_steps=2)
    lanes.reset(seed=0)
    lanes.step([0])
    _, _, terminated, truncated, info = lanes.step([0])
    assert truncated.tolist() == [True] and not terminated.any() and info["time"].tolist() == [0]


def test_a_foreign_world_says_what_it_does_not_know():
    world = envs.make_base("FrozenLake-v1", ICE)
    assert world.all_tasks().tolist() == [[0], [1]] and world.observation_factors == (16,)
    assert np.isnan(world.optimal_return([[0], [1]], 20)).tolist() == [True, True]
    assert np.isnan(world.shortest_episode([[1]])).tolist() == [True]


@pytest.mark.parametrize("actions", [[0.0, 1.0], [0, 4], [0, -1], [0], [True, False], None])
def test_a_foreign_world_refuses_what_is_not_an_action(actions):
    lanes = envs.make_vec("FrozenLake-v1", [[0], [1]], task_kwargs=ICE)
    lanes.reset(seed=0)
    with pytest.raises(InvalidAction):
        lanes.step(actions)


@pytest.mark.parametrize(
    ("env_id", "task_kwargs", "kwargs", "sentence"),
    [
        ("CartPole-v1", None, {}, "single_observation_space must be Discrete"),
        ("MountainCarContinuous-v0", None, {}, "single_observation_space must be Discrete"),
        ("FrozenLake-v1", [{"slip": 1}], {}, "FrozenLake-v1 cannot be made for these tasks"),
        ("FrozenLake-v1", [], {}, "task_kwargs must be a list of dicts"),
        ("FrozenLake-v1", ["8x8"], {}, "task_kwargs must be a list of dicts"),
        ("FrozenLake-v1", ICE, {"tasks": [[2]]}, r"tasks go from \[0\] to \[1\]"),
        ("FrozenLake-v1", ICE, {"tasks": [0, 1]}, "tasks must be a list of lists of 1 integers"),
        (
            "FrozenLake-v1",
            [{"map_name": "4x4"}, {"map_name": "8x8"}],
            {"tasks": [[0], [1]]},
            "cannot be made for these tasks",
        ),
        (
            "FrozenLaek-v1",
            None,
            {},
            "unknown environment 'FrozenLaek-v1'; did you mean 'FrozenLake",
        ),
        ("no_such_module:Lake-v0", None, {}, "unknown environment 'no_such_module:Lake-v0'"),
    ],
)
def test_a_foreign_world_that_will_not_do_is_refused_in_a_sentence(
    env_id, task_kwargs, kwargs, sentence
):
    with pytest.raises(ValueError, match=sentence):
        _ = envs.make_base(env_id, task_kwargs, **kwargs).single_observation_space


class Counter(gymnasium.Env):
    """An environment of any number of observations and actions; it is never stepped."""

    def __init__(self, observations: int, actions: int):
        self.observation_space, self.action_space = Discrete(observations), Discrete(actions)


@pytest.fixture
def counter():
    """The id of an environment whose spaces have the sizes that its arguments say."""
    gymnasium.register("Counter-v0", Counter, disable_env_checker=True)
    yield "Counter-v0"
    del gymnasium.registry["Counter-v0"]


def test_the_largest_spaces_that_the_store_holds_are_accepted(counter):
    world = envs.make_base(counter, observations=65_536, actions=256)
    assert (world.single_observation_space.n, world.single_action_space.n) == (65_536, 256)


@pytest.mark.parametrize(
    ("observations", "actions", "sentence"),
    [
        (65_537, 2, "single_observation_space must be Discrete from 0 with at most 65,536 values"),
        (16, 257, "single_action_space must be Discrete from 0 with at most 256 values"),
    ],
)
def test_a_space_larger_than_its_stored_dtype_is_refused(counter, observations, actions, sentence):
    with pytest.raises(ValueError, match=sentence):
        envs.make_base(counter, tasks=[[0]], observations=observations, actions=actions)


def test_a_configuration_with_a_space_too_large_is_refused_before_anything_is_written(
    counter, smoke, tmp_path
):
    words = ["--env.id", counter, "--env.kwargs", "{observations: 70000, actions: 2}"]
    with pytest.raises(ConfigError, match="at most 65,536 values"):
        smoke(tmp_path, *words, "--env.tasks", "[{}, {}]", "--split.num_train_tasks", "1")
    assert not list(tmp_path.iterdir())


def test_a_foreign_id_may_name_the_module_that_registers_it():
    env_id = "gymnasium.envs.toy_text:FrozenLake-v1"
    assert isinstance(envs.make_base(env_id), GymnasiumVectorEnv)
    assert isinstance(envs.make(env_id), gymnasium.Env)
