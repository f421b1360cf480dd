"""Ablation: what replaces a component, in which windows, and that nothing else changes."""

from typing import NamedTuple

import hand_made
import numpy as np
import policies
import pytest
import torch
from test_transformer import random_model
from windows import labeled

from ad.config.schema import ModelConfig
from ad.errors import ConfigError
from ad.interpret.analyses.ablation import _curves
from ad.interpret.components import (
    KINDS,
    MLP,
    Ablated,
    AblatedPolicy,
    Replacements,
    parse_components,
)
from ad.interpret.contexts import Environments
from ad.interpret.hooks import hooked
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow

SMALL = ModelConfig(width=16, layers=2, heads=2, feed_forward=12, positions=40)
TOKENIZERS = ("fused", "separate", "modal")


def small(spec, tokenizer="fused"):
    return random_model(spec, ModelConfig(**vars(SMALL) | {"tokenizer": tokenizer}))


def replacements(model, contexts, *names: str) -> Replacements:
    """What the components called `names` can be replaced by."""
    components = [
        component for name in names for component in parse_components(name, model.transformer)
    ]
    return Replacements.of_contexts(model, contexts, [component.point for component in components])


def logits_without(model, contexts, name: str, kind: str, reference=None) -> torch.Tensor:
    """The logits of `contexts` with the components called `name` replaced in each window."""
    components = parse_components(name, model.transformer)
    table = replacements(model, reference or contexts, *name.split("+"))
    rows = table.rows(kind, [None] * len(contexts))
    ablated = Ablated(model, table, [components] * len(contexts), rows)
    with hooked(model, write=ablated.writes()):
        return model(contexts.window)


def test_the_copies_of_a_head_are_gone_without_it_and_stay_without_others(spec, random_window):
    model = hand_made.hand_made(spec, layers=2)
    hand_made.previous_step(model, 1, 0)
    hand_made.copies(model, 1, 0, hand_made.block("action")[:5], hand_made.block("out"))
    contexts = labeled(random_window(4, 8, 0), spec)
    intact = model(contexts.window)
    assert intact.abs().max() == pytest.approx(1)
    assert logits_without(model, contexts, "1.0", "zero").abs().max() == 0
    assert logits_without(model, contexts, "mlp 1+1.0", "zero").abs().max() == 0
    for others in ("1.1", "0.0", "0.0+0.1+1.1+mlp 0+mlp 1", "neuron 1.3"):
        torch.testing.assert_close(logits_without(model, contexts, others, "zero"), intact)
    with pytest.raises(ConfigError, match=r"no component 1\.2"):
        parse_components("0.0+1.2", model.transformer)
    mean = logits_without(model, contexts, "1.0", "mean")
    torch.testing.assert_close(mean, intact.mean(0, keepdim=True).expand_as(intact))
    other = labeled(random_window(3, 8, 5), spec)  # each is drawn once
    resampled = logits_without(model, contexts, "1.0", "resample", other)
    drawn = model(other.window)
    of_windows = [(row - drawn).abs().amax((1, 2)).argmin().item() for row in resampled]
    assert sorted(of_windows[:3]) == [0, 1, 2] and of_windows[3] == of_windows[0]
    torch.testing.assert_close(resampled, drawn[of_windows])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_a_rollout_with_a_cache_replaces_what_a_whole_window_does(
    spec, random_window, tokenizer, kind
):
    model = small(spec, tokenizer)
    reference = labeled(random_window(5, 4, 0), spec)
    components = parse_components("0.1+mlp 1", model.transformer)
    table = replacements(model, reference, "0.1", "mlp 1")
    ablated = Ablated(model, table, [(), components, components], table.rows(kind, [None] * 3))
    policy = AblatedPolicy(ContextPolicy(model, SlidingWindow(model, 3, 4)), ablated)
    flags = torch.zeros(3, dtype=torch.bool)
    for time in range(6):  # the context of four decisions is dropped once
        if time == 2:
            policy.select(torch.tensor([2, 0, 1]))
        state = torch.tensor([time, 8 - time, 4])
        logits = policy.act(state, torch.full((3,), time % 4))
        with hooked(model, write=ablated.writes(policy.windows)):
            expected = model(policy.policy.window())[:, -1]
        torch.testing.assert_close(logits, expected)
        policy.observe(state % 5, torch.ones(3) * (time == 1), flags, flags, state)
    assert policy.windows.tolist() == [2, 0, 1]


def test_what_an_episode_achieved_is_read_with_the_component_replaced():
    method, model = policies.random_model("decision_transformer", {"across_episodes": True})
    zeros = torch.zeros(2, 1, 1, model.head.in_features).double()
    table, mlp = (
        Replacements({MLP.format(0): zeros}, 1, []),
        parse_components("mlp 0", model.transformer),
    )
    ablated = Ablated(model, table, [mlp] * 2, table.rows("zero", [None] * 2))
    policy = AblatedPolicy(method.policy(model, 2, 8, method.PolicySettings(1.0)), ablated)
    for time in range(5):
        state, ends = torch.tensor([time % 3, 1]), torch.full((2,), time % 2 == 1)
        logits = policy.act(state, torch.full((2,), time % 2))
        with hooked(model, write=ablated.writes()):
            torch.testing.assert_close(logits, model(policy.policy.window())[:, -1])
        policy.observe(state, torch.full((2,), 0.25), ends, ends & False, state)


def test_curves_and_changes_are_those_of_their_kind_and_part():
    axes = {"kind": [*KINDS], "component": ["0.0", "mlp 0"]}
    returns = np.zeros((7, 2, 3))  # intact, then by kind and component; two tasks, three episodes
    returns[0] = [[0, 1, 1], [0, 0, 1]]
    returns[1:] = returns[0]
    returns[4] = [[0, 0, 0], [3, 0, 0]]  # the mean, of the MLP
    reward_in_context = np.zeros((7, 2, 3), bool)
    reward_in_context[:, 0, 1:] = True
    reward_in_context[:, 1, 2] = True
    reward_in_context[4] = False  # of other episodes than those of the intact rollout
    flat = (values.reshape(14, 3) for values in (returns, reward_in_context))
    tasks = [(0, np.array([0])), (0, np.array([1]))]
    found = _curves(Played(*flat), axes, Environments(tasks, None, "task", 3))
    assert found["effect"].at(kind="mean", component="mlp 0") == pytest.approx((-2 / 3 + 2 / 3) / 2)
    low, high = found["effect_interval"].at(kind="mean", component="mlp 0")
    assert (low, high) == (pytest.approx(-2 / 3), pytest.approx(2 / 3))
    by_reward, bounds = (found[f"by_reward_in_context{name}"] for name in ("", "_interval"))
    one = {"kind": "mean", "component": "mlp 0"}
    assert by_reward.at(**one).tolist() == [-1, pytest.approx((0 + 1.5) / 2)]
    yes, no = ({**one, "reward in context": answer} for answer in ("yes", "no"))
    assert bounds.at(**yes).tolist() == [-1, -1]
    assert bounds.at(**no).tolist() == [0, 1.5]
    assert found["curves"].at(**one).tolist() == [1.5, 0, 0]
    assert found["intact_curve"].values.tolist() == [0, 0.5, 1]
    others = found["effect"].values[[0, 0, 1, 2, 2], [0, 1, 0, 0, 1]]
    assert not others.any()


class Played(NamedTuple):
    """What is read of a rollout."""

    returns: np.ndarray
    reward_in_context: np.ndarray
