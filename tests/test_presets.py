"""Presets: what their papers print about them, and their names wherever an id stands."""

import gymnasium
import numpy as np
import pytest

import envs
from ad.config.parser import load
from ad.config.schema import config_hash
from envs.presets import PRESETS

# Tasks of a Key-to-Door whose door is where the key lies are in print, but not here.
SAME = {size: size**2 for size in (9, 10, 13, 20)}

# The number of tasks, the env steps of an episode, and the mean optimal return where it is printed.
# Train tasks of bandits and MDPs are drawn without end in the papers, here there are 1,000 of them.
PRINTED = {
    "DarkRoom-9x9-Dense-v1": (73 + 8, 20, 16.5),
    "DarkRoom-9x9-Terminating-v1": (81, 20, 1),
    "DarkRoom-19x19-Terminating-v1": (361, 100, 1),
    "DarkRoom-Hard-17x17-v1": (17 * 17, 20, 1),
    "DarkRoom-15x15-Dense-v1": (225, 50, 43.5),
    "DarkRoom-10x10-Dense-v1": (80 + 20, 100, 92),
    "DarkRoom-7x7-Dense-v1": (39 + 10, 49, None),
    "DarkRoom-20x20-Dense-v1": (20 * 20, 400, None),
    "DarkRoom-40x20-Dense-v1": (40 * 20, 800, None),
    "DarkRoomPermuted-9x9-v1": (108 + 12, 50, 35),
    "DarkRoomSequences-9x9-v1": (81, 20, 1),
    "KeyToDoor-9x9-v1": (6233 + 328 - SAME[9], 50, 2),
    "KeyToDoor-9x9-SeeKey-v1": (6233 + 328 - SAME[9], 50, 2),
    "KeyToDoor-13x13-v1": (13**4 - SAME[13], 100, 2),
    "KeyToDoor-13x13-SeeKey-v1": (13**4 - SAME[13], 100, 2),
    "KeyToDoor-10x10-Dense-v1": (10**4 - SAME[10], 100, None),
    "KeyToDoor-10x10-Dense-SeeKey-v1": (10**4 - SAME[10], 100, None),
    "KeyToDoor-20x20-Dense-v1": (400**2 - SAME[20], 400, None),
    "KeyToDoor-20x20-Dense-SeeKey-v1": (400**2 - SAME[20], 400, None),
    "KeyToDoor-40x20-Dense-v1": (800**2 - 800, 800, None),
    "KeyToDoor-40x20-Dense-SeeKey-v1": (800**2 - 800, 800, None),
    "BernoulliBandit-5arms-10pulls-v1": (1000 + 1000, 10, None),
    "BernoulliBandit-5arms-100pulls-v1": (1000 + 1000, 100, None),
    "BernoulliBandit-5arms-500pulls-v1": (1000 + 1000, 500, None),
    "BernoulliBandit-10arms-10pulls-v1": (1000 + 1000, 10, None),
    "BernoulliBandit-10arms-100pulls-v1": (1000 + 1000, 100, None),
    "BernoulliBandit-10arms-500pulls-v1": (1000 + 1000, 500, None),
    "GaussianBandit-5arms-500pulls-v1": (1000 + 200, 500, None),
    "OddEvenBandit-10arms-100pulls-v1": (1000 + 100, 100, None),
    "OddEvenBandit-4to20arms-300pulls-v1": (1000 + 100, 300, None),
    "RandomMDP-10x5-v1": (1000 + 1000, 10, None),
    "Garnet-16x5x2-v1": (1000 + 64, 100, None),
    "Garnet-64x5x2-v1": (1000 + 64, 256, None),
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_the_tasks_the_horizon_and_the_optimum_that_are_printed(name):
    world, (num_tasks, episode_length, optimum) = envs.make_base(name), PRINTED[name]
    assert len(world.all_tasks()) == num_tasks
    assert PRESETS[name].episode_length == episode_length
    if optimum is not None:
        found = world.optimal_return(world.all_tasks(), episode_length).mean()
        assert found == pytest.approx(optimum, abs=0.05)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_made_wherever_an_id_is(name):
    preset, length = PRESETS[name], PRESETS[name].episode_length
    tasks = envs.make_base(name).all_tasks()[:3]
    assert envs.make_vec(name, tasks).episode_length == length
    assert gymnasium.make_vec(name, num_envs=2).episode_length == length
    for env in (envs.make(name), gymnasium.make(name)):
        assert env.get_wrapper_attr("episode_length") == length and env.spec.id == name
        assert env.spec.make().get_wrapper_attr("episode_length") == length
    mine, plain = (
        envs.make_vec(env_id, tasks, length, **kwargs)
        for env_id, kwargs in ((name, {}), (preset.world, preset.kwargs))
    )
    np.testing.assert_array_equal(mine.reset(seed=1)[0], plain.reset(seed=1)[0])
    for actions in np.random.default_rng(0).integers(5, size=(30, 3)):
        for one, two in zip(mine.step(actions)[:4], plain.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(one, two)


def test_a_world_that_is_no_preset_has_episodes_of_20_steps_unless_told():
    assert envs.make("DarkRoom-v0").get_wrapper_attr("episode_length") == 20
    assert envs.make("DarkRoom-v0", None).get_wrapper_attr("episode_length") is None
    assert envs.make_vec("FrozenLake-v1", [[0]]).episode_length == 20


@pytest.mark.parametrize("maker", [envs.make, envs.make_base, gymnasium.make])
def test_a_preset_refuses_a_setting_that_contradicts_it(maker):
    maker("DarkRoom-9x9-Dense-v1", size=9)
    with pytest.raises(ValueError, match=r"has size 9, not 7: other .* DarkRoom-v0"):
        maker("DarkRoom-9x9-Dense-v1", size=7)
    with pytest.raises(ValueError, match=r"has drift 0.0, not 0.1"):
        maker("BernoulliBandit-5arms-10pulls-v1", drift=0.1)


@pytest.mark.parametrize("length", [30, None])
def test_a_preset_refuses_another_episode_length(length):
    name = "DarkRoom-9x9-Dense-v1"
    for make in (lambda: envs.make(name, length), lambda: envs.make_vec(name, [[0, 0]], length)):
        with pytest.raises(ValueError, match=f"has episodes of 20 steps, not {length}"):
            make()


def test_an_experiment_has_the_episode_length_of_its_preset():
    for name, preset in PRESETS.items():
        words = ["--env.id", name, "--split.num_train_tasks", "39"]
        config = load(words)
        assert config.env.episode_length == preset.episode_length
        given = [*words, "--env.episode_length", str(preset.episode_length)]
        assert config_hash(load(given)) == config_hash(config)
    assert load([]).env.episode_length == 20
