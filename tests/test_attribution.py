"""Direct attribution and the logit lens: exact sums, and circuits whose contributions are known."""

from dataclasses import replace

import pytest
import torch
from hand_made import block, copies, hand_made, previous_step, rewarded
from test_transformer import CONFIG, random_model
from windows import labeled

from ad.interpret.attribution import Reading, outputs, part_names, preferred, read_values
from ad.interpret.lens import stage_logits, stage_names
from ad.interpret.relations import relations

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
        torch.testing.assert_close(reading.parts().sum(-1), expected, rtol=1e-4, atol=1e-5)
    assert reading.parts().shape[-1] == len(part_names(model))


def test_tokens_sum_to_their_head_and_neurons_to_their_mlp(spec, model, random_window):
    contexts = labeled(random_window(3, 6, 0), spec)
    reading = Reading(model, read_values(model, contexts), preferred(outputs(model, contexts)))
    parts = dict(zip(part_names(model), reading.parts().unbind(-1), strict=True))
    close = {"rtol": 1e-4, "atol": 1e-5}
    for number, head in enumerate(("0.0", "0.1", "1.0", "1.1")):
        torch.testing.assert_close(reading.tokens()[:, :, number].sum(-1), parts[head], **close)
    for layer, mlp in enumerate(model.transformer.blocks):
        of_bias = reading.reader @ mlp.down.bias
        added = reading.neurons()[:, :, layer].sum(-1) + of_bias
        torch.testing.assert_close(added, parts[f"mlp {layer}"], **close)


def test_the_preference_is_that_for_the_best_action_against_the_second():
    found = torch.tensor([[0.1, 3.0, -1.0], [2.0, 0.0, 1.0]])
    assert preferred(found).tolist() == [[-1, 1, 0], [1, 0, -1]]


@pytest.mark.parametrize(("layer", "head"), [(0, 1), (1, 0)])
def test_a_head_that_copies_the_rewarded_action_is_credited_with_it(
    spec, random_window, layer, head
):
    model = hand_made(spec, layers=2)
    rewarded(model, layer, head)
    copies(model, layer, head, block("action")[:5], block("out"), gain=3.0)
    previous_step(model, layer, 1 - head)  # which adds nothing to the outputs
    contexts = labeled(random_window(6, 12, 0), spec)
    names, action = part_names(model), contexts.window["action"][:, :-1]
    masks = relations(model, contexts)["rewarded"]
    share = masks / masks.sum(-1, keepdim=True)
    for chosen, other in ((0, 1), (4, 2)):
        direction = torch.zeros(5)
        direction[chosen], direction[other] = 1.0, -1.0
        reading = Reading(model, read_values(model, contexts), direction)
        told = ((action == chosen).float() - (action == other).float())[:, None]  # of the tokens
        expected = (3.0 * share * told)[masks.any(-1)]
        of_tokens = reading.tokens()[:, :, 2 * layer + head][masks.any(-1)]
        torch.testing.assert_close(of_tokens, expected, rtol=1e-4, atol=1e-4)
        parts = reading.parts()[masks.any(-1)]
        torch.testing.assert_close(
            parts[:, names.index(f"{layer}.{head}")], expected.sum(-1), rtol=1e-4, atol=1e-4
        )
        others = [number for number, name in enumerate(names) if name != f"{layer}.{head}"]
        assert parts[:, others].abs().max() < 1e-6


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


def test_the_lens_of_a_random_model_ends_with_its_logits(spec, model, random_window):
    final, *stages = stage_logits(model, labeled(random_window(3, 6, 0), spec))
    torch.testing.assert_close(stages[-1], final, rtol=0, atol=0)
    assert len(stages) == len(stage_names(model)) == 5
