"""Segments: a state goes from one to the next, the same numbers in training and in rollouts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_run import train

from ad.config.schema import ModelConfig
from ad.errors import ConfigError
from ad.exchange.release import load_release, release
from ad.interpret.analyses import probes
from ad.interpret.app.requests import App
from ad.interpret.inspect import inspect_run
from ad.interpret.labeled import load
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.models.memories.min_gru import LinearRecurrence
from ad.models.sequence_model import SequenceModel
from ad.registry import MEMORIES
from ad.runtime.run import Run
from ad.training.trainer import Trainer

CONFIG = ModelConfig(width=16, layers=2, heads=2, feed_forward=32, positions=40)
CARRYING = [name for name in MEMORIES if MEMORIES.load(name).carries]
VARIANTS = [
    *({"memory": memory} for memory in CARRYING),
    *({"memory": memory, "tokenizer": "separate"} for memory in CARRYING),
    {"memory": "gru", "tokenizer": "separate", "reward_token": "before", "position": "history"},
    *({"memory": "xl", "tokenizer": name, "position": "rotary"} for name in ("fused", "separate")),
    {"memory": "xl", "tokenizer": "modal", "position": "rotary"},
]
SEGMENT = 4  # decisions


def small_model(spec, segment_length=SEGMENT, **settings) -> SequenceModel:
    """Return a random model whose logits are large enough to compare, in float64."""
    torch.manual_seed(0)
    model = SequenceModel(spec, replace(CONFIG, **settings)).double().eval()
    torch.nn.init.normal_(model.head.weight)
    model.segment_length = segment_length
    return model.requires_grad_(False)


def played(policy: ContextPolicy, window, steps: range, silent=()) -> dict[int, torch.Tensor]:
    """Return the logits of the decisions `steps` of `window` by number, but for `silent` ones."""
    logits = {}
    for step in steps:
        now = {name: values[:, step] for name, values in window.items()}
        if step in silent:
            policy.enter(now["observation"], now["time"])
        else:
            logits[step] = policy.act(now["observation"], now["time"])
        over = now["reward"] > 0
        policy.observe(now["action"], now["reward"], over, over, now["next_observation"])
    return logits


@pytest.mark.parametrize("context_length", [1, 3, SEGMENT, 50])
@pytest.mark.parametrize("settings", VARIANTS, ids=lambda settings: " ".join(settings.values()))
def test_logits_of_a_rollout_are_those_of_a_forward_pass_over_all_segments(
    spec, random_window, settings, context_length
):
    model, window = small_model(spec, **settings), random_window(3, 23, seed=1)
    policy = ContextPolicy(model, SlidingWindow(model, 3, context_length))
    full, error = model(window), 1e-5 if settings.get("position") == "rotary" else 1e-9
    for step, logits in played(policy, window, range(1, 24), silent=(7, 8, 9, 10)).items():
        torch.testing.assert_close(logits, full[:, step - 1], atol=error, rtol=0)


@pytest.mark.parametrize("tokenizer", ["fused", "separate"])
@pytest.mark.parametrize("memory", ["gru", "min_gru"])
def test_the_states_of_a_recurrent_memory_do_not_depend_on_segments(
    spec, random_window, memory, tokenizer
):
    model, window = (
        small_model(spec, None, memory=memory, tokenizer=tokenizer),
        random_window(2, 11, 2),
    )
    whole = model(window)
    model.segment_length = SEGMENT
    torch.testing.assert_close(model(window), whole)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_layer_of_xl_reaches_one_segment_back(spec, random_window, layers):
    model, window = small_model(spec, memory="xl", layers=layers), random_window(1, 12, seed=3)
    other = {name: values.clone() for name, values in window.items()}
    other["observation"][:, 2] = (other["observation"][:, 2] + 1) % 9  # in the first segment
    difference = (model(window) - model(other)).abs().amax(-1)[0]
    assert (difference[1:8] > 1e-6).all() and (difference[:1] == 0).all()
    # A fused token also tells the observation before, so that no other token differs.
    assert (difference[8:] > 1e-9).all() if layers == 2 else (difference[8:] == 0).all()


def test_xl_reads_its_two_segments_as_a_transformer_reads_a_window_of_both(spec, random_window):
    settings = {"layers": 1, "position": "rotary"}
    model, plain = small_model(spec, memory="xl", **settings), small_model(spec, None, **settings)
    window = random_window(2, 12, seed=4)
    later = {name: values[:, SEGMENT:] for name, values in window.items()}
    torch.testing.assert_close(model(window)[:, 8:], plain(later)[:, SEGMENT:])


@pytest.mark.parametrize("memory", CARRYING)
def test_no_gradient_reaches_the_segments_before(spec, memory):
    model = small_model(spec, memory=memory).requires_grad_()
    tokens = torch.randn(2, 12, 16, dtype=torch.float64, requires_grad=True)
    hidden = model._read(tokens, model.memory.new_state(2))
    reached = torch.autograd.grad(hidden[:, 10, 0].sum(), tokens)[0].abs().amax((0, 2)) > 0
    assert reached.tolist() == [False] * 8 + [True] * 3 + [False]


@pytest.mark.parametrize("memory", CARRYING)
def test_a_decision_reads_its_new_token_alone_and_the_cache_does_not_grow(
    spec, random_window, memory, monkeypatch
):
    model, read = small_model(spec, memory=memory), []
    policy = ContextPolicy(model, SlidingWindow(model, 2, SEGMENT))
    window, forward = random_window(2, 100, seed=5), model.memory.forward

    def counted(tokens, cache):
        read.append(tokens.shape[1])
        return forward(tokens, cache)

    monkeypatch.setattr(model.memory, "forward", counted)

    def kept() -> int:
        values = vars(policy.context.cache).values()
        tensors = [t for v in values for t in (v if isinstance(v, list) else [v])]
        return sum(t.numel() for t in tensors if isinstance(t, torch.Tensor))

    before = kept()
    played(policy, window, range(1, 101))
    assert read == [1] * 100 and kept() == before > 0


@pytest.mark.parametrize("memory", CARRYING)
def test_selected_and_split_environments_go_on_from_their_own_past(spec, random_window, memory):
    model, window = small_model(spec, memory=memory), random_window(3, 20, seed=6)
    policy = ContextPolicy(model, SlidingWindow(model, 3, 3))
    played(policy, window, range(1, 8))
    chosen = torch.tensor([2, 0, 2])
    rows = {"branch": chosen, "split": torch.tensor([0, 0, 1, 1, 2, 2]), "": torch.arange(3)}
    contexts = {"branch": policy.context.branch(chosen), "split": policy.context.split(2, 13)}
    for name, context in (contexts | {"": policy.context}).items():
        own = {field: values[rows[name]] for field, values in window.items()}
        full = model(own)
        for step, logits in played(ContextPolicy(model, context), own, range(8, 21)).items():
            torch.testing.assert_close(logits, full[:, step - 1], atol=1e-9, rtol=0, msg=name)


def test_a_reward_that_the_state_holds_stays_in_the_context(spec, random_window):
    model, window = small_model(spec, memory="gru"), random_window(2, 30, seed=7)
    window["reward"][:] = 0
    window["reward"][1, 5] = 1
    policy = ContextPolicy(model, SlidingWindow(model, 2, SEGMENT))
    played(policy, window, range(1, 31))
    assert policy.reward_in_context().tolist() == [False, True]


@pytest.fixture
def carrying(experiment):
    """carrying(memory, *words) returns an experiment that trains on two segments of five."""

    def build(memory: str, *words: str):
        own = {"training__segments": "2", "data__context_length": "5", "model__memory": memory}
        dropped = "0.1" if memory == "xl" else "0"
        return experiment(*words, **own, model__attention_dropout=dropped)

    return build


def test_a_row_of_a_batch_is_a_run_of_adjacent_windows_with_as_many_transitions(carrying):
    batch = Trainer(Run.open(carrying("gru"))).batch()
    assert batch["valid"].shape == (8, 11)  # 16 windows of 5
    valid = batch["valid"][:, 1:-1] & batch["valid"][:, 2:]
    assert (np.diff(batch["step"][:, 1:])[valid] == 1).all()
    goes_on = valid & (np.diff(batch["time"][:, 1:]) == 1)
    following, led_to = batch["observation"][:, 2:], batch["next_observation"][:, 1:-1]
    assert (following == led_to)[goes_on].all() and goes_on.mean() > 0.5


def test_a_released_model_and_a_target_network_carry_the_state_too(carrying, tmp_path):
    run = train(carrying("min_gru", "--method.name", "in_context_q"))
    model = load_release(release(run, tmp_path / "release")).model
    assert (model.segment_length, model.target.segment_length) == (5, 5)


def test_contexts_of_past_episodes_need_a_model_that_reads_windows(carrying, experiment):
    words = ["--method.name", "dpt", "--evaluation.policy.context_update", "episode"]
    experiment(*words)
    with pytest.raises(ConfigError, match=r"context_update .* must be step where"):
        carrying("gru", *words)
    with pytest.raises(ConfigError, match=r"context_update .* must be step where"):
        experiment(*words, model__memory="retrieval")


def test_a_trained_state_has_the_analyses_without_attention_and_no_app(carrying, monkeypatch):
    monkeypatch.setattr(probes, "FITTED", 80)
    monkeypatch.setattr(probes, "PROBES", ("linear",))
    run = train(carrying("gru"))
    inspect_run(run)
    made = {path.stem for path in (run.folder / "inspect").glob("*.npz")}
    assert made == {"lens", "context_scan", "probes"}
    scores = load(run.folder / "inspect" / "probes")["scores"]
    assert scores.axes["stage"][1:] == ["embedding", "state of layer 0", "after layer 0"]
    assert np.isfinite(scores.at(stage="state of layer 0")).any()
    with pytest.raises(ConfigError, match="the app looks at windows"):
        App(run)


def test_a_slow_unit_of_min_gru_averages_alike_in_bfloat16():
    layer, tokens = LinearRecurrence(8), torch.ones(1, 400, 8)
    torch.nn.init.constant_(layer.gate.bias, -7.0)
    for weights in (layer.gate.weight, layer.out.bias):
        torch.nn.init.zeros_(weights)
    last = layer(tokens)[:, -1].norm().item()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(tokens)[:, -1].norm().item() == pytest.approx(last, rel=0.05)
