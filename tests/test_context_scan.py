"""The context scan: what is varied, in which environments, and that nothing else is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_contexts import untrained
from test_patching import AD, rewarded_model
from test_segments import small_model
from windows import labeled, rewarded_queries

from ad.interpret.analyses.context_scan import HELD_OUT, Variant, log_probs, play, reach
from ad.interpret.analyses.varied import EARLY, LATE, Prompt, VariedPolicy, prompts_of
from ad.interpret.analysis import Subject, compared
from ad.interpret.changes import changed
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.rollout.tasks import policy_of, rollout_tasks

SMALL = ["--evaluation.episodes", "3", "--model.layers", "1", "--data.context_length", "8"]
RAISED = 2  # the action that the hand-made model raises where it reads a reward


@pytest.fixture
def queries(spec, random_window):
    """Twelve windows with a reward at the fourth decision."""
    return rewarded_queries(spec, random_window)


@pytest.fixture
def subject(collected):
    """An untrained model on collected histories."""
    return Subject(*untrained(collected("scan", *SMALL)))


def varied(**settings) -> Variant:
    return Variant("varied", "intact", **settings)


def test_rewards_that_are_scaled_to_nothing_are_rewards_removed(spec, queries):
    model = rewarded_model(spec)
    without = replace(queries, contexts=changed(queries, "no rewards", model, AD))
    expected = log_probs(model, without, HELD_OUT)
    assert (expected - log_probs(model, queries, HELD_OUT)).abs().max() > 1
    torch.testing.assert_close(log_probs(model, queries, varied(reward_scale=0.0)), expected)
    assert not model.tokenizer.reward._forward_pre_hooks


def test_a_shorter_context_forgets_the_reward_that_is_out_of_it(spec, queries):
    model, window = rewarded_model(spec), queries.contexts.window
    window["reward"][:, 1:] = 0.0
    window["reward"][:, 5] = 1.0  # five transitions before the tenth decision
    raised = {
        length: log_probs(model, queries, varied(context_length=length)).exp()[:, RAISED].mean()
        for length in (4, 5, 10)
    }
    assert raised[4] == pytest.approx(0.2)
    assert raised[5] > 0.9 and raised[5] == pytest.approx(raised[10])


@pytest.mark.parametrize(
    ("memory", "segment", "reached"), [("transformer", None, 21), ("gru", 4, 21), ("xl", 4, 7)]
)
def test_a_reward_reaches_as_far_as_the_memory(spec, random_window, memory, segment, reached):
    model = small_model(spec, segment, memory=memory, layers=1)  # xl reads the segment before
    window = random_window(6, 22, seed=1)
    window["reward"][:, 1:] = 0.0
    window["reward"][:, 1] = 1.0  # 21 transitions before the last decision
    array = reach(model, labeled(window, spec))["reach"]
    ago, effect = array.axes["decisions ago"], array.at(measure="divergence (nats)")
    assert ago == [1, 2, 4, 8, 16] and (effect[0] == effect[1]).all()  # there is no other reward
    assert [n for n, value in zip(ago, effect[0], strict=True) if value > 0] == [
        n for n in ago if n <= reached
    ]
    without = window | {"reward": window["reward"].clamp(max=0.0)}
    changed = compared(model(window), model(without))[:, :, 0]
    for n, value in zip(ago, effect[0], strict=True):
        assert value == pytest.approx(changed[:, n : 2 * n].mean().item(), rel=1e-4)


def test_a_reward_among_others_that_tell_the_same_changes_nothing(spec, queries):
    model, contexts = rewarded_model(spec), queries.contexts
    contexts.window["reward"][:, 1:9] = 1.0
    kept, removed = reach(model, contexts)["reach"].at(measure="divergence (nats)")
    assert (kept[2:] < 0.01).all() and (removed[1:] > 1).all()  # of 2 and more decisions ago


def prompt_of(window, rows) -> Prompt:
    """The transitions of windows, all of one episode."""
    fields = ("observation", "action", "reward", "next_observation", "time")
    arrays = {name: window[name][rows, 1:].numpy() for name in fields}
    arrays["time"] = arrays["time"].astype(np.uint16)
    never = np.zeros(arrays["action"].shape, bool)
    return Prompt(arrays | {"terminated": never, "truncated": never}, [""])


def test_a_prompt_is_the_beginning_of_the_context(spec, random_window):
    model, window = rewarded_model(spec), random_window(4, 6, 0)
    policy = ContextPolicy(model, SlidingWindow(model, 3, 20))
    prompts = [prompt_of(window, [2, 0]), prompt_of(window, [3])]
    varied = VariedPolicy(policy, model, torch.ones(3), torch.ones(3), Prompt.together(prompts))
    with torch.inference_mode():
        found = varied.act(torch.tensor([1, 5, 7]), torch.tensor([0, 1, 2]))
        expected = model(policy.window())[:, -1].double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    shown = policy.window()
    for name in ("observation", "action", "reward", "next_observation"):
        np.testing.assert_array_equal(shown[name][:, 1:7], window[name][[2, 0, 3], 1:])
    np.testing.assert_array_equal(shown["time"][:, -1], [0, 1, 2])
    with torch.inference_mode():
        varied.act(torch.tensor([1, 5, 7]), torch.tensor([1, 2, 3]))
    assert policy.context.length == 8  # a prompt is shown once


def test_prompts_end_with_an_episode_at_both_ends_of_a_history(subject):
    found = prompts_of(subject.dataset, 8)
    for row, history in enumerate(subject.dataset.histories):
        arrays = {name: array[-1] for name, array in history.arrays.items()}
        stops = np.flatnonzero(arrays["terminated"] | arrays["truncated"]) + 1
        for kind, stop in ((EARLY, stops[stops >= 8][0]), (LATE, stops[-1])):
            for name, values in found[kind].arrays.items():
                np.testing.assert_array_equal(values[row], arrays[name][stop - 8 : stop])
    assert prompts_of(subject.dataset, 10**6) is None


def test_the_intact_variant_is_the_evaluation(subject):
    config, split = subject.run.config, subject.run.split
    new_policy = policy_of(config, subject.method, subject.model)
    evaluated = rollout_tasks(config, split, new_policy, 3, (1, 1))
    half = varied(temperature=0.5)
    train = Variant("train", "train", on_train_tasks=True)
    played = play(subject, [HELD_OUT, half, train, varied(context_length=8)])
    np.testing.assert_array_equal(played["intact"], evaluated["held_out"].returns)
    np.testing.assert_array_equal(played["train"], evaluated["train"].returns)
    np.testing.assert_array_equal(played["varied"], evaluated["held_out"].returns)
