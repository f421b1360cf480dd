"""PPO: its updates against torch, and an agent alone against the agent in a batch."""

import numpy as np
import pytest
import torch
from recorded import played
from worlds import Bandit

from ad.sources.ppo import PPO, Samples, Settings
from envs import make_vec
from envs.wrappers import VectorEpisodeLength

TASKS = np.array([[0, 0], [2, 1]])
KEYS = [11, 12]
OTHER = {  # settings that are not the default ones
    "learning_rate": 3e-2,
    "clip": 0.01,
    "discount": 0.8,
    "gae_lambda": 0.5,
    "entropy_coefficient": 0.1,
    "value_coefficient": 3.0,
    "gradient_norm": 0.05,
}


def agents(settings=None, tasks=TASKS, keys=KEYS, num_envs: int = 4) -> PPO:
    """Return agents in 3 x 3 rooms with episodes of four steps before their first step."""
    env = make_vec("DarkRoom-v0", np.repeat(tasks, num_envs, axis=0), 4, size=3)
    return PPO(settings or Settings(), env, np.asarray(tasks), num_envs, keys)


class Reference:
    """A second implementation of one agent in torch: autograd, clip_grad_norm_ and Adam."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.logits = torch.zeros(9, 5, dtype=torch.float64, requires_grad=True)
        self.values = torch.zeros(9, dtype=torch.float64, requires_grad=True)
        self.parts = [self.logits, self.values]
        self.adam = torch.optim.Adam(self.parts, settings.learning_rate, eps=1e-5)

    def learn(self, data: dict[str, np.ndarray]) -> None:
        """Take `epochs` steps on all transitions of a rollout, arrays [T, N] by name."""
        values = self.values.detach().numpy().copy()
        advantages = torch.tensor(self.advantages(data, values)).flatten()
        states, actions = (torch.tensor(data[n].astype(int)) for n in ("observation", "action"))
        targets = advantages + torch.tensor(values)[states].flatten()
        advantages = (advantages - advantages.mean()) / (advantages.std(correction=0) + 1e-8)
        old = self.policy(states).log_prob(actions.flatten()).detach()
        for _ in range(self.settings.epochs):
            policy, own = self.policy(states), self.settings
            ratio = (policy.log_prob(actions.flatten()) - old).exp()
            clipped = ratio.clamp(1 - own.clip, 1 + own.clip)
            surrogate = torch.minimum(ratio * advantages, clipped * advantages)
            error = targets - self.values[states.flatten()]
            bonus = own.entropy_coefficient * policy.entropy()
            loss = (own.value_coefficient * error**2 - surrogate - bonus).mean()
            self.adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parts, own.gradient_norm)
            self.adam.step()

    def policy(self, states) -> torch.distributions.Categorical:
        return torch.distributions.Categorical(logits=self.logits[states.flatten()])

    def advantages(self, data: dict[str, np.ndarray], values: np.ndarray) -> np.ndarray:
        """Sum the discounted errors of each step up to the end of its episode or of the rollout."""
        own, summed = self.settings, np.zeros(data["reward"].shape)
        future = np.where(data["terminated"], 0, values[data["next_observation"]])
        errors = data["reward"] + own.discount * future - values[data["observation"]]
        for t, n in np.ndindex(errors.shape):
            weight = 1.0
            for later in range(t, len(errors)):
                summed[t, n] += weight * errors[later, n]
                weight *= own.discount * own.gae_lambda
                if data["terminated"][later, n] or data["truncated"][later, n]:
                    break
        return summed


@pytest.mark.parametrize("changes", [{}, OTHER], ids=["defaults", "others"])
def test_a_few_updates_equal_those_of_torch(changes):
    # A single minibatch: its order does not matter. Rollouts of 6 steps hold ends of both kinds.
    own = Settings(**{"learning_rate": 0.05, **changes}, minibatches=1, rollout_length=6)
    source, references = agents(own), [Reference(own) for _ in TASKS]
    ends, clipped = np.zeros(2, int), 0
    for update in range(12):
        (chunk,) = source.run(6 * (update + 1))
        ends += [chunk.arrays[name].sum() for name in ("terminated", "truncated")]
        clipped += chunk.statistics["clipped"][0].sum()
        for k, reference in enumerate(references):
            reference.learn({name: values[:, k] for name, values in chunk.arrays.items()})
            expected = reference.logits.detach().numpy(), reference.values.detach().numpy()
            np.testing.assert_allclose(source.parameters[k, :, :-1], expected[0], atol=1e-9)
            np.testing.assert_allclose(source.parameters[k, :, -1], expected[1], atol=1e-9)
    assert (ends > 0).all() and clipped > 0


def test_every_sample_is_in_one_minibatch_of_each_epoch_and_the_order_changes(monkeypatch):
    taken, take = [], Samples.take

    def noted(samples, chosen):
        taken.append(chosen)
        return take(samples, chosen)

    monkeypatch.setattr(Samples, "take", noted)
    list(agents(Settings(rollout_length=5, epochs=3, minibatches=4)).run(5))
    assert [part.shape for part in taken] == [(2, 5)] * 12
    epochs = [np.concatenate(taken[4 * epoch : 4 * epoch + 4], axis=1) for epoch in range(3)]
    for order in epochs:
        np.testing.assert_array_equal(np.sort(order, axis=1), [np.arange(20)] * 2)
    orders = {tuple(row) for order in epochs for row in order}
    assert len(orders) == 6


def test_the_last_rollout_may_be_shorter_and_smaller_than_the_minibatches():
    source = agents(Settings(rollout_length=5, minibatches=8), num_envs=2)
    (chunk,) = source.run(7)
    assert len(chunk.statistics["entropy"]) == 2
    assert np.isfinite(source.parameters).all() and source.updates == 4 * (8 + 4)


def test_actions_that_a_task_lacks_are_not_taken_and_their_logits_stay():
    tasks = np.array([[3, 0], [5, 2]])
    env = VectorEpisodeLength(Bandit(tasks=np.repeat(tasks, 4, axis=0)), 5)
    source = PPO(Settings(rollout_length=5), env, tasks, 4, KEYS)
    actions = played(source, 80)["action"]
    assert [np.unique(actions[:, k]).tolist() for k in (0, 1)] == [[0, 1, 2], [0, 1, 2, 3, 4]]
    assert (source.parameters[0, 0, 3:6] == -1e9).all()
    assert (np.abs(source.parameters[1, 0, :5]) < 1).all()


def test_an_agent_that_is_not_finite_stops_and_does_not_affect_the_others():
    healthy, broken = agents(), agents()
    for source in (healthy, broken):
        list(source.run(20))
    broken.parameters[1, :, -1] = 1e300
    before = broken.parameters[1, :, :-1].copy()
    with np.errstate(over="ignore", invalid="ignore"):
        expected, found = played(healthy, 100), played(broken, 100)
    assert broken.stopped_at.tolist() == [-1, 20] and healthy.stopped_at.tolist() == [-1, -1]
    np.testing.assert_array_equal(broken.parameters[1, :, :-1], before)
    np.testing.assert_array_equal(broken.parameters[0], healthy.parameters[0])
    np.testing.assert_array_equal(found["action"][:, 0], expected["action"][:, 0])
