"""Attribution patching: estimates where they are exact, and their agreement with real patches."""

import pytest
import torch
from test_patching import AD, rewarded_model
from test_transformer import random_model
from windows import rewarded_queries, subject_of

from ad.config.schema import ModelConfig
from ad.interpret.analyses.attribution_patching import AttributionPatching, first_order, gradients
from ad.interpret.analyses.pairs import Pair, place_patches
from ad.interpret.analysis import correlation
from ad.interpret.changes import changed
from ad.interpret.hooks import hooked

SIZES = {"width": 16, "layers": 2, "heads": 2, "feed_forward": 12, "positions": 40}


@pytest.fixture
def queries(spec, random_window):
    """Twelve windows with a reward at the fourth decision."""
    return rewarded_queries(spec, random_window)


def weak_model(spec):
    """Head 0.1 raises the third action so little that the divergence is a parabola of it."""
    model = rewarded_model(spec)
    model.transformer.blocks[0].attn.out.weight *= 0.01
    return model


def without_rewards(model, queries) -> Pair:
    return Pair(model, queries, changed(queries, "no rewards", model, AD))


@pytest.mark.parametrize("tokenizer", ["fused", "separate", "modal"])
def test_a_gradient_times_a_small_change_is_the_change_of_the_divergence(spec, queries, tokenizer):
    """The directional derivative towards the unchanged value, by finite differences."""
    torch.manual_seed(1)
    model = random_model(spec, ModelConfig(**SIZES, tokenizer=tokenizer)).double()
    queries.contexts.window["reward"] = queries.contexts.window["reward"].double()
    pair = without_rewards(model, queries)
    products = first_order(pair, gradients(pair))
    for name in ("blocks.0.attn.hook_z", "blocks.1.hook_resid_pre", "blocks.1.hook_resid_post"):
        step = 1e-5 * (pair.values[name] - pair.other_values[name])
        with torch.no_grad(), hooked(model, write={name: lambda v, point, s=step: v + s}):
            moved = pair.distance(pair.log_probs(pair.other)).sum()
        slope = (moved - pair.distance(pair.after).sum()) / 1e-5
        torch.testing.assert_close(products[name].sum(), slope, rtol=1e-3, atol=1e-6)


def test_the_analysis_reports_how_far_its_estimates_agree(spec, queries):
    analysis = AttributionPatching()
    model, change = weak_model(spec), {"change": "no rewards"}
    results = analysis.run(subject_of(model, queries.contexts, AD))
    assert results["agreement"].at(**change, kind="head") == pytest.approx(1, abs=1e-3)
    pair = without_rewards(model, queries)
    made = pair.recoveries(dict(place_patches(pair)))[0]
    agreement = correlation(results["place"].at(**change), made)
    assert results["agreement"].at(**change, kind="place") == pytest.approx(agreement, abs=1e-3)
    assert results["head"].at(**change, head="0.1") == pytest.approx(2, abs=0.05)
    assert results["head_place"].at(**change, head="0.1", before=0) == pytest.approx(2, abs=0.05)
    rows = {row[0]: row[1:] for row in analysis.table(results).rows}
    assert rows["no rewards"][3:5] == ["0.1", "0"]
    assert rows["last success removed"][1:] == ["–"] * 5
