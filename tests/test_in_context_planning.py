"""Planning in context: its losses by hand, and plans against an enumeration of all of them."""

import itertools
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from policies import SMALL, SPEC, random_model

from ad.config.schema import MethodConfig
from ad.methods import build_method
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.methods.dynamics import Outcome
from ad.methods.in_context_planning import PolicySettings
from ad.methods.losses import masked_mean
from ad.methods.planning_policy import PlanningPolicy, Plans
from ad.models.memories.base import Memory
from ad.rollout.rollout import rollout, sampled
from envs import make_vec
from envs.spaces import Discrete

HERE = Path(__file__).parent
NAME = "in_context_planning"


@pytest.fixture
def batch(random_window):
    """Four windows of six decisions, the last two of which are padding in the second window."""
    window = random_window(4, 6, seed=0)
    window["valid"][1, 5:] = False
    left = torch.rand(4, 7, generator=torch.Generator().manual_seed(0))
    return window | {"return_to_go": left, "terminated": window["time"] == 3}


@torch.no_grad()
def by_hand(model, batch) -> dict[str, float]:
    """Return the parts of the loss, by loops over windows and decisions."""
    hidden, rewards = model.hidden(batch), model.spec.rewards
    names = ("action", "reward", "return", "termination", "observation")
    parts, count = {f"{name}_loss": 0.0 for name in names}, 0
    for b, t in itertools.product(range(4), range(6)):
        taken = {name: values[b, t + 1] for name, values in batch.items()}
        if not taken["valid"]:
            continue
        count += 1
        parts["action_loss"] -= model.head(hidden[b, t]).log_softmax(0)[taken["action"]].item()
        known = torch.cat([hidden[b, t], model.tokenizer.action.weight[taken["action"]]])
        features = F.gelu(model.joint(known))
        after, termination, *reward = model.outcome_head(features)
        left = (taken["return_to_go"] - taken["reward"]) / 2
        parts["return_loss"] += (after - left).item() ** 2
        ends = termination.sigmoid() if taken["terminated"] else 1 - termination.sigmoid()
        parts["termination_loss"] -= ends.log().item()
        if rewards:
            log_probs = torch.stack(reward).log_softmax(0)
            parts["reward_loss"] -= log_probs[rewards.index(taken["reward"])].item()
        else:
            parts["reward_loss"] += (reward[0] - taken["reward"] / 2).item() ** 2
        cell = model.observation_head(features).log_softmax(0)[taken["next_observation"]]
        parts["observation_loss"] -= cell.item()
    return {name: value / count for name, value in parts.items()}


@pytest.mark.parametrize("rewards", [(0.0, 1.0), ()])
def test_the_loss_is_the_one_by_hand(rewards, spec, batch):
    method = build_method(MethodConfig(NAME, {"dynamics_weight": 0.3}))
    torch.manual_seed(0)
    spec = replace(spec, rewards=rewards, return_range=(-1.0, 1.0))
    model = method.build(spec, replace(SMALL, reward="projection"))
    for head in (model.head, model.outcome_head, model.observation_head):
        torch.nn.init.normal_(head.weight)
    loss, metrics = method.loss(model, batch)
    expected = by_hand(model, batch)
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert metrics[name].item() == pytest.approx(value, rel=1e-4)
    action = expected.pop("action_loss")
    assert loss.item() == pytest.approx(action + 0.3 * sum(expected.values()), rel=1e-4)


def test_actions_that_a_task_lacks_have_no_part_in_the_loss(spec, batch):
    method = build_method(MethodConfig(NAME))
    model = method.build(spec, SMALL)
    batch["action"][:, 1:] %= 3
    batch["action_mask"] = (torch.arange(5) < 3).expand(4, 7, 5)
    before, _ = method.loss(model, batch)
    with torch.no_grad():
        model.head.bias[3:] += 100
    torch.testing.assert_close(method.loss(model, batch)[0], before)


def test_a_hidden_action_is_not_in_the_context_but_its_outcome_is_learned(spec, batch):
    method = build_method(MethodConfig(NAME))
    model = method.build(spec, SMALL)
    absent = batch | {"action": batch["action"].clone()}
    absent["action"][:, 2] = spec.num_actions
    batch["hidden"] = torch.zeros(4, 7, dtype=torch.bool)
    batch["hidden"][:, 2] = True
    torch.testing.assert_close(
        model.hidden(method.mask_hidden_actions(model, batch)), model.hidden(absent)
    )
    features = model.features(model.hidden(absent), batch["action"][:, 1:])
    expected = masked_mean(model.losses(features, batch)["observation_loss"], batch)
    torch.testing.assert_close(method.loss(model, batch)[1]["observation_loss"], expected)


class Exact:
    """A model of a world of random tables over observations and actions, which it knows.

    Its hidden states are the present observations. The rest of an episode is worth nothing.
    """

    carries = False
    memory = Memory

    def __init__(self, observations: int = 6, actions: int = 3):
        rng, shape = np.random.default_rng(0), (observations, actions)
        self.following = torch.from_numpy(rng.integers(observations, size=shape))
        self.reward, self.after = torch.from_numpy(rng.normal(size=(2, *shape)))
        self.imitated = torch.from_numpy(rng.normal(size=shape))  # logits
        self.ends = torch.from_numpy(rng.random(shape) < 0.2)
        self.spec = replace(SPEC, num_actions=actions, episode_length=9)
        self.return_scale = 2.0
        self.head = SimpleNamespace(weight=torch.zeros(1))
        self.tokenizer = SimpleNamespace(inputs={}, caching=lambda tables: nullcontext())

    def new_cache(self, num_envs, num_decisions):
        return SimpleNamespace(length=0, select=lambda envs: None, reset=lambda: None)

    def hidden(self, window, cache, start):
        return window["observation"][:, 1:, None]

    def logits(self, hidden):
        return self.imitated[hidden[:, 0]]

    def features(self, hidden, action):
        return torch.stack(torch.broadcast_tensors(hidden[..., 0], action), -1)

    def outcome(self, features):
        here = features.unbind(-1)
        mean = getattr(self, "mean", self.reward)[here]
        return Outcome(self.reward[here], mean, self.after[here], self.ends[here])

    def next_observation(self, features):
        return {"": self.following[features.unbind(-1)]}


def planning(model, num_envs: int, *settings, **named) -> PlanningPolicy:
    """Return the planning policy of an `Exact` model."""
    own = PolicySettings(*settings, **named)
    return PlanningPolicy(model, SlidingWindow(model, num_envs, 5), own)


def plan(model, observation, time=0, mask=None, **changes):
    """Return the logits [N, A] at `observation`, int [N], and at the `time`, int [N] or one."""
    arguments = {"plan_steps": 3, "beam_size": 100, "num_samples": 3, "plan_weight": 5.0}
    here = torch.as_tensor(observation)
    arguments = arguments | {"return_weight": 1.0, "rewards": "likely"} | changes
    policy = planning(model, len(here), **arguments)
    if mask is not None:
        policy.set_action_mask(mask)
    return policy.act(here, torch.zeros_like(here) + torch.as_tensor(time))


def best_values(model, observation, time, steps, mask) -> list[float]:
    """Return the values of the best plans of `steps` steps by first action, by enumeration."""
    values = [-np.inf] * len(mask)
    for action in mask.nonzero()[:, 0].tolist():
        here = observation, action
        values[action] = model.reward[here].item()
        if model.ends[here] or time + 1 >= model.spec.episode_length:
            continue
        if steps == 1:
            values[action] += model.after[here].item()
        else:
            following = model.following[here].item()
            values[action] += max(best_values(model, following, time + 1, steps - 1, mask))
    return values


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("plan_steps", [1, 2, 4])
def test_the_logits_hold_the_value_of_the_best_of_all_plans(plan_steps, masked):
    model = Exact()
    observation, time = torch.arange(6).repeat(3), torch.arange(18) % 9
    mask = torch.ones(18, 3, dtype=torch.bool)
    if masked:
        mask = torch.arange(18)[:, None] % 4 != torch.arange(3)
    logits = plan(model, observation, time, mask if masked else None, plan_steps=plan_steps)
    for env in range(18):
        values = torch.tensor(best_values(model, env % 6, env % 9, plan_steps, mask[env]))
        policy = model.imitated[env % 6].masked_fill(~mask[env], -torch.inf).log_softmax(0)
        expected = policy + 5.0 * (values - values.max()) / 2
        torch.testing.assert_close(logits[env], expected.to(logits.dtype), atol=1e-5, rtol=0)


def line() -> Exact:
    """Return a model of six cells in a row: 0.2 for going left, 1 at the right end, three away.

    Actions go left and right. The imitated policy goes left, and the right end ends the episode.
    """
    model = Exact(6, 2)
    cells = torch.arange(6)
    model.following = torch.stack([(cells - 1).clamp(min=0), (cells + 1).clamp(max=5)], 1)
    model.reward = torch.tensor([[0.2, 0.0]] * 4 + [[0.2, 1.0]] * 2).double()
    model.ends = model.reward == 1
    model.after = torch.where(model.ends, 100.0, 0.0).double()  # after the end, where it is nothing
    model.imitated = torch.tensor([[0.5, 0.0]] * 6).double()
    return model


@pytest.mark.parametrize(
    ("changes", "better"),
    [({}, 1), ({"plan_steps": 2}, 0), ({"num_samples": 1}, 0), ({"time": 7}, 0)],
)
def test_a_plan_finds_the_better_action_as_far_as_it_looks(changes, better):
    logits = plan(line(), [2], **changes)
    assert logits.argmax(1).tolist() == [better]


def test_a_predicted_return_stands_for_what_is_beyond_the_plan():
    model = line()
    model.after[:4, 1] = 1.0
    for weight, better in ((1.0, 1), (0.1, 0)):
        logits = plan(model, [2], plan_steps=1, return_weight=weight)
        assert logits.argmax(1).tolist() == [better]


def test_the_mean_reward_tells_arms_apart_whose_likeliest_reward_is_the_same():
    model = Exact(1, 2)
    model.reward, model.mean = torch.ones(1, 2), torch.tensor([[0.6, 0.9]])
    model.after, model.ends = torch.zeros(1, 2), torch.zeros(1, 2) > 0
    model.imitated = torch.tensor([[0.1, 0.0]])
    for rewards, ahead in (("likely", 0.1), ("mean", 0.1 - 5.0 * 0.3 / 2)):
        first, second = plan(model, [0], num_samples=2, plan_steps=1, rewards=rewards)[0]
        assert (first - second).item() == pytest.approx(ahead, abs=1e-5)


def test_the_imagined_context_has_the_likeliest_reward():
    model = Exact()
    model.mean = model.reward + 0.5
    policy = planning(model, 6, 1, 1, 3, 5.0, 1.0, "mean")
    policy.act(torch.arange(6), torch.zeros(6, dtype=torch.int64))
    nothing = torch.zeros(6, 1)
    logits = model.imitated[torch.arange(6)]
    plans, last = policy._continue(
        Plans(nothing, nothing, nothing > 0), logits, torch.zeros(6, dtype=torch.int64), 1
    )
    here = torch.arange(6)[:, None], last.action
    torch.testing.assert_close(last.reward, model.reward[here])
    torch.testing.assert_close(plans.rewards, model.mean[here])


@pytest.mark.parametrize("rewards", [(-1.0, 0.0, 2.0), ()])
def test_the_outcome_has_the_likeliest_and_the_mean_reward(rewards, spec):
    method = build_method(MethodConfig(NAME))
    spec = replace(spec, rewards=rewards, return_range=(-1.0, 2.0))
    model = method.build(spec, replace(SMALL, reward="projection"))
    torch.nn.init.zeros_(model.outcome_head.weight)
    with torch.no_grad():
        model.outcome_head.bias[2:] = torch.tensor([0.5, 0.2, 0.3]).log() if rewards else 0.7
    outcome = model.outcome(torch.zeros(2, SMALL.feed_forward))
    likely, mean = (-1.0, 0.1) if rewards else (2.1, 2.1)
    assert outcome.reward.tolist() == pytest.approx([likely] * 2)
    assert outcome.mean_reward.tolist() == pytest.approx([mean] * 2)


def test_without_steps_it_imitates():
    logits = plan(line(), [2, 5], plan_steps=0)
    torch.testing.assert_close(logits, line().imitated[:2])


def transitions(count: int, num_envs: int):
    """Yield observations, actions and outcomes of `count` random transitions."""
    generator, never = torch.Generator().manual_seed(0), torch.zeros(num_envs) > 0
    for step in range(count):
        cells, following = torch.randint(9, (2, num_envs), generator=generator)
        time = torch.full((num_envs,), step % 6)
        yield cells, time, (cells % 5, (cells % 2).float(), never, never, following)


class Uncached(SlidingWindow):
    """A sliding window that is read as a whole at each decision."""

    def hidden(self):
        return self.model.hidden(self.window())[:, -1]


def sharp_model(**settings):
    """Return the method and a random model with predictions large enough to compare."""
    method, model = random_model(NAME, **settings)
    for head in (model.outcome_head, model.observation_head):
        torch.nn.init.normal_(head.weight)
    return method, model


@pytest.mark.parametrize("tokenizer", ["fused", "separate", "modal", "recurrent"])
@pytest.mark.parametrize(("context_length", "beam_size"), [(1, 3), (5, 1), (5, 3), (12, 1)])
def test_cached_plans_are_those_of_whole_windows(context_length, beam_size, tokenizer):
    is_recurrent = tokenizer == "recurrent"
    settings = {"memory": "gru"} if is_recurrent else {"position": "rotary", "tokenizer": tokenizer}
    method, model = sharp_model(**settings)
    arguments = {"plan_steps": 4, "beam_size": beam_size, "num_samples": 2, "plan_weight": 1.0}
    arguments |= {"return_weight": 1.0, "rewards": "likely"}
    cached = method.policy(model, 3, context_length, method.PolicySettings(**arguments))
    whole = PlanningPolicy(model, Uncached(model, 3, context_length), PolicySettings(**arguments))
    for cells, time, outcome in transitions(15, 3):
        logits = cached.act(cells, time)
        torch.testing.assert_close(logits, whole.act(cells, time))
        cached.observe(*outcome)
        whole.observe(*outcome)
    assert (logits.isneginf().sum(1) >= 3).all() and logits.amax(1).isfinite().all()


def test_what_is_imagined_is_not_in_the_context():
    method, model = sharp_model()
    planning, plain = (
        method.policy(model, 3, 4, method.PolicySettings()),
        ContextPolicy(model, SlidingWindow(model, 3, 4)),
    )
    for cells, time, outcome in transitions(7, 3):
        planning.act(cells, time)
        expected = plain.act(cells, time)
        torch.testing.assert_close(model.head(planning.hidden), expected)
        for policy in (planning, plain):
            policy.observe(*outcome)
        torch.testing.assert_close(planning.window(), plain.window(), equal_nan=True)


def test_branched_contexts_plan_alike_with_the_masks_that_they_came_with():
    method, model = sharp_model()
    policy = method.policy(model, 3, 5, method.PolicySettings())
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [False, True, True, True, True]])
    policy.set_action_mask(mask)
    for step, (cells, time, outcome) in enumerate(transitions(8, 3)):
        if step == 4:
            policy.select(torch.tensor([1, 2, 1]))
            mask = mask[[1, 2, 1]]
        cells, outcome = cells[[0, 1, 0]], tuple(values[[0, 1, 0]] for values in outcome)
        logits = policy.act(cells, time)
        policy.observe(*outcome)
        assert not logits[~mask].isfinite().any()
        if step >= 4:
            torch.testing.assert_close(logits[0], logits[2])
            assert not torch.equal(logits[0], logits[1])


def test_a_rollout_takes_actions_of_the_task_alone():
    world = make_vec(f"{HERE}/worlds.py:Bandit", [[3, 0], [4, 1], [6, 2]], 5, pulls=5)
    spec = replace(SPEC, observation={"": Discrete(1, (1,))}, num_actions=6)
    torch.manual_seed(0)
    method = build_method(MethodConfig(NAME))
    model = method.build(spec, replace(SMALL, encoder="table")).eval()
    with torch.no_grad():
        model.head.bias[5] = 10.0
    policy = method.policy(model, 3, 8, method.PolicySettings(num_samples=3))
    played = rollout(policy, world, range(3), 4, sampled(), record=range(3)).trajectory
    assert policy.action_mask.sum(1).tolist() == [3, 4, 6]
    for actions, number in zip(played["action"], (3, 4, 6), strict=True):
        assert actions.max() < number
