"""Direct attribution and the logit lens: exact sums, and circuits whose contributions are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hand_made import block, copies, hand_made, previous_step, rewarded
from test_transformer import CONFIG, random_model
from windows import labeled, subject_of

from ad.interpret.analyses.attribution import Attribution
from ad.interpret.analyses.lens import stage_logits, stage_names
from ad.interpret.analyses.reading import Reading, component_names, outputs, preferred, read_values

VARIANTS = (
    {},
    {"norm": "none"},
    {"tokenizer": "separate", "position": "rotary"},
    {"tokenizer": "modal"},
    {"tokenizer": "conditioned"},
)


@pytest.fixture(params=VARIANTS, ids=lambda variant: " ".join(variant.values()) or "default")
def model(spec, request):
    """A random model of each kind, of which no bias or gate is 0."""
    model = random_model(spec, replace(CONFIG, **request.param))
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "gates")):
            torch.nn.init.normal_(parameter)
    return model


def test_the_parts_sum_to_the_difference_of_the_outputs(spec, model, random_window):
    contexts = labeled(random_window(3, 6, 0), spec)
    values, found = read_values(model, contexts), outputs(model, contexts)
    one = torch.tensor([0.0, 1.0, 0.0, -1.0, 0.0])
    for directions in (one, preferred(found)):
        reading = Reading(model, values, directions)
        expected = (found * directions).sum(-1)
        torch.testing.assert_close(reading.components().sum(-1), expected, rtol=1e-4, atol=1e-5)
    assert reading.components().shape[-1] == len(component_names(model))


def test_the_lens_ends_with_the_logits_and_shows_where_they_were_written(spec, random_window):
    model = hand_made(spec, layers=3)
    previous_step(model, 1, 0)
    copies(model, 1, 0, block("action")[:5], block("out"))
    contexts = labeled(random_window(3, 6, 0), spec)
    final, *stages = stage_logits(model, contexts)
    changed = [bool((stages[n] != stages[n - 1]).any()) for n in range(1, len(stages))]
    names = stage_names(model)
    assert [names[n + 1] for n, change in enumerate(changed) if change] == ["attention 1"]
    assert (stages[0] == 0).all()
    torch.testing.assert_close(stages[-1], final, rtol=0, atol=0)


def test_the_analysis_credits_the_head_the_tokens_and_the_pair(spec, random_window):
    model = hand_made(spec, layers=2)
    rewarded(model, 1, 0)
    copies(model, 1, 0, block("action")[:5], block("out"), gain=3.0)
    window = random_window(8, 6, 0)
    window["reward"][:, 1] = 1.0  # which the tokens of all decisions but the first can read
    contexts = labeled(window, spec, np.r_[-1, np.arange(6) // 2])
    results, found = Attribution().run(subject_of(model, contexts)), outputs(model, contexts)
    best, second = found.topk(2).values.unbind(-1)
    expected = pytest.approx(float((best - second).mean()), abs=1e-4)
    assert results["preferred"].at(component="1.0") == expected
    assert results["by_relation"].at(head="1.0", relation="rewarded") == expected
    for name in ("0.0", "0.1", "1.1"):
        assert abs(results["preferred"].at(component=name)) < 1e-6
        assert abs(results["by_relation"].at(head=name)).max() < 1e-6
    last = results["by_episode"].at(episode=3, component="1.0")
    assert last == pytest.approx(float((best - second)[:, 4:].mean()), abs=1e-4)
    for a, b in ((0, 1), (2, 4)):
        difference = found[..., a] - found[..., b]
        one = {"pair": f"{a} - {b}", "component": "1.0"}
        assert results["pairs"].at(**one) == pytest.approx(float(difference.mean()), abs=1e-4)
        spread = float(difference.std(correction=0))
        assert results["spread"].at(**one) == pytest.approx(spread, abs=1e-4)
