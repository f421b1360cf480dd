"""In-context Q-learning: its losses by hand, the ends of episodes, and its target network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from probe_worlds import WORLDS

from ad.config.schema import MethodConfig, ModelConfig
from ad.data.sampler import TaskHistory, WindowSampler
from ad.data.spec import Spec
from ad.methods import build_method
from ad.methods.in_context_q import variance_of
from ad.methods.policy import Policy
from ad.rollout.rollout import rollout, sampled
from envs import make_vec
from envs.oracle import TaskOracle
from envs.spaces import Discrete

HERE = Path(__file__).parent
SMALL = ModelConfig(width=16, layers=1, heads=2, feed_forward=16)
LOSSES = ("dqn", "cql", "iql")
DISCOUNT = 0.5


def method_of(loss: str, **settings):
    """Return the method with a discount of 0.5."""
    settings = {"loss": loss, "discount": DISCOUNT, **settings}
    return build_method(MethodConfig("in_context_q", settings))


def random_model(method, spec):
    """Return a model whose heads and target network are large and differ."""
    torch.manual_seed(0)
    model = method.build(spec, SMALL).eval()
    for head in (model.head, model.q_head, model.v_head, model.target.head):
        if head is not None:
            torch.nn.init.normal_(head.weight)
    return model


@pytest.fixture
def batch(random_window):
    """Four windows of six decisions with ends; the last two of the second are padding."""
    window = random_window(4, 6, seed=0)
    window["action"][:, 1:] %= 5
    window["valid"][1, 5:] = False
    rng = np.random.default_rng(1)
    ends = torch.from_numpy(rng.integers(4, size=(4, 7)))
    return window | {"terminated": ends == 0, "truncated": ends == 1}


@torch.no_grad()
def by_hand(method, model, batch) -> dict[str, float]:
    """Return the parts of the loss, by loops over windows and decisions."""
    settings, hidden = method.settings, model.hidden(batch)
    q, slow = model.action_values(hidden), model.target_values(batch)
    v = model.state_values(hidden) if settings.loss == "iql" else None
    logits = model.head(hidden)
    mask = batch.get("action_mask", torch.ones(4, 7, 5, dtype=torch.bool))
    parts, count = {"td_loss": 0.0, "cql_loss": 0.0, "value_loss": 0.0, "policy_loss": 0.0}, 0
    for b in range(4):
        for t in range(6):
            if not batch["valid"][b, t + 1]:
                continue
            count += 1
            action, reward = batch["action"][b, t + 1], batch["reward"][b, t + 1]
            done = batch["terminated"][b, t + 1] or batch["truncated"][b, t + 1]
            has_next = t < 5 and bool(batch["valid"][b, t + 2])
            if done or has_next:
                target = reward
                if not done and v is not None:
                    target = reward + DISCOUNT * v[b, t + 1]
                elif not done:
                    target = reward + DISCOUNT * slow[b, t + 1][mask[b, t + 2]].max()
                parts["td_loss"] += float((q[b, t, action] - target) ** 2)
            here = mask[b, t + 1]
            gap = q[b, t][here].exp().sum().log() - q[b, t, action]
            parts["cql_loss"] += settings.cql_weight * float(gap)
            if v is not None:
                u = float(slow[b, t, action] - v[b, t])
                parts["value_loss"] += (
                    1 - settings.expectile if u < 0 else settings.expectile
                ) * u**2
                weight = min(np.exp(u / settings.temperature), 100.0)
                log_prob = logits[b, t, action] - logits[b, t][here].exp().sum().log()
                parts["policy_loss"] -= weight * float(log_prob)
    return {name: value / count for name, value in parts.items()}


PARTS = {
    "dqn": ["td_loss"],
    "cql": ["td_loss", "cql_loss"],
    "iql": ["td_loss", "value_loss", "policy_loss"],
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_the_one_by_hand(loss, masked, spec, batch):
    method = method_of(loss, temperature=0.5)
    model = random_model(method, spec)
    if masked:
        batch["action"][:, 1:] %= 3
        batch["action_mask"] = (torch.arange(5) < 3).expand(4, 7, 5).clone()
        batch["action_mask"][:, 0] = False  # as before a history
    total, metrics = method.loss(model, batch)
    expected = by_hand(method, model, batch)
    assert set(metrics) == {*PARTS[loss], "q", "q_variance"}
    for name in PARTS[loss]:
        assert metrics[name].item() == pytest.approx(expected[name], rel=1e-4)
    assert total.item() == pytest.approx(sum(expected[name] for name in PARTS[loss]), rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_target_network_begins_as_a_copy_and_follows_at_its_rate(loss, spec, batch):
    method = method_of(loss, target_rate=0.25)
    model = method.build(spec, SMALL)
    torch.testing.assert_close(
        model.action_values(model.hidden(batch)), model.target_values(batch), rtol=0, atol=0
    )
    assert not any(p.requires_grad for p in model.target.parameters())
    method.loss(model, batch)[0].backward()
    start = {name: p.clone() for name, p in model.target.named_parameters()}
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p += 1
    assert all(torch.equal(p, start[name]) for name, p in model.target.named_parameters())
    method.after_step(model, method.loss(model, batch)[1])
    for name, p in model.target.named_parameters():
        torch.testing.assert_close(p, start[name] + 0.25)


def test_the_target_network_drops_nothing_out(spec, batch):
    model = method_of("dqn").build(spec, replace(SMALL, dropout=0.5)).train()
    torch.testing.assert_close(model.target_values(batch), model.target_values(batch))
    hidden = [model.hidden(batch) for _ in range(2)]
    assert not torch.equal(*hidden)


@pytest.mark.parametrize("loss", LOSSES)
def test_logits_are_the_policys_or_the_values_in_units_of_their_spread(loss, spec, batch):
    method = method_of(loss)
    model = random_model(method, spec)
    model.head.weight.data.mul_(100)
    logits = model(batch)
    for _ in range(300):  # the running variance of one batch is in the end that batch's
        method.after_step(model, method.loss(model, batch)[1])
    hidden = model.hidden(batch)
    values, valid = model.action_values(hidden).detach(), batch["valid"][:, 1:]
    spread = values[valid].var(-1, correction=0).mean().sqrt()
    expected = model.head(hidden) if loss == "iql" else values / spread
    torch.testing.assert_close(model(batch), expected)
    assert (loss == "iql") == torch.equal(logits, model(batch))
    method.after_step(model, {"q_variance": torch.tensor(float("nan"))})  # of a skipped batch
    assert model(batch).isfinite().all()


def test_the_spread_of_the_values_does_not_count_actions_that_the_task_lacks(batch):
    values = torch.tensor([1.0, 5.0, 9.0]).expand(4, 6, 3)
    torch.testing.assert_close(variance_of(values, batch), torch.full((4, 6), 32 / 3))
    mask = torch.tensor([True, True, False]).expand(4, 7, 3)
    torch.testing.assert_close(variance_of(values, {"action_mask": mask}), torch.full((4, 6), 4.0))


def random_histories(world_class, steps: int) -> TaskHistory:
    """Return a history of uniformly random actions on the first task of a probe world."""

    class Uniform(Policy):
        def act(self, observation, time):
            return torch.zeros(len(time), world_class.actions)

        def observe(self, *outcome):
            pass

        def select(self, envs):
            pass

    world = make_vec(f"{HERE}/probe_worlds.py:{world_class.__name__}", [[0]] * 8, world_class.limit)
    length = min(world_class.length, world_class.limit)
    played = rollout(Uniform(), world, range(8), steps // length, sampled(), record=range(8))
    arrays = played.trajectory
    ends = np.append(arrays["episode"][:, 1:] != arrays["episode"][:, :-1], [[True]] * 8, 1)
    never = np.zeros_like(ends)
    done = (never, ends) if world_class.length > world_class.limit else (ends, never)
    arrays = arrays | dict(zip(("terminated", "truncated"), done, strict=True))
    return TaskHistory(arrays, np.zeros(1, int), TaskOracle())


def best_values(model, windows) -> dict[tuple[int, int], float]:
    """Return the mean of the largest action value at the (observation, time) of decisions."""
    batch = windows.sample(np.random.default_rng(1), 64)
    batch = {name: torch.from_numpy(values) for name, values in batch.items()}
    with torch.no_grad():
        values = model.action_values(model.eval().hidden(batch)).amax(-1).numpy()
    valid = batch["valid"][:, 1:].numpy()
    where = [batch[name][:, 1:].numpy()[valid] for name in ("observation", "time")]
    values = values[valid]
    return {
        key: values[(where[0] == key[0]) & (where[1] == key[1])].mean()
        for key in set(zip(*(part.tolist() for part in where), strict=True))
    }


@pytest.mark.parametrize("name", WORLDS)
def test_values_of_probe_worlds_are_those_of_an_optimal_policy(name):
    world, history = WORLDS[name], random_histories(WORLDS[name], 60)
    method = method_of("dqn", target_rate=0.1)
    rewards = np.unique(history.arrays["reward"]).tolist()
    spec = Spec(
        {"": Discrete(world.observations, (world.observations,))},
        *(world.actions, tuple(rewards), (rewards[0], rewards[-1]), world.limit),
    )
    windows = WindowSampler([history], spec, method.fields, 8, 1)
    torch.manual_seed(0)
    model = method.build(spec, replace(SMALL, encoder="table"))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    rng = np.random.default_rng(0)
    for _ in range(150):
        batch = windows.sample(rng, 16)
        loss, metrics = method.loss(model, {n: torch.from_numpy(v) for n, v in batch.items()})
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step(model, metrics)
    found, expected = best_values(model, windows), world.values(DISCOUNT)
    for (observation, time), value in found.items():
        # The return of an episode that is cut is that until its end, which the time tells.
        wanted = (1 + DISCOUNT, 1.0)[time] if name == "TimeLimit" else expected[observation]
        assert value == pytest.approx(wanted, abs=0.1)
