"""Hooks: the named points of a transformer, which change nothing unless they are written."""

from dataclasses import replace

import pytest
import torch
from test_transformer import CONFIG, random_model

from ad.errors import ConfigError
from ad.interpret.hooks import hooked, point_names
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow

VARIANTS = (
    {},
    {"norm": "none"},
    {"position": "rotary"},
    {"tokenizer": "separate"},
    {"tokenizer": "modal"},
    {"tokenizer": "modal", "position": "rotary"},
    {"tokenizer": "conditioned", "position": "window"},
)


@pytest.fixture(params=VARIANTS, ids=lambda variant: " ".join(variant.values()) or "default")
def model(spec, request):
    """A random model of each kind, whose streams do not weigh the same."""
    model = random_model(spec, replace(CONFIG, **request.param))
    for name, parameter in model.named_parameters():
        if name.endswith("gates"):
            torch.nn.init.normal_(parameter)
    return model


def test_reading_every_point_leaves_the_logits(model, random_window):
    window = random_window(3, 6, 0)
    with hooked(model, ("*",)) as values:
        logits = model(window)
    torch.testing.assert_close(logits, model(window))
    assert list(values) == point_names(model.transformer)


def test_the_values_are_those_of_a_block(model, random_window):
    with hooked(model, ("*",)) as values:
        model(random_window(2, 5, 1))
    name, block = "blocks.1", model.transformer.blocks[1]
    at = {point.removeprefix(f"{name}."): value for point, value in values.items()}
    close = torch.testing.assert_close
    close(at["attn.hook_pattern"].sum(-1), torch.ones_like(at["attn.hook_pattern"][..., 0]))
    close(at["attn.hook_pattern"] > 0, at["attn.hook_attn_scores"] > float("-inf"))
    close(at["attn.hook_result"].sum(2) + block.attn.out.bias, at["hook_attn_out"])
    close(block.attn.out(at["attn.hook_z"].flatten(2)), at["hook_attn_out"])
    close(at["hook_resid_pre"] + at["hook_attn_out"], at["hook_resid_mid"])
    close(block.ln2(at["hook_resid_mid"]), at["ln2.hook_normalized"])
    close(block.mlp.down(at["mlp.hook_post"]), at["hook_mlp_out"])
    close(at["hook_resid_mid"] + at["hook_mlp_out"], at["hook_resid_post"])


def test_what_is_written_replaces_the_value_from_there_on(spec, random_window):
    model, window = random_model(spec, CONFIG), random_window(2, 5, 1)
    seen = []

    def zero(value, point):
        seen.append(point)
        return torch.zeros_like(value)

    both = {"*.hook_attn_out": zero, "*.hook_mlp_out": zero}
    with hooked(model, ("hook_embed", "ln_final.hook_normalized"), both) as values:
        model(window)
    expected = model.transformer.ln_final(values["hook_embed"])
    torch.testing.assert_close(values["ln_final.hook_normalized"], expected)
    names = [f"blocks.{layer}.hook_{part}_out" for layer in (0, 1) for part in ("attn", "mlp")]
    assert seen == [(name, 0) for name in names]


def test_hooks_remove_themselves_also_after_a_failure(spec, random_window):
    model, window = random_model(spec, CONFIG), random_window(2, 5, 1)
    before = model(window)
    with pytest.raises(ZeroDivisionError), hooked(model, write={"hook_embed": lambda v, p: 1 / 0}):
        model(window)
    torch.testing.assert_close(model(window), before, rtol=0, atol=0)


@pytest.mark.parametrize("tokenizer", ["fused", "separate", "modal"])
def test_a_policy_runs_through_the_points_with_its_cache(spec, tokenizer):
    model = random_model(spec, replace(CONFIG, tokenizer=tokenizer))
    outcome = (torch.tensor([1, 2]), torch.zeros(2), *[torch.zeros(2, dtype=torch.bool)] * 2)
    plain, policy = (ContextPolicy(model, SlidingWindow(model, 2, 4)) for _ in range(2))
    starts = []

    def note(value, point):
        starts.append(point.start)
        return value

    for time in range(6):  # the context of four decisions is dropped once
        state = torch.tensor([time, 8 - time]), torch.full((2,), time % 4)
        logits = plain.act(*state)
        with hooked(model, ("*.hook_pattern",), {"hook_embed": note}):
            torch.testing.assert_close(policy.act(*state), logits)
        for each in (plain, policy):
            each.observe(*outcome, torch.tensor([time, time]))
    assert starts[:2] == [0, model.tokenizer.num_tokens(1)] and starts[4] == 0


def test_a_point_that_is_not_there_is_a_sentence(spec):
    model = random_model(spec, replace(CONFIG, norm="none"))
    for name in ("blocks.2.hook_resid_pre", "ln_final.hook_scale", "blocks.0.hook_z"):
        with pytest.raises(ConfigError, match="has no point"), hooked(model, (name,)):
            pass
