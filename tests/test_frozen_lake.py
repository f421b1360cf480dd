"""Frozen lakes: maps and transitions of Gymnasium, and the facts about their tasks."""

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.toy_text.frozen_lake import generate_random_map, is_valid

import envs
from envs.mdps.frozen_lake import different_maps

WORLD = "FrozenLakeMaps-v0"
LIMIT = 12


def world(num_envs: int | None = None, **kwargs):
    return envs.make_base(WORLD, num_envs=num_envs, **kwargs)


def gymnasiums(task: int, is_slippery: bool) -> gymnasium.Env:
    """Return Gymnasium's environment of the map of a task."""
    desc = list(different_maps(4, 0.8, 300)[task])
    return gymnasium.make("FrozenLake-v1", desc=desc, is_slippery=is_slippery)


def test_the_maps_are_those_of_gymnasiums_generator_different_and_with_a_path():
    maps = different_maps(4, 0.8, 300)
    assert len(set(maps)) == 300 and all(is_valid([*map(list, rows)], 4) for rows in maps)
    drawn = [tuple(generate_random_map(4, 0.8, seed)) for seed in range(40)]
    first = list(dict.fromkeys(drawn))
    assert list(maps[: len(first)]) == first
    assert world().names([[0]]) == ["/".join(drawn[0])]


@pytest.mark.parametrize("is_slippery", [True, False])
def test_returns_are_those_of_dynamic_programming_over_gymnasiums_tables(is_slippery):
    lakes, tasks = world(is_slippery=is_slippery), [[0], [7], [23]]
    facts = (lakes.optimal_return(tasks, LIMIT), max), (lakes.random_return(tasks, LIMIT), np.mean)
    for values, combine in facts:
        for k, (task,) in enumerate(tasks):
            table = gymnasiums(task, is_slippery).unwrapped.P
            expected = dict.fromkeys(table, 0.0)
            for _ in range(LIMIT):
                expected = {
                    state: combine(
                        [
                            sum(p * (r + (not end) * expected[s]) for p, s, r, end in outcomes)
                            for outcomes in actions.values()
                        ]
                    )
                    for state, actions in table.items()
                }
            assert values[k] == pytest.approx(expected[0])
    assert (lakes.optimal_return(lakes.all_tasks(), LIMIT) > 0).all()
    random = lakes.references(tasks, LIMIT, 3)["random"]
    assert random.successes[:, 2] == pytest.approx(lakes.random_return(tasks, LIMIT))
    assert random.p_success[:, 1] == pytest.approx(1 - (1 - random.returns[:, 0]) ** 2)


def test_a_lake_that_is_not_slippery_has_the_transitions_of_gymnasium():
    tasks = [[0], [7], [23], [41]]
    lakes = world(tasks=tasks, is_slippery=False)
    theirs = [gymnasiums(task, False) for (task,) in tasks]
    observation, _ = lakes.reset(seed=0)
    assert observation.tolist() == [env.reset(seed=0)[0] for env in theirs]
    rewards, ends = 0, 0
    for actions in np.random.default_rng(0).integers(4, size=(400, 4)):
        observation, reward, terminated, *_ = lakes.step(actions)
        steps = [env.step(int(action)) for env, action in zip(theirs, actions, strict=True)]
        assert observation.tolist() == [step[0] for step in steps]
        assert reward.tolist() == [step[1] for step in steps]
        assert terminated.tolist() == [step[2] for step in steps]
        rewards, ends = rewards + reward.sum(), ends + terminated.sum()
        if terminated.any():
            lakes.reset(options={"reset_mask": terminated})
            for env in np.flatnonzero(terminated):
                theirs[env].reset()
    assert 0 < rewards < ends


def test_a_slippery_lake_has_the_probabilities_and_rewards_of_gymnasium():
    number, goal = 3000, 15
    for task in (0, 7):
        table = gymnasiums(task, True).unwrapped.P
        lakes = world(tasks=[[task]] * number)
        lakes.reset(seed=1)
        for state, action in ((0, 1), (1, 2), (14, 2), (11, 1)):
            if table[state][action][0][3] and len(table[state][action]) == 1:
                continue  # the state is a hole
            lakes.restore({**lakes.state(), "_states": np.full(number, state)})
            following, reward, terminated, *_ = lakes.step([action] * number)
            expected = np.zeros(16)
            for p, after, _, end in table[state][action]:
                expected[after] += p
                assert (terminated[following == after] == end).all()
            share = np.bincount(following, minlength=16) / number
            assert abs(share - expected).max() < 4 * (0.25 / number) ** 0.5
            np.testing.assert_array_equal(reward, following == goal)


@pytest.mark.parametrize("is_slippery", [True, False])
def test_the_optimal_policy_reaches_the_optimal_return_without_a_hurry(is_slippery):
    lakes = world(tasks=[[task] for task in range(20)] * 100, is_slippery=is_slippery)
    tasks = lakes.tasks[:20]
    policy = np.tile(lakes.optimal_policy(tasks), (100, 1, 1)).cumsum(-1)
    observation, _ = lakes.reset(seed=0)
    rng, active = np.random.default_rng(0), np.ones(2000, bool)
    total, env = np.zeros(2000), np.arange(2000)
    for _ in range(100):
        actions = (rng.random(2000)[:, None] >= policy[env, observation, :-1]).sum(1)
        observation, reward, terminated, *_ = lakes.step(actions, active)
        total, active = total + reward, active & ~terminated
    best = lakes.optimal_return(tasks, 100).mean()
    assert lakes.success(total).mean() == total.mean() == pytest.approx(best, abs=0.06)


@pytest.mark.parametrize("is_slippery", [True, False])
def test_the_maps_that_are_possible_have_holes_where_episodes_ended(is_slippery):
    tasks = world().all_tasks()[:50]
    lakes = world(tasks=tasks, is_slippery=is_slippery)
    ends = np.array([[c in "HG" for c in name.replace("/", "")] for name in lakes.names(tasks)])
    before, _ = lakes.reset(seed=0)
    actions = np.random.default_rng(0).integers(4, size=50)
    after, reward, terminated, *_ = lakes.step(actions)
    seen = {"observation": before, "action": actions, "next_observation": after}
    found = lakes.possible(seen | {"reward": reward, "terminated": terminated}, tasks)
    np.testing.assert_array_equal(found, terminated[:, None] == ends[:, after].T)
    assert found.diagonal().all() and not found.all()


def test_frames_show_the_holes():
    lakes = world(tasks=[[0]])
    rows = lakes.names([[0]])[0].split("/")
    fields = {"observation": np.array([0, 1]), "next_observation": np.array([1, 2])}
    frames = lakes.frames([0], fields)
    assert frames.shape == (3, 128, 128, 3) and frames.dtype == np.uint8
    middle = frames[:, 16::32, 16::32]
    hole = "".join(rows).index("H")
    others = [cell for cell, mark in enumerate("".join(rows)) if mark == "F" and cell > 3]
    colors = middle[0].reshape(16, 3)
    assert (colors[hole] != colors[others[0]]).any()
    assert (colors[others] == colors[others[0]]).all()
