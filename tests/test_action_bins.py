"""Continuous actions as numbered ones, cart poles and pendulums that differ between tasks."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env

import envs
from envs.action_bins import ActionBins

PENDULUM = "envs.classic_control:Pendulum"
CART_POLE = "envs.classic_control:CartPole"


class Arm(gymnasium.Env):
    """Three joints, whose torques are the observation."""

    observation_space = Box(-2, 2, (3,), np.float32)
    action_space = Box(np.array([-1, -2, 0], np.float32), np.array([1, 2, 1], np.float32))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        return np.zeros(3, np.float32), {}

    def step(self, action):
        observation = action.copy()
        action *= 0.5  # the action is the environment's own
        return observation, 0.0, False, False, {}


def actions_of(bins) -> list[list[float]]:
    return ActionBins(Arm(), bins).actions.tolist()


def test_bins_are_all_combinations_of_values_at_equal_distances():
    assert actions_of([2, 3, 2])[:4] == [[-1, -2, 0], [-1, -2, 1], [-1, 0, 0], [-1, 0, 1]]
    assert len(actions_of(3)) == 27 and [0, 0, 0.5] in actions_of(3)
    arm = ActionBins(Arm(), 3)
    assert [arm.step(26)[0].tolist() for _ in range(2)] == [[1, 2, 1]] * 2
    assert actions_of([[1, 0, 0], [0, -2, 0.5]]) == [[1, 0, 0], [0, -2, 0.5]]


@pytest.mark.parametrize(
    ("bins", "words"),
    [
        (1, "integer from 2"),
        (2.5, "integer from 2"),
        ([2, 2], "3 of them"),
        (11, "1,331 actions"),
        ([[0, 0]], "3 numbers"),
        ([[0, 0, "fast"], [0, 0, 0]], "actions of numbers"),
        ([[0, 3, 0], [0, 0, 0]], "is not in"),
        ([[0, 1, 0], [0, 1, 0]], "equal actions"),
    ],
)
def test_wrong_bins_are_refused_in_words(bins, words):
    with pytest.raises(ValueError, match=words):
        ActionBins(Arm(), bins)


def test_a_world_with_continuous_actions_says_what_to_set_and_steps_as_gymnasium_does():
    with pytest.raises(ValueError, match="with action_bins: 5"):
        _ = envs.make_base("Pendulum-v1").single_action_space
    world = envs.make_base("Pendulum-v1", num_envs=2, action_bins=5)
    assert world.single_action_space.n == 5
    plain = gymnasium.make("Pendulum-v1")
    world.reset(seed=[7, 8])
    plain.reset(seed=7)
    for action, torque in ((4, 2.0), (1, -1.0), (2, 0.0)):
        observations, rewards, *_ = world.step([action, 0])
        expected, reward, *_ = plain.step(np.array([torque], np.float32))
        np.testing.assert_array_equal(observations[0], expected)
        assert rewards[0] == np.float32(reward)


@pytest.mark.filterwarnings("ignore:.*Box")  # the spaces are Gymnasium's own
def test_tasks_differ_in_their_physics():
    check_env(envs.make(PENDULUM, action_bins=3, mass=2.0).unwrapped, skip_render_check=True)
    check_env(envs.make(CART_POLE, length=2.0).unwrapped, skip_render_check=True)
    # From rest at the angle 0 an acceleration is 3 u / (m l^2), of which a step adds 0.05 s.
    light, heavy = (envs.make(PENDULUM, action_bins=3, mass=mass) for mass in (0.5, 2.0))
    for env, speed in ((light, 3 * 2 / 0.5 * 0.05), (heavy, 3 * 2 / 2 * 0.05)):
        env.reset(seed=0)
        env.unwrapped.state = np.zeros(2)
        assert env.step(2)[0][2] == pytest.approx(speed)
    with pytest.raises(ValueError, match="mass must be a number"):
        envs.make(PENDULUM, mass=0)


def test_episodes_are_drawn_by_playing_them_again_from_their_seed():
    world = envs.make_base("CliffWalking-v1", [{}, {"is_slippery": True}])
    played, rng, seed = [], np.random.default_rng(3), 2**63 + 5
    vec_env = envs.make_vec("CliffWalking-v1", [[1]], 6, task_kwargs=[{}, {"is_slippery": True}])
    vec_env.reset(seed=[seed])
    for _ in range(3):
        actions = rng.integers(4, size=6)
        played.append((actions, float(sum(vec_env.step([a])[1][0] for a in actions))))
    frames = world.replay([1], seed, played, {0, 2})
    assert {e: own.shape[0] for e, own in frames.items()} == {0: 7, 2: 7}
    assert world.can_render and (frames[2] != frames[2][0]).any()
    with pytest.raises(ValueError, match="episode 3 returned 9"):
        world.replay([1], seed, [*played[:2], (played[2][0], 9.0)], {0})
    assert not envs.make_base("tests.test_action_bins:Arm").can_render
