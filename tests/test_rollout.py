"""Rollouts in real dark rooms, by small policies that are easy to foresee."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ad.config.parser import load
from ad.errors import ConfigError, NumericError
from ad.methods.algorithm_distillation import AlgorithmDistillation, Settings
from ad.methods.behavior_cloning import BehaviorCloning
from ad.methods.policy import Policy
from ad.models.sequence_model import ModelConfig, SequenceModel
from ad.rollout.rollout import Rollout, rollout, sampled
from ad.rollout.tasks import TwoTemperatures, policy_of
from envs import make_base, make_vec

TASKS = np.array([[0, 0], [1, 2], [2, 2], [0, 1]])
SEEDS = [11, 12, 13, 14]
FAR = 1e9  # a logit that leaves the others no chance
SAMPLED = sampled()


class Table(Policy):
    """A policy that looks at the observation and nothing else, so never at another environment."""

    def __init__(self, logits: torch.Tensor):
        self.logits = logits

    def act(self, observation: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.logits[observation]

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        pass

    def select(self, envs: torch.Tensor) -> None:
        pass


class Remembering(Table):
    """A policy by table that keeps what it observed, and of which environments."""

    def __init__(self, logits: torch.Tensor):
        super().__init__(logits)
        self.told, self.playing = [], torch.arange(4)

    def act(self, observation, time):
        fresh = {"observation": observation, "time": time, "envs": self.playing}
        self.told.append({name: value.clone() for name, value in fresh.items()})
        return super().act(observation, time)

    def select(self, envs):
        self.playing = self.playing[envs]

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        fresh = {"action": action, "reward": reward, "next_observation": next_observation}
        self.told[-1] |= {name: value.clone() for name, value in fresh.items()}


def wanderer(seed: int = 0) -> Table:
    """Random preferences in each cell of a 3 x 3 room."""
    return Table(torch.randn(9, 5, generator=torch.Generator().manual_seed(seed)))


def walker(action: int) -> Table:
    """Always the same move."""
    return Table(FAR * nn.functional.one_hot(torch.full((9,), action), 5).float())


def play(policy, tasks=TASKS, seeds=SEEDS, episodes=6, select_action=SAMPLED, **kwargs) -> Rollout:
    """Episodes of up to five steps in 3 x 3 rooms, everything recorded."""
    env = make_vec("DarkRoom-v0", np.asarray(tasks), 5, size=3, **kwargs)
    every = range(len(tasks))
    return rollout(policy, env, seeds, episodes, select_action, record=every)


def episodes_of(result: Rollout, index: int) -> list[dict[str, np.ndarray]]:
    """The steps of each counted episode of an environment, from the trajectory."""
    fields = {name: values[index] for name, values in result.trajectory.items()}
    numbers = range(result.returns.shape[1])
    return [{n: v[fields["episode"] == number] for n, v in fields.items()} for number in numbers]


@pytest.mark.parametrize("kwargs", [{}, {"terminate": False}, {"start": "random"}])
def test_returns_lengths_and_successes_are_those_of_the_trajectory(kwargs):
    result = play(wanderer(), **kwargs)
    for index in range(4):
        for number, steps in enumerate(episodes_of(result, index)):
            assert result.returns[index, number] == steps["reward"].sum()
            assert result.lengths[index, number] == len(steps["reward"])
            assert result.successes[index, number] == (steps["reward"].sum() > 0)


def test_an_episode_ends_at_the_goal_or_at_its_limit():
    result = play(wanderer())
    goals = TASKS @ [3, 1]
    for index in range(4):
        for steps in episodes_of(result, index):
            reached = steps["next_observation"] == goals[index]
            assert not reached[:-1].any()
            assert reached[-1] or len(reached) == 5
            np.testing.assert_array_equal(steps["reward"], reached)
            np.testing.assert_array_equal(steps["time"], np.arange(len(reached)))


def test_the_trajectory_goes_where_the_world_leads():
    result = play(wanderer())
    steps = result.trajectory
    expected = make_base("DarkRoom-v0", size=3).successors()[steps["observation"], steps["action"]]
    np.testing.assert_array_equal(steps["next_observation"], expected)
    for index in range(4):
        assert all(episode["observation"][0] == 4 for episode in episodes_of(result, index))


def test_the_first_episodes_of_every_environment_count_long_ones_too():
    # Going left reaches (1, 0) in one step and never the corner: one needs five times as long.
    result = play(walker(3), [[1, 0], [0, 0], [1, 0]], SEEDS[:3], episodes=7)
    np.testing.assert_array_equal(result.lengths, np.repeat([[1], [5], [1]], 7, axis=1))
    np.testing.assert_array_equal(result.returns, np.repeat([[1], [0], [1]], 7, axis=1))
    assert result.env_steps == 7 + 35 + 7


@pytest.mark.parametrize("env_steps", [5, 23])
def test_with_env_steps_the_episodes_that_are_completed_by_then_count(env_steps):
    env = make_vec("DarkRoom-v0", TASKS, 5, size=3)
    cut = rollout(wanderer(), env, SEEDS, 1, SAMPLED, range(4), env_steps=env_steps)
    whole = play(wanderer(), episodes=env_steps)
    assert cut.trajectory["reward"].shape == (4, env_steps)
    completed = (whole.lengths.cumsum(1) <= env_steps).sum(1)  # episodes of each environment
    assert cut.returns.shape == (4, completed.max()) and completed.min() >= 1
    for index, count in enumerate(completed):
        for name in ("returns", "lengths", "successes", "reward_in_context"):
            own, of_whole = getattr(cut, name)[index], getattr(whole, name)[index]
            np.testing.assert_array_equal(own[:count], of_whole[:count], err_msg=name)
        assert np.isnan(cut.returns[index, count:]).all() and not cut.lengths[index, count:].any()
        steps = whole.lengths[index, :count].sum()
        np.testing.assert_array_equal(cut.trajectory["episode"][index, steps:], -1)
        np.testing.assert_array_equal(
            cut.trajectory["action"][index, :steps], whole.trajectory["action"][index, :steps]
        )


def test_an_environment_does_not_depend_on_those_beside_it():
    together = play(wanderer(), start="random")
    for index in range(4):
        alone = play(wanderer(), TASKS[[index]], SEEDS[index : index + 1], start="random")
        np.testing.assert_array_equal(alone.returns[0], together.returns[index])
        np.testing.assert_array_equal(alone.lengths[0], together.lengths[index])
        for name, values in alone.trajectory.items():
            same = together.trajectory[name][index, : values.shape[1]]
            np.testing.assert_array_equal(values[0], same, err_msg=name)


def test_the_policy_observes_what_is_recorded_and_the_true_last_observation():
    policy = Remembering(wanderer().logits)
    result = play(policy)
    for step, told in enumerate(policy.told):
        envs = told.pop("envs").numpy()
        assert set(np.flatnonzero(result.trajectory["episode"][:, step] >= 0)) <= set(envs)
        for name, values in told.items():
            recorded = result.trajectory[name][envs, step]
            np.testing.assert_array_equal(values.numpy(), recorded, err_msg=name)
    assert len(policy.told[0]["time"]) > len(policy.told[-1]["time"])  # some were over early


def test_only_the_environments_that_were_asked_for_are_recorded():
    env = make_vec("DarkRoom-v0", TASKS, 5, size=3)
    policy = wanderer()
    result = rollout(policy, env, SEEDS, 2, sampled(), record=[3, 1])
    everything = play(policy, episodes=2)
    for name, values in result.trajectory.items():
        np.testing.assert_array_equal(values, everything.trajectory[name][[3, 1]], err_msg=name)
    np.testing.assert_array_equal(result.returns, everything.returns)


def test_selected_environments_of_a_rollout_are_those_played_alone():
    together = play(wanderer()).select_envs(1, 3)
    alone = play(wanderer(), TASKS[1:3], SEEDS[1:3])
    for name in ("returns", "lengths", "successes", "reward_in_context", "recorded"):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name), name)
    for name, values in alone.trajectory.items():
        over = alone.trajectory["episode"] < 0
        same = np.where(over, 0, together.trajectory[name])
        np.testing.assert_array_equal(same, np.where(over, 0, values), name)
    assert together.env_steps == alone.env_steps == alone.lengths.sum()


@pytest.mark.parametrize("tokenizer", ["fused", "separate", "modal"])
def test_a_model_plays_as_before_when_other_environments_are_over(spec, tokenizer):
    torch.manual_seed(0)
    config = ModelConfig(width=16, layers=2, heads=2, feed_forward=16, tokenizer=tokenizer)
    model = SequenceModel(spec, config).eval()
    method, near = AlgorithmDistillation(Settings()), np.array([[1, 0], [0, 0], [1, 2], [2, 2]])
    env = make_vec("DarkRoom-v0", near, 4, size=3)
    policy = method.policy(model, 4, 6, method.PolicySettings())
    together = rollout(policy, env, SEEDS, 9, sampled(), record=range(4))
    ends = (together.trajectory["episode"] >= 0).sum(1)
    assert len(set(ends)) >= 3  # so that the context shrinks twice at least
    for index in range(4):
        env = make_vec("DarkRoom-v0", near[[index]], 4, size=3)
        policy = method.policy(model, 1, 6, method.PolicySettings())
        alone = rollout(policy, env, SEEDS[index : index + 1], 9, sampled())
        assert alone.trajectory["action"].shape == (0, 1)  # memory does not grow with the steps
        np.testing.assert_array_equal(alone.lengths[0], together.lengths[index])
        np.testing.assert_array_equal(alone.reward_in_context[0], together.reward_in_context[index])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_end_the_rollout(bad):
    policy = wanderer()
    policy.logits[4, 2] = bad
    with pytest.raises(NumericError):
        play(policy)


def test_a_logit_of_minus_infinity_is_an_action_that_is_never_taken():
    policy = wanderer()
    policy.logits[:, 2] = float("-inf")
    assert 2 not in play(policy).trajectory["action"]
    policy.logits[:] = float("-inf")
    with pytest.raises(NumericError):
        play(policy)


LOGITS = np.array([[0.0, 1.0, -2.0, 0.5, 3.0]])
GRID = (np.arange(20000) + 0.5) / 20000  # every u in [0, 1), evenly


def frequencies(select_action) -> np.ndarray:
    actions = select_action(np.repeat(LOGITS, len(GRID), axis=0), GRID)
    return np.bincount(actions, minlength=5) / len(GRID)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_actions_are_sampled_with_the_probabilities_of_the_softmax(temperature):
    probabilities = np.exp(LOGITS[0] / temperature)
    expected = probabilities / probabilities.sum()
    np.testing.assert_allclose(frequencies(sampled(temperature)), expected, atol=2e-4)


@pytest.mark.parametrize("u", [0.0, np.nextafter(1.0, 0.0)])
def test_the_ends_of_the_unit_interval_give_actions_that_exist(u):
    logits = np.array([[-FAR, 0.0, 0.0, -FAR, -FAR]])
    assert sampled()(logits, np.array([u])) == [1 if u == 0 else 2]


class Fresh(Remembering):
    """It holds the last three transitions of every environment."""

    def reward_in_context(self):
        rewards = [step["reward"] for step in self.told[-4:-1]]  # the newest is still open
        return torch.stack([torch.zeros(4), *rewards]).amax(0)[self.playing] > 0

    def observe(self, action, reward, terminated, truncated, next_observation):
        of_all = torch.zeros(4).index_copy(0, self.playing, reward.float())
        super().observe(action, of_all, terminated, truncated, next_observation)


@pytest.mark.parametrize("kwargs", [{}, {"terminate": False}])
def test_reward_in_context_is_what_the_context_held_when_an_episode_began(kwargs):
    result = play(Fresh(wanderer().logits), episodes=12, **kwargs)
    assert 0 < result.reward_in_context.mean() < 1
    for index in range(4):
        fields = {name: values[index] for name, values in result.trajectory.items()}
        for number in range(12):
            start = np.flatnonzero(fields["episode"] == number)[0]
            before = fields["reward"][max(start - 3, 0) : start]
            assert result.reward_in_context[index, number] == (before > 0).any()


class Knowing(Table):
    """A policy that knows the task of the second environment alone."""

    device = torch.device("cpu")

    def reward_in_context(self):
        return torch.tensor([False, True])


def test_logits_are_divided_by_the_temperature_of_what_the_context_holds():
    policy = TwoTemperatures(Knowing(torch.arange(45.0).view(9, 5)), 2.0, 0.5)
    observation = torch.tensor([3, 3])
    logits = policy.act(observation, torch.zeros(2))
    torch.testing.assert_close(
        logits, torch.arange(15.0, 20.0).double() * torch.tensor([[0.5], [2.0]])
    )


@pytest.mark.parametrize("rewards", [(0.0, 2.0), ()])
def test_two_temperatures_are_refused_where_rewards_are_not_0_and_1(spec, rewards):
    config = load(["--evaluation.temperature_known", "0.5"])
    model = SequenceModel(spec, config.model)
    method = AlgorithmDistillation(Settings())
    assert isinstance(policy_of(config, method, model)(2), TwoTemperatures)
    model.spec = replace(spec, rewards=rewards)
    with pytest.raises(ConfigError, match="temperature_known is for rewards of 0 and 1"):
        policy_of(config, method, model)(2)
    with pytest.raises(ConfigError, match="its policy has no context of rewards"):
        policy_of(config, BehaviorCloning(Settings()), model)(2)
