"""A2C: the compiled update against torch, and an agent alone against the agent in a batch."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ad.collection.job import new_source
from ad.runtime.parallel import MAX_THREADS, limit_threads
from ad.sources import a2c_kernel
from ad.sources.a2c import A2C, Settings, initial_parameters

STATES, HIDDEN, ACTIONS, AGENTS = 9, 16, 5, 3
TASKS = np.array([[0, 0], [0, 1], [2, 2]])
A2C_WORDS = ["--source.algorithm", "a2c"]
# Adam divides by the size of the gradient: epsilon keeps steps of tiny gradients comparable.
SETTINGS = {
    "learning_rate": 1e-2,
    "entropy_coefficient": 0.05,
    "value_coefficient": 0.7,
    "gradient_norm": 0.5,
    "beta1": 0.9,
    "beta2": 0.99,
    "epsilon": 1e-2,
}


class Reference:
    """A second implementation of one agent in torch, float64: autograd, clip_grad_norm_, Adam."""

    def __init__(self, flat: np.ndarray, shape: tuple[int, int, int], settings):
        states, hidden, actions = shape
        shapes = [(states, hidden), (hidden,), (hidden,), (actions + 1, hidden), (actions + 1,)]
        parts = torch.tensor(flat, dtype=torch.float64).split([int(np.prod(s)) for s in shapes])
        self.parts = [
            torch.nn.Parameter(part.view(shape)) for part, shape in zip(parts, shapes, strict=True)
        ]
        self.settings = settings
        betas = (float(settings.beta1), float(settings.beta2))
        rate, epsilon = float(settings.learning_rate), float(settings.epsilon)
        self.adam = torch.optim.Adam(self.parts, rate, betas, epsilon)

    def table(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits [S, A] and values [S]."""
        embedding, scale, shift, weight, bias = self.parts
        feature = torch.tanh(F.layer_norm(embedding, scale.shape, scale, shift))
        outputs = F.linear(feature, weight, bias)
        return outputs[:, :-1], outputs[:, -1]

    def update(self, observations, actions, returns) -> list[float]:
        """Update on flat samples; return entropy, squared value error and gradient norm."""
        logits, values = (part[torch.tensor(observations).long()] for part in self.table())
        policy = torch.distributions.Categorical(logits=logits)
        error = torch.tensor(returns, dtype=torch.float64) - values
        surprise = -policy.log_prob(torch.tensor(actions).long()) * error.detach()
        entropy, c = policy.entropy(), self.settings
        bonus = float(c.entropy_coefficient) * entropy
        loss = (surprise - bonus + float(c.value_coefficient) * error**2).mean()
        self.adam.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.parts, float(c.gradient_norm))
        self.adam.step()
        return [float(x.detach().mean()) for x in (entropy, error**2, norm)]

    def flat(self) -> np.ndarray:
        return torch.cat([part.detach().flatten() for part in self.parts]).numpy()


def settings(**changes) -> a2c_kernel.UpdateSettings:
    values = SETTINGS | changes
    return a2c_kernel.UpdateSettings(**{name: np.float32(v) for name, v in values.items()})


class Kernel:
    """Agents with random parameters, and their compiled update."""

    def __init__(self, chosen: a2c_kernel.UpdateSettings):
        shape = (STATES, HIDDEN, ACTIONS)
        self.parameters = np.stack([initial_parameters(shape, key) for key in range(AGENTS)])
        self.moments = np.zeros((2, *self.parameters.shape), np.float32)
        self.stopped = np.zeros(AGENTS, bool)
        self.table = a2c_kernel.empty_table(AGENTS, STATES, ACTIONS)
        self.update_settings, self.updates = chosen, 0
        a2c_kernel.fill_table(self.parameters, HIDDEN, self.table)

    def update(self, observations, actions, returns) -> np.ndarray:
        self.updates += 1
        fixed = (self.parameters, self.moments, self.stopped, HIDDEN, self.table)
        samples = (observations, actions)
        return a2c_kernel.update(*fixed, samples, returns, self.updates, self.update_settings)


def random_samples(rng: np.random.Generator):
    """Return observations, actions and returns [T, K, E] of four steps and three actors."""
    size = (4, AGENTS, 3)
    observations = rng.integers(STATES, size=size).astype(np.uint16)
    actions = rng.integers(ACTIONS, size=size).astype(np.uint8)
    return observations, actions, rng.normal(size=size).astype(np.float32)


@pytest.mark.parametrize("clip", [0.05, 100.0], ids=["clipped", "not clipped"])
def test_a_few_updates_equal_those_of_torch(clip):
    rng, chosen = np.random.default_rng(0), settings(gradient_norm=clip)
    kernel = Kernel(chosen)
    agents = [Reference(p, (STATES, HIDDEN, ACTIONS), chosen) for p in kernel.parameters]
    for _ in range(5):
        samples = random_samples(rng)
        measured = kernel.update(*samples)
        for k, agent in enumerate(agents):
            expected = agent.update(*(array[:, k].ravel() for array in samples))
            np.testing.assert_allclose(measured[k], expected, rtol=2e-4, atol=2e-5)
            np.testing.assert_allclose(kernel.parameters[k], agent.flat(), atol=2e-5)


def test_the_table_holds_the_policy_and_the_values_of_the_new_parameters():
    kernel = Kernel(settings())
    kernel.update(*random_samples(np.random.default_rng(1)))
    for k, flat in enumerate(kernel.parameters):
        agent = Reference(flat, (STATES, HIDDEN, ACTIONS), settings())
        logits, values = (part.detach().numpy() for part in agent.table())
        policy = torch.softmax(torch.tensor(logits), -1).numpy()
        np.testing.assert_allclose(kernel.table.probabilities[k], policy, atol=1e-5)
        np.testing.assert_allclose(kernel.table.cumulative[k], policy.cumsum(-1), atol=1e-5)
        np.testing.assert_allclose(kernel.table.values[k], values, atol=1e-4)


def test_tanh_of_large_inputs_stays_between_minus_one_and_one():
    kernel = Kernel(settings())
    scale = slice(STATES * HIDDEN, STATES * HIDDEN + HIDDEN)
    kernel.parameters[0, scale] = 1e6
    a2c_kernel.fill_table(kernel.parameters, HIDDEN, kernel.table)
    agent = Reference(kernel.parameters[0], (STATES, HIDDEN, ACTIONS), settings())
    values = agent.table()[1].detach().numpy()
    np.testing.assert_allclose(kernel.table.values[0], values, atol=1e-4)


def broken_parameters(kernel: Kernel) -> None:
    kernel.parameters[1] = np.nan
    a2c_kernel.fill_table(kernel.parameters, HIDDEN, kernel.table)


def broken_gradient(kernel: Kernel) -> None:
    kernel.table.values[1] = 1e30


def broken_step(kernel: Kernel) -> None:
    kernel.moments[0, 1] = np.inf


@pytest.mark.parametrize("fault", [broken_parameters, broken_gradient, broken_step])
def test_an_agent_that_is_not_finite_stops_and_does_not_affect_the_others(fault):
    healthy, broken = Kernel(settings()), Kernel(settings())
    fault(broken)
    rng = np.random.default_rng(2)
    for _ in range(3):
        samples = random_samples(rng)
        expected, measured = (kernel.update(*samples) for kernel in (healthy, broken))
    assert broken.stopped.tolist() == [False, True, False]
    assert np.isnan(measured[1]).all()
    for good, bad in zip((expected, *healthy.table), (measured, *broken.table), strict=True):
        np.testing.assert_array_equal(bad[[0, 2]], good[[0, 2]])
    np.testing.assert_array_equal(broken.parameters[[0, 2]], healthy.parameters[[0, 2]])


@pytest.fixture
def agents(smoke, tmp_path):
    """agents(tasks, *words) returns an A2C with an agent of 4 actors for each task, 3 x 3 rooms."""

    def build(tasks, *words: str) -> A2C:
        return new_source(smoke(tmp_path, *A2C_WORDS, *words), np.asarray(tasks))

    return build


def learn(source: A2C, steps: int = 620) -> dict[str, np.ndarray]:
    """Return the transitions and statistics of `steps` steps, agents along the second axis."""
    blocks = list(source.run(steps))
    arrays = {n: np.concatenate([b.arrays[n] for b in blocks]) for n in blocks[0].arrays}
    for name in blocks[0].statistics:
        arrays[name] = np.concatenate([b.statistics[name] for b in blocks])
    return arrays | {"parameters": source.parameters[None].copy()}


@pytest.mark.skipif(MAX_THREADS < 2, reason="this machine has one core")
def test_the_number_of_threads_does_not_change_a_bit(agents):
    results = []
    for threads in (1, MAX_THREADS):
        limit_threads(threads)
        results.append(learn(agents(TASKS)))
    for name, array in results[0].items():
        np.testing.assert_array_equal(array, results[1][name], err_msg=name)


def test_an_update_on_recorded_transitions_equals_torchs(agents):
    # Episodes of three steps in rollouts of five: each rollout holds ends of both kinds.
    own = SETTINGS | {"learning_rate": 3e-3, "gradient_norm": 0.1, "beta1": 0.5}
    own |= {"discount": 0.8, "rollout_length": 5}
    words = [word for name, v in own.items() for word in (f"--source.settings.{name}", str(v))]
    source = agents(TASKS, "--env.episode_length", "3", *words)
    references = [Reference(p, source.shape, Settings(**own)) for p in source.parameters]
    ends = np.zeros(2, int)
    for update in range(20):
        (block,) = source.run(5 * (update + 1))
        data = block.arrays
        ends += [data["terminated"].sum(), data["truncated"].sum()]
        for k, reference in enumerate(references):
            step = {name: array[:, k].astype(np.float64) for name, array in data.items()}
            returns = bootstrapped(step, reference.table()[1].detach().numpy(), 0.8)
            reference.update(*(v.ravel() for v in (step["observation"], step["action"], returns)))
            np.testing.assert_allclose(source.parameters[k], reference.flat(), atol=5e-5)
    assert (ends > 0).all()


def bootstrapped(own: dict[str, np.ndarray], values: np.ndarray, discount: float) -> np.ndarray:
    """Compute n-step returns [T, E] of recorded transitions from the values of all observations."""
    following, returns = values[own["next_observation"].astype(int)], np.zeros_like(own["reward"])
    future = following[-1]
    for t in reversed(range(len(returns))):
        future = np.where(own["truncated"][t] > 0, following[t], future)
        future = own["reward"][t] + discount * (1 - own["terminated"][t]) * future
        returns[t] = future
    return returns


def test_actions_are_sampled_from_the_policy(agents):
    source = agents(TASKS)
    observations = np.tile(np.arange(9), (3, 1000)).astype(np.int64)  # [K, 9000]
    u = np.tile(np.repeat((np.arange(1000) + 0.5) / 1000, 9), (3, 1))
    actions = source.act(observations, u)
    share = np.stack([(actions == a).reshape(3, 1000, 9).mean(1) for a in range(5)], -1)
    np.testing.assert_allclose(share, source.table.probabilities, atol=0.0011)


def test_the_agents_learn_a_small_room(agents):
    words = ["--env.kwargs.size", "5", "--env.episode_length", "12"]
    words += ["--source.settings.learning_rate", "3e-3", "--source.settings.hidden", "32"]
    data = learn(agents([[0, 0], [4, 3], [2, 4]], *words), 3000)
    done = data["terminated"] | data["truncated"]

    def success(part: slice) -> np.ndarray:
        return data["reward"][part].sum((0, 2)) / done[part].sum((0, 2))

    assert (success(slice(200)) < 0.6).all()  # at most 0.42 over ten seeds
    assert (success(slice(-300, None)) > 0.85).all()  # at least 0.94 over ten seeds
