"""Q-learning: its updates are the equation's, it tries what it has not tried, and it gets there."""

import numpy as np
import pytest
from recorded import played
from worlds import Bandit

from ad.sources.q_learning import QLearning, Settings
from envs import make_vec
from envs.changes import Changes
from envs.wrappers import VectorEpisodeLength

TASKS = np.array([[0, 0], [2, 1]])
KEYS = [11, 12]
MIXED = {"learning_rate": 0.3, "bonus": 0.1, "epsilon_start": 0.5, "hold": 3.0, "discount": 0.9}


def agents(num_envs=4, tasks=TASKS, size=3, limit=6, keys=KEYS, **settings) -> QLearning:
    """Return agents in small rooms before their first step."""
    env = make_vec("DarkRoom-v0", np.repeat(tasks, num_envs, axis=0), limit, size=size)
    return QLearning(Settings(**settings), env, tasks, num_envs, keys)


def learned(data: dict[str, np.ndarray], settings: Settings, k: int, actors: list[int]):
    """Return the table [S, A] that `actors` of agent k learn from `data`, pair after pair."""
    states = 18 if settings.remember_reward else 9
    values, counts = np.full((states, 5), settings.initial_value), np.zeros((states, 5))
    for step in range(len(data["action"])):
        targets: dict[tuple, list] = {}
        row = {name: values[step, k] for name, values in data.items()}
        pairs = [(row["observation"][n], row["action"][n]) for n in actors]
        for pair in pairs:
            counts[pair] += 1
        for n, pair in zip(actors, pairs, strict=True):
            future = 0 if row["terminated"][n] else values[row["next_observation"][n]].max()
            bonus = settings.bonus / counts[pair] ** 0.5
            target = row["reward"][n] + bonus + settings.discount * future
            targets.setdefault(pair, []).append(target)
        for pair, found in targets.items():
            values[pair] += settings.learning_rate * (np.mean(found) - values[pair])
    return values


@pytest.mark.parametrize("shared", [False, True])
def test_without_planning_the_tables_are_those_of_the_equation(shared):
    source = agents(shared=shared, planning_steps=0, **MIXED)
    data = played(source, 200)
    assert data["truncated"].any() and data["terminated"].any()
    for k in range(2):
        groups = [[0, 1, 2, 3]] if shared else [[0], [1], [2], [3]]
        for number, actors in enumerate(groups):
            expected = learned(data, Settings(**MIXED), k, actors)
            table = source.values[k * len(groups) + number]
            np.testing.assert_allclose(table, expected, atol=1e-5)


ONCE = {"reward": "once", "terminate": False}  # as in Dark Room Hard


def test_a_remembered_reward_is_part_of_the_state():
    settings = {"remember_reward": True, "planning_steps": 0, **MIXED}
    env = make_vec("DarkRoom-v0", np.repeat(TASKS, 4, axis=0), 6, size=3, **ONCE)
    data = played(QLearning(Settings(**settings), env, TASKS, 4, KEYS), 200)
    source = QLearning(Settings(**settings), env, TASKS, 4, KEYS)
    played(source, 200)
    before = np.zeros((2, 4), bool)
    for step in range(200):
        after = before | (data["reward"][step] > 0)
        data["observation"][step] += 9 * before.astype(np.uint8)
        data["next_observation"][step] += 9 * after.astype(np.uint8)
        before = after & ~data["truncated"][step]
    assert (data["observation"] >= 9).any() and not data["terminated"].any()
    for k, n in np.ndindex(2, 4):
        expected = learned(data, Settings(**settings), k, [n])
        np.testing.assert_allclose(source.values[4 * k + n], expected, atol=1e-5)


def test_a_goal_that_pays_once_is_not_unlearned_by_staying_there():
    last = {}
    for remember in (False, True):
        env = make_vec("DarkRoom-v0", np.repeat(TASKS, 9, axis=0), 8, size=5, **ONCE)
        source = QLearning(Settings(remember_reward=remember), env, TASKS, 9, KEYS)
        last[remember] = played(source, 1600)["reward"][-400:].sum(0) / 50  # mean return
    assert last[True].mean() > 0.99 > 0.95 > last[False].mean()


def test_a_learner_that_restarts_finds_a_goal_that_moves_and_is_the_same_where_none_does():
    pool, found = np.array([[0, 4], [4, 0], [4, 4]]), {}
    for change, restarts in np.ndindex(2, 2):
        changes = Changes(20, range(50), [pool] * 50) if change else None
        env = make_vec("DarkRoom-v0", pool[:1].repeat(50, 0), 16, changes=changes, size=5)
        source = QLearning(Settings(restarts=bool(restarts)), env, pool[:1], 50, KEYS[:1])
        found[change, restarts] = played(source, 1000)
    still, other = found[0, 0], found[0, 1]
    assert all((still[name] == other[name]).all() for name in still)
    returns = [found[1, restarts]["reward"].mean() for restarts in range(2)]
    assert returns[1] > 1.1 * returns[0], returns


@pytest.mark.parametrize("shared", [False, True])
def test_planning_solves_the_model_of_what_was_tried(shared):
    source = agents(shared=shared, planning_steps=60, epsilon_start=0.5)
    data = played(source, 300)
    tables = np.arange(8).reshape(2, 4) // (4 if shared else 1)
    known = np.zeros(source.values.shape, bool)
    known[tables, data["observation"], data["action"]] = True
    assert 0.2 < known.mean() < 1
    np.testing.assert_array_equal(source.values[~known], np.float32(0.5))
    future = source.values.max(-1)[tables, data["next_observation"]]
    target = data["reward"] + 0.95 * np.where(data["terminated"], 0, future)
    found = source.values[tables, data["observation"], data["action"]]
    np.testing.assert_allclose(found, target, atol=1e-3)
    np.testing.assert_array_equal(source.model["num_tried"], known.sum((1, 2)))


def test_ties_are_broken_uniformly():
    actions = played(agents(num_envs=600), 1)["action"].ravel()
    share = np.bincount(actions, minlength=5) / len(actions)
    np.testing.assert_allclose(share, 0.2, atol=5 * (0.16 / len(actions)) ** 0.5)


@pytest.mark.parametrize("hold", [1.0, 4.0])
def test_the_last_action_is_held_among_equally_good_ones(hold):
    # No goal is reached, so that all values stay 0; in an episode's first step nothing is held.
    source = agents(200, size=9, limit=4, initial_value=0.0, hold=hold, planning_steps=2)
    data = played(source, 41)
    assert not data["reward"].any()
    repeats = data["action"][1:] == data["action"][:-1]
    first = data["time"][1:] == 0
    assert repeats[~first].mean() == pytest.approx(1 - 0.8 / hold, abs=0.02)
    assert repeats[first].mean() == pytest.approx(0.2, abs=0.04)


def test_an_untried_action_comes_before_one_that_was_in_vain():
    data = played(agents(50, size=9, limit=8, hold=1.0), 5)
    stays = data["next_observation"] == data["observation"]
    pairs = data["observation"].astype(int) * 5 + data["action"]
    for k, n in np.ndindex(2, 50):
        tried = pairs[:, k, n]
        assert len(set(tried)) == len(tried)
    assert stays.any()


@pytest.mark.parametrize("shared", [False, True])
def test_the_last_episodes_take_a_shortest_path(shared):
    tasks = np.array([[0, 0], [3, 4]])
    data = played(agents(3, tasks, 5, 12, shared=shared, initial_value=1.0), 1500)
    for k, n in np.ndindex(2, 3):
        done = np.flatnonzero((data["terminated"] | data["truncated"])[:, k, n])
        lengths = np.diff(done)[-20:]
        np.testing.assert_array_equal(lengths, [4, 3][k])  # steps from the center (2, 2)


@pytest.mark.parametrize("shared", [False, True])
def test_actions_that_a_task_lacks_are_not_taken(shared):
    tasks = np.array([[3, 0], [5, 2]])
    env = VectorEpisodeLength(Bandit(tasks=np.repeat(tasks, 4, axis=0)), 5)
    source = QLearning(Settings(shared=shared, epsilon_start=0.5), env, tasks, 4, KEYS)
    actions = played(source, 80)["action"]
    assert actions[:, 0].max() == 2 and actions[:, 1].max() == 4
    missing = ~np.repeat([np.arange(6) < 3, np.arange(6) < 5], len(source.values) // 2, axis=0)
    assert (source.values[:, 0][missing] == -np.inf).all()
    assert np.isfinite(source.values[:, 0][~missing]).all()


@pytest.mark.parametrize("shared", [False, True])
def test_an_agent_has_the_same_bits_alone_as_among_others(shared):
    both = agents(shared=shared, **MIXED)
    second = agents(tasks=TASKS[1:], keys=KEYS[1:], shared=shared, **MIXED)
    together = played(both, 100)
    for name, values in played(second, 100).items():
        np.testing.assert_array_equal(together[name][:, 1:], values)
    np.testing.assert_array_equal(both.values[-len(second.values) :], second.values)
