"""Ablation: what replaces a component, in which windows, and that nothing else changes."""

from dataclasses import replace
from types import SimpleNamespace
from typing import NamedTuple

import hand_made
import numpy as np
import pytest
import torch
from test_contexts import untrained
from test_transformer import random_model
from windows import labeled

from ad.config.schema import ModelConfig
from ad.errors import ConfigError
from ad.interpret.analyses import ablation
from ad.interpret.analyses.ablation import Ablation, _curves, ablated_rollout
from ad.interpret.analysis import Subject
from ad.interpret.components import (
    KINDS,
    Ablated,
    AblatedPolicy,
    Replacements,
    parse_components,
)
from ad.interpret.hooks import hooked
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.rollout.tasks import policy_of, rollout_tasks

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


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_each_window_has_its_own_parts_and_replacements(spec, random_window, tokenizer):
    model = small(spec, tokenizer)
    contexts = labeled(random_window(5, 6, 0), spec)
    names = ("0.1", "mlp 0", "1.0+mlp 1", "0.0")
    table = replacements(model, contexts, *(n for name in names for n in name.split("+")))
    components = [(), *(parse_components(name, model.transformer) for name in names)]
    kinds = ("zero", "mean", "resample", "zero", "mean")
    rows = torch.cat([table.rows(kind, [None]) for kind in kinds])
    ablated = Ablated(model, table, components, rows)
    with hooked(model, write=ablated.writes()):
        together = model(contexts.window)
    torch.testing.assert_close(together[:1], model(contexts.window)[:1])
    for row, (of_window, choice) in enumerate(zip(components, rows, strict=True)):
        alone = Ablated(model, table, [of_window], choice[None])
        with hooked(model, write=alone.writes()):
            expected = model(contexts.select([row]).window)
        torch.testing.assert_close(together[row : row + 1], expected)


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


def test_nothing_is_replaced_in_the_first_rollout_and_others_do_not_depend_on_the_batch(collected):
    words = ["--evaluation.temperature", "3", "--evaluation.episodes", "10"]
    config = collected("ablation", "--data.context_length", "9", *words)
    run, method, model = untrained(config)
    subject = Subject(run, method, model)
    (head,), (mlp,) = (parse_components(name, model.transformer) for name in ("0.1", "mlp 0"))
    table = replacements(model, subject.contexts, "0.1", "mlp 0")
    both = ablated_rollout(subject, table, [(head,), (mlp,)])
    one = ablated_rollout(subject, table, [(mlp,)])
    plain = rollout_tasks(config, run.split, policy_of(config, method, model), 10, (1, 1))
    shape = (-1, *plain["held_out"].lengths.shape)
    both, one = (rollout.lengths.reshape(shape) for rollout in (both, one))
    np.testing.assert_array_equal(both[0], plain["held_out"].lengths)
    np.testing.assert_array_equal(both[2::2], one[1:])
    assert (both[1:] != both[:1]).any((1, 2)).all()


def test_a_window_is_resampled_from_another_task_and_tasks_have_as_many_donors(spec, random_window):
    model, contexts = small(spec), labeled(random_window(8, 6, 0), spec)
    contexts = replace(contexts, task=np.array([2, 0, 0, 0, 0, 0, 1, 1]), tasks=["a", "b", "c"])
    table = replacements(model, contexts, "0.1")
    assert len(table.tasks) == 8 and set(table.tasks[:3]) == {"a", "b", "c"}
    tasks = ["a", "b", "c", "a", "b", "c", "d", None]
    chosen = table.rows("resample", tasks) - 2
    assert all(table.tasks[row] != task for row, task in zip(chosen, tasks, strict=True))
    assert len(set(chosen.tolist())) > 3
    assert table.rows("mean", tasks).tolist() == [1] * 8


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
    found = _curves(Played(*flat), axes)
    assert found["effect"].at(kind="mean", component="mlp 0") == pytest.approx((-2 / 3 + 2 / 3) / 2)
    low, high = found["interval"].at(kind="mean", component="mlp 0")
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


def test_losses_are_those_of_their_kind_and_part(spec, random_window):
    model = hand_made.hand_made(spec, layers=2)
    hand_made.previous_step(model, 1, 0)
    hand_made.copies(model, 1, 0, hand_made.block("action")[:5], hand_made.block("out"))
    window = random_window(ablation.LOSS_WINDOWS, 8, 0)
    subject = SimpleNamespace(model=model, method=Copying(window), dataset=Copying.dataset)
    table = replacements(model, labeled(random_window(8, 8, 1), spec), "1.0", "0.1")
    components = [parse_components(name, model.transformer) for name in ("0.1", "1.0")]
    losses, intact = ablation.ablated_losses(subject, table, components)
    assert losses.shape == (3, 2) and intact == pytest.approx(1)
    np.testing.assert_allclose(losses[:, 0], 1, rtol=1e-5)
    assert losses[KINDS.index("zero"), 1] == 0 and 0.15 < losses[KINDS.index("mean"), 1] < 0.6


class Copying:
    """A method whose loss is the largest output at the last decision, and its windows."""

    dataset = SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(held_out_actors=0)))

    def __init__(self, window):
        self.window = window

    def sampler(self, dataset, held_out):
        return self

    def sample(self, rng, count):
        return {name: values[:count].numpy() for name, values in self.window.items()}

    def loss(self, model, batch):
        return model(batch)[:, -1].amax(1).mean(), {}


def test_a_policy_that_plans_is_not_ablated_and_one_that_imitates_is_in_all_actions(collected):
    words = ["--method.name", "in_context_planning", "--data.context_length", "9"]
    words += ["--evaluation.episodes", "2"]
    subject = Subject(*untrained(collected("ablation", *words)))
    with pytest.raises(ConfigError, match="plan_steps"):
        Ablation.check(subject)
    config = collected("ablation", *words, "--evaluation.policy", "{plan_steps: 0}")
    subject = Subject(*untrained(config))
    Ablation.check(subject)
    (head,) = parse_components("0.1", subject.model.transformer)
    table = replacements(subject.model, subject.contexts, "0.1")
    ablated = Ablated(subject.model, table, [(head,)] * 2, table.rows("zero", [None] * 2))
    policy = AblatedPolicy(policy_of(config, subject.method, subject.model)(2), ablated)
    policy.set_action_mask(torch.tensor([[True, False, True, True, True]] * 2))
    logits = policy.act(torch.tensor([1, 2]), torch.zeros(2, dtype=torch.int64))
    assert logits[:, 1].isneginf().all() and logits[:, [0, 2, 3, 4]].isfinite().all()
    assert ablated_rollout(subject, table, [(head,)]).lengths.all()
