"""Worlds under values that are not actions, and under random sequences of actions."""

import numpy as np
import pytest
from gymnasium.error import InvalidAction
from gymnasium.vector import AutoresetMode
from trajectories import batch_trajectories

import envs

FULL = pytest.mark.faults
WORLDS = [*sorted(envs.REGISTRY), "FrozenLake-v1"]
MODES = [mode.value for mode in AutoresetMode]
NOT_ACTIONS = [0.5, 2.0, float("nan"), float("inf"), -1, 10**6, 2**70, "1", "up", b"1", True, None]
NOT_ACTIONS += [[1], (), {}, np.array([1]), np.float32(1), np.True_, 1j]
LIMIT = 7  # steps of an episode: short, so that many end


def make_vec_env(env_id: str, mode: str, count: int):
    tasks = envs.make_base(env_id).all_tasks()
    return envs.make_vec(env_id, tasks[np.arange(count) % len(tasks)], LIMIT, mode)


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=FULL)])
@pytest.mark.parametrize("env_id", WORLDS)
def test_a_value_that_is_not_an_action_is_refused_and_changes_nothing(env_id, ledger, full):
    kind = "values that are not actions (0.5, NaN, -1, text)"
    for mode in MODES:
        disturbed, calm = (make_vec_env(env_id, mode, 3) for _ in range(2))
        for vec_env in (disturbed, calm):
            vec_env.reset(seed=1)
        for wrong in NOT_ACTIONS:
            for place in range(3):
                actions = [0, 0, 0]
                actions[place] = wrong
                with pytest.raises(InvalidAction):
                    disturbed.step(actions)
                ledger.count(kind)
        for _ in range(LIMIT - 1):
            steps = [vec_env.step(np.zeros(3, np.int64)) for vec_env in (disturbed, calm)]
            for one, other in zip(steps[0][:4], steps[1][:4], strict=True):
                np.testing.assert_array_equal(one, other)
            if steps[0][2].any():  # an episode has ended, and one mode does not begin the next
                break


@pytest.mark.parametrize("total", [300, pytest.param(10_000, marks=FULL)])
def test_random_actions_keep_the_contract_in_every_autoreset_mode(ledger, total):
    kind = "random action sequences, all worlds and autoreset modes"
    count = -(-total // (len(WORLDS) * len(MODES)))
    rng = np.random.default_rng(0)
    for env_id in WORLDS:
        world = envs.make_base(env_id)
        actions = rng.integers(world.single_action_space.n, size=(count, 4 * LIMIT))
        trajectories = [
            batch_trajectories(make_vec_env(env_id, mode, count), actions, seed=5) for mode in MODES
        ]
        for results in zip(*trajectories, strict=True):
            same = results[0] == results[1] == results[2]
            fine = same and all(map(keeps_the_contract(world), results[0]))
            ledger.count(kind, None if fine else f"{env_id}: {results[0]}", tried=len(MODES))
    assert not ledger.lost(kind)


def keeps_the_contract(world):
    """Return a function that checks one transition of `world`."""
    space = world.single_observation_space

    def check(transition: tuple) -> bool:
        time, before, _, reward, after, terminated, truncated = transition
        seen = (np.asarray(observation, space.dtype) for observation in (before, after))
        inside = all(observation in space for observation in seen) and 0 <= time < LIMIT
        return bool(
            inside and np.isfinite(reward) and (terminated or truncated == (time + 1 == LIMIT))
        )

    return check
