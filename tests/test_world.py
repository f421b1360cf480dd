"""The base class of worlds, by a bandit and a ring: stepping, state, batching, masks, spaces."""

import inspect

import numpy as np
import pytest
from gymnasium.error import InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from trajectories import batch_trajectories
from worlds import Bandit, Silent

from envs.oracle import TaskOracle
from envs.wrappers import VectorEpisodeLength

MODES = [mode.value for mode in AutoresetMode]
TASKS = [[3, 0], [6, 1], [4, 2], [3, 0]]


def bandits(mode: str = MODES[0], tasks=TASKS, pulls: int = 10, limit: int = 50):
    return VectorEpisodeLength(Bandit(tasks=tasks, pulls=pulls), limit, mode)


def pulls(steps: int, seed: int = 0) -> np.ndarray:
    """Actions [N, steps] that each of the tasks has."""
    return np.random.default_rng(seed).integers(3, size=(len(TASKS), steps))


@pytest.mark.parametrize("length", [1, 10])
@pytest.mark.parametrize("mode", MODES[1:])
def test_a_bandit_has_the_same_transitions_in_every_autoreset_mode(mode, length):
    one, other = (
        batch_trajectories(bandits(m, pulls=length), pulls(60), 5) for m in (MODES[0], mode)
    )
    assert one == other
    ends = [step[5] for step in one[0]]  # terminated
    assert ends == [(t + 1) % length == 0 for t in range(60)]


def test_an_environment_that_is_not_active_draws_nothing_and_has_reward_0():
    world, same = Bandit(tasks=TASKS, pulls=10), Bandit(tasks=TASKS, pulls=10)
    for one in (world, same):
        one.reset(seed=1)
    active = np.array([True, False, True, False])
    _, reward, terminated, *_ = world.step([0] * 4, active)
    assert reward[~active].tolist() == [0, 0] and not terminated.any()
    np.testing.assert_array_equal(world.step([1] * 4)[1][~active], same.step([1] * 4)[1][~active])


def test_an_action_that_the_task_does_not_have_is_refused_and_changes_nothing():
    world = Bandit(tasks=TASKS, pulls=10)
    world.reset(seed=0)
    before = world.state()
    with pytest.raises(InvalidAction, match=r"do not have the actions \[3\]"):
        world.step([3, 5, 3, 0])
    for name, array in world.state().items():
        np.testing.assert_array_equal(array, before[name])
    world.step([3, 5, 3, 0], active=np.array([False, True, True, True]))  # is not taken in task 0


def test_a_world_before_its_first_reset_has_no_state():
    with pytest.raises(ValueError, match="a seed must be an integer from 0"):
        (world := Bandit(3)).reset(seed=[1, 2, "3"])
    for method in (world.state, world.render, lambda: world.step([0, 0, 0])):
        with pytest.raises(ResetNeeded):
            method()


def test_a_world_that_cannot_draw_has_no_render_mode():
    with pytest.raises(ValueError, match="there are none"):
        Silent(render_mode="rgb_array")


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.filterwarnings("error")
def test_a_single_environment_has_scalars_or_a_dict_of_parts(parts):
    env = Silent.single(task=[1], parts=parts)
    check_env(env, skip_render_check=True)
    observation, _ = env.reset(seed=0)
    observation, reward, *_ = env.step(1)
    assert reward == 1.0 and observation in env.observation_space
    assert not parts or observation["rewarded"] == 1


SAME = ("relative_tasks", "number_observations")  # members that return what they get
NEED_THINGS = ("put", "grid_shape", "draw")  # members of worlds with a grid to put things into


def test_every_member_of_the_oracle_may_be_unknown():
    world = Silent(3)
    tasks, episode = world.all_tasks(), {name: np.zeros(2) for name in ("observation", "reward")}
    arguments = {"tasks": tasks, "task": tasks[0], "episode_length": 5, "episodes": 3}
    arguments |= {"transitions": episode, "returns": np.ones(4)}
    for name, method in inspect.getmembers(TaskOracle, inspect.isfunction):
        if name in (*SAME, "all_tasks", "names", "replay", "check_masks", *NEED_THINGS):
            continue
        needed = [a for a in inspect.signature(method).parameters if a != "self"]
        assert not getattr(world, name)(*(arguments[a] for a in needed)), name
    for name in SAME:
        np.testing.assert_array_equal(getattr(world, name)(tasks), tasks)
    assert (world.task_noun, world.task_grid, world.success_ends) == ("task", None, False)
    assert world.names(np.array([[3], [0]])) == ["(3)", "(0)"]
