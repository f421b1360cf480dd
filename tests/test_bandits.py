"""Bandits: rewards, compared with a scalar bandit, tasks and their splits, facts and pictures."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import envs
from ad.config.schema import EnvConfig, SplitConfig
from ad.config.world import configured_split
from envs.bandits import drawing
from envs.rng import derive_key, uniform
from envs.tasks import make_split

WORLDS = ["BernoulliBandit-v0", "GaussianBandit-v0", "OddEvenBandit-v0"]
PARITY = "OddEvenBandit-v0"
FEWER = {"min_arms": 4, "arms": 20}  # Sinii et al. 2023


def world(env_id: str = WORLDS[0], num_envs: int | None = None, **kwargs):
    return envs.make_base(env_id, num_envs=num_envs, **kwargs)


class ScalarBandit:
    """A second implementation of all bandits: one environment, no arrays."""

    def __init__(self, env_id: str, task: list[int], seed: int, kwargs: dict):
        self.env_id, self.task, self.seed, self.kwargs = env_id, task, seed, kwargs
        self.drawn = 0

    def chance(self, purpose: str, counter: int) -> float:
        family_seed = self.kwargs.get("family_seed", 0)
        return float(uniform(derive_key(self.env_id, family_seed, purpose, *self.task), counter))

    def num_arms(self) -> int:
        low, high = self.kwargs.get("min_arms"), self.kwargs["arms"]
        return (
            high if low is None else low + int(self.chance("number of arms", 0) * (high - low + 1))
        )

    def mean(self, arm: int) -> float:
        mean = self.chance("means", arm)
        if self.env_id != PARITY:
            return mean
        usual = self.chance("parity", 0) < self.kwargs.get("parity_probability", 0.95)
        odd_is_better = usual == (self.task[0] == 0)
        return mean / 2 + (0.5 if (arm % 2 == 1) == odd_is_better else 0)

    def random(self) -> float:
        self.drawn += 1
        return float(uniform(self.seed, self.drawn - 1))

    def pull(self, arm: int) -> float:
        if self.env_id != "GaussianBandit-v0":
            return float(self.random() < self.mean(arm))
        radius = math.sqrt(-2 * math.log(1 - self.random()))
        noise = radius * math.cos(2 * math.pi * self.random())
        return self.mean(arm) + self.kwargs.get("sd", 0.3) * noise


SETTINGS = {
    "BernoulliBandit-v0": {},
    "GaussianBandit-v0": {"sd": st.sampled_from([0.1, 1, 2.5])},
    "OddEvenBandit-v0": {
        "min_arms": st.sampled_from([None, 2]),
        "parity_probability": st.sampled_from([0, 0.5, 1]),
        "num_held_out": st.just(6),
    },
}


@pytest.mark.parametrize("env_id", WORLDS)
@given(data=st.data())
def test_a_batch_has_the_transitions_of_scalar_bandits(env_id, data):
    kwargs = {name: data.draw(values) for name, values in SETTINGS[env_id].items()}
    kwargs |= {"arms": data.draw(st.integers(2, 7)), "num_tasks": 6}
    kwargs |= {"family_seed": data.draw(st.integers(0, 3))}
    seed, limit = data.draw(st.integers(0, 2**32)), data.draw(st.integers(1, 4))
    tasks = world(env_id, **kwargs).all_tasks()[-5:].tolist()
    bandits = [ScalarBandit(env_id, task, seed + k, kwargs) for k, task in enumerate(tasks)]
    rng = np.random.default_rng(seed)
    arms = np.array([rng.integers(bandit.num_arms(), size=9) for bandit in bandits])
    vec_env = envs.make_vec(env_id, tasks, limit, **kwargs)
    vec_env.reset(seed=seed)
    for time in range(9):
        observation, reward, terminated, truncated, _ = vec_env.step(arms[:, time])
        expected = [bandit.pull(arm) for bandit, arm in zip(bandits, arms[:, time], strict=True)]
        np.testing.assert_allclose(reward, expected, rtol=1e-5, atol=1e-6)
        assert not observation.any() and not terminated.any()
        assert (truncated == ((time + 1) % limit == 0)).all()


@pytest.mark.parametrize("env_id", WORLDS)
def test_a_task_depends_on_its_family_and_seed_but_not_on_the_number_of_tasks_or_arms(env_id):
    few, many = world(env_id, num_tasks=3), world(env_id, num_tasks=50, arms=20)
    tasks = few.all_tasks()[:3]
    np.testing.assert_array_equal(few.means(tasks), many.means(tasks)[:, : few.arms])
    other = world(env_id, num_tasks=3, family_seed=1)
    assert (few.means(tasks) != other.means(tasks)).all()
    assert (few.relative_tasks(tasks) != other.relative_tasks(tasks)).any(1).all()
    assert few.relative_tasks(tasks).tolist() == many.relative_tasks(tasks).tolist()


@pytest.mark.parametrize(
    ("env_id", "kwargs"), [(env_id, {}) for env_id in WORLDS] + [(PARITY, FEWER)], ids=str
)
def test_the_optimal_and_the_random_return_are_those_of_a_simulation(env_id, kwargs):
    oracle, length, lives = world(env_id, **kwargs), 20, 500
    tasks = oracle.all_tasks()[:4]
    mask = oracle.action_mask(tasks)
    mask = np.ones((4, oracle.arms), bool) if mask is None else mask
    policies = {
        "optimal_return": oracle.optimal_policy(tasks)[:, 0],
        "random_return": mask / mask.sum(1, keepdims=True),
    }
    rng = np.random.default_rng(0)
    for name, policy in policies.items():
        bandit = world(env_id, tasks=tasks.repeat(lives, axis=0), **kwargs)
        bandit.reset(seed=0)
        u = rng.random((length, 4, lives, 1))
        arms = (u >= policy.cumsum(1)[:, None, :-1]).sum(-1).reshape(length, -1)
        returns = sum(bandit.step(arm)[1] for arm in arms).reshape(4, lives)
        error = returns.mean(1) - getattr(oracle, name)(tasks, length)
        assert (np.abs(error) < 3 * returns.std(1) / math.sqrt(lives)).all()


@pytest.mark.parametrize("env_id", WORLDS)
def test_the_optimal_policy_pulls_an_arm_with_the_largest_mean(env_id):
    bandit = world(env_id)
    tasks = bandit.all_tasks()
    policy, means = bandit.optimal_policy(tasks), bandit.means(tasks)
    assert policy.shape == (len(tasks), 1, bandit.arms) and (policy.sum(-1) == 1).all()
    np.testing.assert_array_equal((policy[:, 0] * means).sum(-1), means.max(1))
    np.testing.assert_allclose(bandit.optimal_return(tasks, 7), 7 * means.max(1))
    assert bandit.success(np.ones(3)) is None and bandit.action_mask(tasks) is None


def test_each_number_of_arms_is_equally_likely_and_the_last_arms_are_missing():
    bandit = world(PARITY, num_tasks=8500, **FEWER)
    tasks = bandit.all_tasks()[:8500]
    mask, means = bandit.action_mask(tasks), bandit.means(tasks)
    np.testing.assert_array_equal(mask, np.isfinite(means))
    number = mask.sum(1)
    np.testing.assert_array_equal(mask, np.arange(20) < number[:, None])
    share = np.bincount(number)[4:] / len(tasks)
    np.testing.assert_allclose(share, 1 / 17, atol=3 * math.sqrt(16 / 17**2 / len(tasks)))


def test_a_split_holds_out_the_tasks_of_the_definition():
    splits = [make_split(PARITY, {}, seed, 400) for seed in (0, 0, 1)]
    for split in splits:
        assert split.held_out_tasks.tolist() == [[1, index] for index in range(100)]
        assert len(split.train_tasks) == 400 and not split.train_tasks[:, 0].any()
    assert splits[0].hash == splits[1].hash != splits[2].hash


def test_a_tuning_split_scores_no_task_that_the_definition_holds_out():
    split = configured_split(EnvConfig(id=PARITY), SplitConfig(num_train_tasks=50, tuning=True))
    assert len(split.held_out_tasks) == 20
    for tasks in (split.held_out_tasks, split.train_tasks):
        assert not tasks[:, 0].any()


@pytest.mark.parametrize(
    ("env_id", "kwargs"), [(env_id, {}) for env_id in WORLDS] + [(PARITY, FEWER)], ids=str
)
def test_pictures_show_the_arms_the_pull_and_its_reward(env_id, kwargs):
    bandit = world(env_id, **kwargs)
    task = bandit.all_tasks()[1]
    episode = {"action": np.array([0, 1, 1, 1]), "reward": np.array([0.0, 0, 1, 1])}
    frames = bandit.frames(task, episode)
    assert frames.shape == (5, drawing.HEIGHT, bandit.arms * drawing.WIDTH, 3)
    assert frames.dtype == np.uint8
    for before in (0, 1, 2):  # another arm, another reward
        assert (frames[before] != frames[before + 1]).any()
    np.testing.assert_array_equal(frames[3], frames[4])
    assert (frames[0] != bandit.frames(bandit.all_tasks()[2], episode)[0]).any()


def test_the_means_of_a_drifting_bandit_walk_by_the_task_and_begin_anew_with_a_seed():
    bandit = world(num_envs=3, arms=2, num_tasks=2, drift=0.1, pulls=40)
    tasks = bandit.all_tasks()
    walks = bandit.walks(tasks)  # [2, 40, 2]
    assert walks.min() >= 0 and walks.max() <= 1
    np.testing.assert_array_equal(walks[:, 0], bandit.means(tasks))
    steps = np.diff(world(arms=256, num_tasks=2, drift=0.01, pulls=400).walks(tasks), axis=1)
    assert np.std(steps) == pytest.approx(0.01, rel=0.02)
    for _ in range(2):
        bandit.reset(seed=[5, 6, 7])
        rewards = [bandit.step(np.zeros(3, int))[1] for _ in range(50)]
        chances = uniform(np.array([5, 6, 7], np.uint64)[:, None], np.arange(50))
        means = walks[:, np.minimum(np.arange(50), 39), 0][[0, 1, 0]]  # they stay at the end
        np.testing.assert_array_equal(np.stack(rewards, 1), chances < means)
    best = [np.mean([max(pull) for pull in walk]) for walk in walks.tolist()]
    np.testing.assert_allclose(bandit.optimal_return(tasks, 3), 3 * np.array(best))
    np.testing.assert_allclose(bandit.random_return(tasks, 1), walks.mean((1, 2)))
    assert bandit.optimal_policy(tasks) is None


def test_a_drifting_bandit_is_drawn_and_has_no_posterior_of_means_that_stay():
    bandit = world(num_envs=1, arms=2, num_tasks=2, drift=0.1)
    field = np.array([1, 0])
    frames = bandit.frames([0], {"action": field, "reward": field.astype(np.float32)})
    assert len(frames) == 3 and bandit.reward_distribution is None
    np.testing.assert_array_equal(
        bandit.walks([[0]])[0], world(arms=9, drift=0.1, pulls=500).walks([[0]])[0, :400, :2]
    )
