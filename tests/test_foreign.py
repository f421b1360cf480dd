"""Worlds that someone else wrote: the same interface, the same strictness, the same lives."""

import gymnasium
import numpy as np
import pytest
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode
from lives import batch_lives

import envs
from envs.foreign import ForeignWorld

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
    world = envs.world("FrozenLake-v1", ICE)
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
        envs.world(env_id, task_kwargs, **kwargs)


def test_a_foreign_id_may_name_the_module_that_registers_it():
    env_id = "gymnasium.envs.toy_text:FrozenLake-v1"
    assert isinstance(envs.world(env_id), ForeignWorld)
    assert isinstance(envs.make(env_id), gymnasium.Env)
