"""Every offline method: it can fit what it is shown, and it looks only where it should."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ad.config.schema import MethodConfig, ModelConfig
from ad.data.sampler import TaskHistory, WindowSampler
from ad.data.spec import Spec
from ad.methods import build_method
from ad.methods.losses import loss_mask
from ad.models.sequence_model import SequenceModel
from ad.registry import METHODS, TOKENIZERS
from envs.oracle import TaskOracle
from envs.spaces import Discrete

OFFLINE = [name for name in METHODS if METHODS.load(name).reads_histories]
# The methods whose loss is that of the actions taken.
OTHERS = ("context_value", "dpt", "in_context_q", "in_context_planning")
IMITATORS = [name for name in OFFLINE if name not in OTHERS]
imitators = pytest.mark.parametrize("method", IMITATORS, indirect=True)
CONFIG = ModelConfig(width=32, layers=2, heads=2, feed_forward=64)


@pytest.fixture(params=OFFLINE)
def method(request):
    return build_method(MethodConfig(name=request.param))


@pytest.fixture(
    params=[*(("transformer", name) for name in TOKENIZERS), ("gru", "fused"), ("min_gru", "fused")]
)
def model(request, method, spec) -> SequenceModel:
    torch.manual_seed(0)
    memory, tokenizer = request.param
    return method.build(spec, replace(CONFIG, memory=memory, tokenizer=tokenizer))


@pytest.fixture
def batch(random_window):
    """Four windows of six decisions: the second ends with padding, the third begins retrieved."""
    window = random_window(4, 6, seed=0)
    window["action"][:, 1:] %= 5
    window["valid"][1, 5:] = False
    return with_derived(window)


def with_derived(window):
    """Return a window with all further fields that a method reads."""
    left = window["reward"].nan_to_num().flip(1).cumsum(1).flip(1)
    further = {"terminated": window["time"] == 3, "truncated": window["time"] == 2}
    further |= {"return_to_go": left, "optimal_action": window["observation"] % 5}
    further["retrieved"] = torch.zeros_like(window["valid"])
    further["retrieved"][2, 1:3] = True
    return window | further


def surprise_of(model, batch) -> torch.Tensor:
    """Return -log p of every action at every decision of the loss, [number of decisions, A]."""
    return -torch.log_softmax(model(batch), -1)[loss_mask(batch)]


def trained(model) -> dict[str, torch.Tensor]:
    """Return the parameters that training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def actions_of(batch) -> torch.Tensor:
    """Return the action taken at every decision of the loss."""
    return batch["action"][:, 1:][loss_mask(batch)]


@imitators
def test_the_loss_is_the_mean_surprise_of_the_actions_taken(method, model, batch):
    taken = surprise_of(model, batch).gather(-1, actions_of(batch)[:, None])
    torch.testing.assert_close(method.loss(model, batch)[0], taken.mean())


def smoothed(method):
    """Return `method` with a label smoothing of 0.1."""
    return type(method)(replace(method.settings, label_smoothing=0.1))


@imitators
def test_label_smoothing_mixes_in_every_action(method, model, batch):
    surprise = surprise_of(model, batch)
    taken = surprise.gather(-1, actions_of(batch)[:, None]).squeeze(-1)
    expected = (0.9 * taken + 0.1 * surprise.mean(-1)).mean()
    torch.testing.assert_close(smoothed(method).loss(model, batch)[0], expected)


@imitators
def test_actions_that_a_task_lacks_have_no_part_in_the_loss(method, model, batch):
    batch["action"][:, 1:] %= 3
    batch["action_mask"] = (torch.arange(5) < 3).expand(4, 7, 5).clone()
    batch["action_mask"][:, 0] = False  # as before a history
    logits = model(batch)[loss_mask(batch)][:, :3]
    surprise = -torch.log_softmax(logits, -1)
    taken = surprise.gather(-1, actions_of(batch)[:, None]).squeeze(-1)
    torch.testing.assert_close(method.loss(model, batch)[0], taken.mean())
    loss = smoothed(method).loss(model, batch)[0]
    torch.testing.assert_close(loss, (0.9 * taken + 0.1 * surprise.mean(-1)).mean())
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    assert not model.head.bias.grad[3:].any()


def test_invalid_decisions_influence_neither_the_loss_nor_its_gradient(
    method, model, batch, random_window
):
    losses, gradients = [], []
    invalid = ~batch["valid"][:, 1:]
    for other in (batch, with_derived(random_window(4, 6, seed=1))):
        mixed = {name: values.clone() for name, values in batch.items()}
        for name, values in mixed.items():
            if name != "valid":
                values[:, 1:][invalid] = other[name][:, 1:][invalid]
        model.zero_grad()
        losses.append(method.loss(model, mixed)[0])
        losses[-1].backward()
        gradients.append([p.grad.clone() for p in trained(model).values()])
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


def test_every_parameter_of_the_model_learns(method, model, batch):
    method.loss(model, batch)[0].backward()
    still = {name for name, p in trained(model).items() if p.grad is None or not p.grad.any()}
    # Three tokens a transition do not show what was before a window, which "no reward" stands for.
    assert still <= {"tokenizer.reward.none.weight"}


def numbers_seen(method) -> list[int]:
    """Return which of an actor's 40 one-step episodes the method learns from."""
    number, every = np.arange(40)[None], np.ones((1, 40), bool)
    fields = ("observation", "action", "next_observation", "time")
    history = dict.fromkeys(fields, number) | {"terminated": every, "truncated": ~every}
    history["reward"] = np.zeros((1, 40), np.float32)
    history = TaskHistory(history, np.zeros(1, int), TaskOracle())
    spec = Spec({"": Discrete(40, (40,))}, 40, (0.0,), (0.0, 0.0), 40)
    windows = WindowSampler([history], spec, method.fields, 5, 1, history_part=method.history_part)
    content = windows.sample(np.random.default_rng(0), 500)
    return sorted(set(content["observation"][:, 1:][content["valid"][:, 1:]].tolist()))


def test_algorithm_distillation_sees_the_whole_history():
    assert numbers_seen(build_method(MethodConfig())) == list(range(40))


@pytest.mark.parametrize(("fraction", "first"), [(0.1, 36), (0.25, 30), (1.0, 0)])
def test_expert_distillation_sees_only_the_end(fraction, first):
    config = MethodConfig("expert_distillation", {"expert_fraction": fraction})
    assert numbers_seen(build_method(config)) == list(range(first, 40))
