"""Families of tabular MDPs: rules and draws by the definition, and exact facts about tasks."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envs
from envs.mdps import planning
from envs.mdps.structured import _rises
from envs.rng import derive_key, uniform

FAMILIES = ["RandomMDP-v0", "Garnet-v0", "StructuredMDP-v0", "GraphMDP-v0"]
FEW = {"max_examples": 15, "deadline": None}
FEW["suppress_health_check"] = [HealthCheck.differing_executors]


def world(env_id: str, tasks=None, **kwargs):
    return envs.make_base(env_id, tasks=tasks, **kwargs)


class Scalar:
    """A second implementation: one environment of one MDP, by its definition, without arrays."""

    def __init__(self, env, index: int, seed: int):
        model = env.models(np.array([index]))
        self.probabilities, self.rewards = model.transitions[0].tolist(), model.rewards[0].tolist()
        self.terminal, self.start = model.terminal[0].tolist(), int(model.starts[0])
        self.noise, self.seed, self.draws = env.reward_noise, seed, 0
        self.state = self.start

    def draw(self) -> float:
        self.draws += 1
        return float(uniform(self.seed, self.draws - 1))

    def step(self, action: int) -> tuple[int, float, bool]:
        u, reward = self.draw(), self.rewards[self.state][action]
        row = self.probabilities[self.state][action]
        following = next(k for k, total in enumerate(itertools.accumulate(row)) if u < total)
        if self.noise:
            radius = math.sqrt(-2 * math.log(1 - self.draw()))
            reward += self.noise * radius * math.cos(2 * math.pi * self.draw())
        self.state = following
        return following, reward, self.terminal[following]


@settings(**FEW)
@given(
    env_id=st.sampled_from(FAMILIES),
    num_states=st.integers(8, 20),
    num_actions=st.integers(1, 6),
    family_seed=st.integers(0, 10**6),
    seed=st.integers(0, 10**6),
)
def test_steps_are_those_of_the_definition(env_id, num_states, num_actions, family_seed, seed):
    kwargs = {"num_states": num_states, "num_actions": num_actions, "family_seed": family_seed}
    env = world(env_id, [[3], [7], [3]], num_tasks=9, **kwargs)
    scalars = [Scalar(env, int(task), seed + n) for n, (task,) in enumerate(env.tasks)]
    np.testing.assert_array_equal(env.reset(seed=seed)[0], [one.start for one in scalars])
    actions = np.random.default_rng(seed).integers(num_actions, size=(60, 3))
    for action in actions:
        observation, reward, terminated, *_ = env.step(action)
        steps = [one.step(int(a)) for one, a in zip(scalars, action, strict=True)]
        assert observation.tolist() == [step[0] for step in steps]
        np.testing.assert_allclose(reward, [step[1] for step in steps], rtol=1e-5, atol=1e-6)
        assert terminated.tolist() == [step[2] for step in steps]
        if terminated.any():
            env.reset(options={"reset_mask": terminated})
            for one in itertools.compress(scalars, terminated):
                one.state = one.start


@pytest.mark.parametrize("env_id", FAMILIES)
def test_a_task_depends_on_the_seed_of_the_family_and_not_on_the_other_tasks(env_id):
    few, many = world(env_id, num_tasks=5), world(env_id, num_tasks=50)
    other = world(env_id, num_tasks=50, family_seed=1)
    alone = few.models(np.array([3]))
    for name, values in vars(many.models(np.array([0, 3, 49]))).items():
        np.testing.assert_array_equal(values[1], getattr(alone, name)[0])
    assert (other.models(np.array([3])).transitions != alone.transitions).any()
    assert (many.models(np.array([4])).transitions != alone.transitions).any()


def test_random_mdps_are_drawn_by_their_definition():
    env = world("RandomMDP-v0", num_states=4, num_actions=3, family_seed=5)
    model = env.models(np.array([17]))
    words = "RandomMDP-v0", 5, 17
    for s, a in np.ndindex(4, 3):
        key, first = derive_key(*words, "transitions"), (s * 3 + a) * 4
        weights = [-math.log(1 - uniform(key, first + k)) for k in range(4)]
        expected = [weight / sum(weights) for weight in weights]
        np.testing.assert_allclose(model.transitions[0, s, a], expected)
        u, v = (uniform(derive_key(*words, "rewards"), k * 12 + s * 3 + a) for k in range(2))
        reward = 1 + math.sqrt(-2 * math.log(1 - u)) * math.cos(2 * math.pi * v)
        assert model.rewards[0, s, a] == pytest.approx(reward)
    assert model.starts[0] == 0 and not model.terminal.any()


@pytest.mark.parametrize("branching", [1, 2, 5])
def test_garnets_have_few_successors_with_uniform_cuts(branching):
    model = world("Garnet-v0", branching=branching).models(np.arange(200))
    assert ((model.transitions > 0).sum(-1) == branching).all()
    share = (model.transitions > 0).mean((0, 1, 2))  # of each state among the successors
    np.testing.assert_allclose(share, branching / 16, atol=4 * (1 / 16 / 16000) ** 0.5 * branching)
    if branching == 2:
        quartiles = np.quantile(model.transitions[model.transitions > 0], [0.25, 0.5, 0.75])
        np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=0.01)  # uniform
    assert abs(model.rewards.mean()) < 3 / model.rewards.size**0.5


@pytest.mark.parametrize("kwargs", [{}, {"num_states": 32, "num_actions": 3}], ids=str)
def test_graphs_are_strongly_connected_and_pay_at_one_node(kwargs):
    env = world("GraphMDP-v0", **kwargs)
    successors = env.successors(env.all_tasks()[:50])
    states = np.arange(env.num_states)
    assert (successors != states[:, None]).all()
    assert successors.min() == 0 and successors.max() == states[-1]
    model = env.models(np.arange(50))
    for table, rewards in zip(successors, model.rewards, strict=True):
        reached = np.eye(env.num_states, dtype=bool)
        for _ in states:
            reached |= reached[table].any(1)
        assert reached.all()
        (goal,) = set(table[rewards == 1].tolist())
        assert goal != 0
        np.testing.assert_array_equal(rewards, table == goal)


def test_which_graphs_are_possible_is_what_their_rules_say():
    env = world("GraphMDP-v0", num_envs=20, num_states=5, num_actions=2, num_tasks=20)
    before, tasks = env.reset(seed=0)[0], env.all_tasks()
    rng, seen = np.random.default_rng(0), np.ones((20, 20), bool)
    for time in range(40):
        action = rng.integers(2, size=20)
        after, reward, terminated, *_ = env.step(action)
        fields = {"observation": before, "action": action, "reward": reward, "time": time}
        fields |= {"next_observation": after, "terminated": terminated}
        possible = env.possible(fields, tasks)
        for n, k in np.ndindex(20, 20):
            model = env.models(np.array([k]))
            agrees = model.transitions[0, before[n], action[n], after[n]] == 1
            agrees &= model.rewards[0, before[n], action[n]] == reward[n]
            assert possible[n, k] == agrees
        seen &= possible
        before = after
    assert seen.diagonal().all() and seen.sum() == 20


def test_structured_mdps_are_banded_and_keep_starts_and_the_end_free_of_pitfalls():
    env = world("StructuredMDP-v0", num_states=24)
    model = env.models(np.arange(300))
    step = np.arange(24) - np.arange(24)[:, None]
    is_possible = (model.transitions > 0).any((0, 2))
    np.testing.assert_array_equal(is_possible, (step >= -13) & (step <= 7))
    assert ((model.transitions > 0).sum(-1) == 3).all()
    assert not model.terminal[:, :3].any() and model.terminal[:, 3:-1].any()
    assert set(model.starts.tolist()) == {0, 1, 2}
    assert 0 < model.terminal[:, -1].mean() < 0.6
    assert world("StructuredMDP-v0", goal_probability=1).models(np.arange(9)).terminal[:, -1].all()


def test_the_rewards_of_structured_mdps_are_those_of_the_formula():
    env = world("StructuredMDP-v0", goal_probability=0.5)
    for task in range(20):
        model = env._draw_models(np.array([task]), 0)
        words = "StructuredMDP-v0", 0, task
        numbers = [float(uniform(derive_key(*words, "task", 0), k)) for k in range(7)]
        progress, height, penalty, _, goal, bonus, start = numbers
        assert model.starts[0] == int(3 * start) and model.terminal[0, -1] == (goal < 0.5)
        for s, a in np.ndindex(16, 5):
            row = model.transitions[0, s, a]
            cost = 0.2 * uniform(derive_key(*words, "costs", 0), s * 5 + a)
            reward = progress * (row @ np.arange(16) - s) / 15 + height * s / 15 - cost
            reward += (1 + 3 * bonus) * row[-1] * (goal < 0.5)
            reward -= penalty * row[:-1][model.terminal[0, :-1]].sum()
            assert model.rewards[0, s, a] == pytest.approx(reward)


@pytest.mark.parametrize("kwargs", [{}, {"num_states": 8, "num_actions": 1}], ids=str)
def test_the_value_of_structured_mdps_rises_and_others_are_drawn_again(kwargs):
    env = world("StructuredMDP-v0", **kwargs)
    tasks = np.arange(200)
    first, accepted = env._draw_models(tasks, 0), env.models(tasks)
    assert _rises(accepted).all() and 0.1 < _rises(first).mean() < 0.9
    kept = (first.rewards == accepted.rewards).all((1, 2))
    np.testing.assert_array_equal(kept, _rises(first))


def all_policies(states: int, actions: int) -> np.ndarray:
    """All deterministic stationary policies, [M, S, A]."""
    return np.eye(actions)[list(itertools.product(range(actions), repeat=states))]


@pytest.mark.parametrize("env_id", ["RandomMDP-v0", "Garnet-v0", "GraphMDP-v0"])
def test_the_optimal_return_is_that_of_the_best_sequence_of_policies(env_id):
    env = world(env_id, num_states=3, num_actions=2)
    policies = all_policies(3, 2)
    for task in range(3):
        model = env.models(np.array([task]))
        best = -np.inf
        for sequence in itertools.product(policies, repeat=3):
            chance, total = np.eye(3)[model.starts[0]], 0.0
            for policy in sequence:
                joint = chance[:, None] * policy
                total += (joint * model.rewards[0]).sum()
                chance = np.einsum("sa,sat->t", joint, model.transitions[0])
            best = max(best, total)
        assert env.optimal_return([[task]], 3)[0] == pytest.approx(best)


@pytest.mark.parametrize("env_id", FAMILIES)
def test_returns_are_those_of_a_simulation(env_id):
    tasks = np.repeat([[1], [4]], 4000, axis=0)
    env = envs.make_vec(env_id, tasks, 8, autoreset_mode="Disabled")
    base, rng = env.unwrapped, np.random.default_rng(0)
    model = base.models(np.array([1, 4]))
    plans = list(planning.action_values(model.continuing, model.rewards, 8))
    task = np.repeat([0, 1], 4000)
    for is_random in (True, False):
        observation, _ = env.reset(seed=1)
        total, running = np.zeros(8000), np.ones(8000, bool)
        for time in range(8):
            best = plans[7 - time][task, observation].argmax(-1)
            action = rng.integers(base.num_actions, size=8000) if is_random else best
            observation, reward, terminated, *_ = base.step(action, running)
            total, running = total + reward, running & ~terminated
        ask = base.random_return if is_random else base.optimal_return
        totals = total.reshape(2, 4000)
        errors = totals.std(1) / 4000**0.5
        assert (abs(totals.mean(1) - ask([[1], [4]], 8)) <= 3 * errors + 1e-6).all()


@pytest.mark.parametrize("env_id", FAMILIES)
def test_the_optimal_policy_has_the_best_discounted_values_of_all_policies(env_id):
    states = 8 if env_id == "StructuredMDP-v0" else 4
    env = world(env_id, num_states=states, num_actions=2)
    model = env.models(np.array([2]))

    def values(policy) -> np.ndarray:
        joint = np.einsum("sa,sat->st", policy, model.continuing[0])
        return np.linalg.solve(np.eye(states) - 0.95 * joint, (policy * model.rewards[0]).sum(1))

    best = np.max([values(policy) for policy in all_policies(states, 2)], axis=0)
    np.testing.assert_allclose(values(env.optimal_policy([[2]])[0]), best)


@pytest.mark.parametrize("env_id", FAMILIES)
def test_pictures_show_the_present_state_and_the_reward(env_id):
    env = world(env_id, tasks=[[2]])
    fields = {"observation": np.array([0, 1, 1]), "next_observation": np.array([1, 1, 1])}
    frames = env.frames((2,), fields | {"reward": np.array([0.5, 0.5, -1.0])})
    assert frames.shape == (4, 192, 192, 3) and frames.dtype == np.uint8
    assert (frames[0] != frames[1]).any() and (frames[2] != frames[3]).any()
    half = 96
    assert (frames[2][:half] != frames[3][:half]).any()  # the bar of 0.5 goes up,
    assert (frames[2][half:] != frames[3][half:]).any()  # that of -1 down
