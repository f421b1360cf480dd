"""Static analyses: the circuits of heads are what the heads do, and built ones are recognized."""

from dataclasses import replace

import hand_made
import numpy as np
import pytest
import torch
from test_transformer import CONFIG, random_model

from ad.interpret.analyses.linear import head_circuits
from ad.interpret.analyses.static import composition_scores, token_copying
from ad.interpret.hooks import hooked


@pytest.mark.parametrize("norm", ["pre", "none"])
def test_the_circuits_give_the_scores_and_what_heads_add(spec, random_window, norm):
    model = random_model(spec, replace(CONFIG, norm=norm))
    for block in model.transformer.blocks:
        if norm == "pre":
            torch.nn.init.normal_(block.ln1.weight)
    points = ("*.hook_resid_pre", "*.hook_attn_scores", "*.hook_pattern", "*.hook_result", "*ln1*")
    with hooked(model, points) as values:
        model(random_window(2, 5, 0))
    qk, ov = head_circuits(model)
    past = torch.ones(5, 5).tril().bool()
    for layer in range(2):
        name = f"blocks.{layer}"
        x = values[f"{name}.hook_resid_pre"]
        x = x / values[f"{name}.ln1.hook_scale"] if norm == "pre" else x
        for head in range(2):
            scores = torch.einsum("bqc,ce,bke->bqk", x, qk[2 * layer + head], x)
            found = values[f"{name}.attn.hook_attn_scores"][:, head]
            close = {"rtol": 1e-4, "atol": 1e-4}
            torch.testing.assert_close(scores[:, past], found[:, past], **close)
            pattern = values[f"{name}.attn.hook_pattern"][:, head]
            added = pattern @ x @ ov[2 * layer + head]
            result = values[f"{name}.attn.hook_result"][:, :, head]
            torch.testing.assert_close(added, result, **close)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_head_composes_with_the_one_whose_output_it_reads(spec, kind):
    model = hand_made.hand_made(spec, layers=3)
    other, out = hand_made.block("other")[:5], hand_made.block("out")
    cells = hand_made.block("cell")[:5]
    for layer, head in ((0, 0), (0, 1), (1, 0)):
        hand_made.copies(model, layer, head, cells, other if (layer, head) == (0, 1) else out)
    sides = [other, cells] if kind == 0 else [cells, other]
    hand_made.attends(model, 2, 1, *(sides if kind < 2 else (cells, cells)), not_itself=False)
    hand_made.copies(model, 2, 1, other if kind == 2 else cells, out)
    scores = composition_scores(model)[:6, :3, :6]
    assert np.nanargmax(scores[5, kind]) == 1 and scores[5, kind, 1] > 0.2
    others = np.delete(scores[5], kind, axis=0)[:, :4]
    assert (others < 0).all() and (np.delete(scores[5, kind, :4], 1) < 0).all()
    assert np.isnan(scores[5, :, 4:]).all() and np.isnan(scores[:2]).all()


def test_a_head_that_repeats_actions_copies_and_one_that_avoids_them_does_the_opposite(spec):
    model = hand_made.hand_made(spec, layers=1)
    actions, out = hand_made.block("action")[:5], hand_made.block("out")
    hand_made.copies(model, 0, 0, actions, out)
    hand_made.copies(model, 0, 1, actions, out, gain=-2.0)
    moved, copying = token_copying(model)
    np.testing.assert_allclose(copying, [1, -1], atol=1e-6)
    np.testing.assert_allclose(moved[1], -2 * moved[0], atol=1e-6)


def test_an_mlp_composes_with_the_head_whose_output_it_reads(spec):
    model = hand_made.hand_made(spec, layers=2)
    cells, other = hand_made.block("cell")[:5], hand_made.block("other")[:5]
    for layer, head, target in ((0, 0, other), (0, 1, hand_made.block("out")), (1, 0, other)):
        hand_made.copies(model, layer, head, cells, target)
    up, down = model.transformer.blocks[0].mlp.up, model.transformer.blocks[0].mlp.down
    up.weight[0, other[:3]] = down.weight[cells[0], 0] = 1.0
    scores, width = composition_scores(model), hand_made.WIDTH  # heads 0.0 to 1.1, then two MLPs
    # The MLP reads three coordinates of the five that head 0.0 writes: sqrt(3) / (sqrt(5) sqrt(3)).
    assert scores[4, 3, 0] == pytest.approx(5**-0.5 - width**-0.5)
    assert scores[4, 3, 1] == pytest.approx(-(width**-0.5))
    assert scores[2, 2, 4] == pytest.approx(5**-0.5 - width**-0.5)  # head 1.0 reads what it writes
    assert np.isnan(scores[4, 3, 2:]).all() and np.isnan(scores[4, :3]).all()
