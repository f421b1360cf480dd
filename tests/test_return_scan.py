"""The return-to-go scan: the components that read the asked return are found with their slopes."""

from dataclasses import replace
from functools import partial

import hand_made
import numpy as np
import pytest
import torch
from windows import labeled, subject_of

from ad.interpret.analyses.reading import component_names
from ad.interpret.analyses.return_scan import ReturnScan, scan
from ad.interpret.analyses.scrubbing import asked_otherwise
from ad.interpret.contexts import RETURN_TO_GO
from ad.models.rewards import ReturnToGo

ASKED_RETURNS = np.linspace(0, 2, 9)
ASKED = hand_made.block("other")[0]  # where tokens encode the asked return, over the highest


@pytest.fixture
def asked_model(spec):
    """The embedding raises action 1 by half of the asked return, head 0.1 lowers action 3 by it,
    as the token before told it; histories had returns from 0 to 2."""
    spec = replace(spec, return_range=(0.0, 2.0))
    inputs = {RETURN_TO_GO: ReturnToGo(spec, hand_made.WIDTH)}
    model = hand_made.hand_made(spec, inputs=inputs)
    model.tokenizer.inputs[RETURN_TO_GO].linear.weight[ASKED] = 1.0
    model.head.weight[1, ASKED] = 1.0
    hand_made.previous_step(model, 0, 1)
    hand_made.copies(model, 0, 1, [ASKED], hand_made.block("out")[3:4], gain=-2.0)
    return model


@pytest.fixture
def contexts(asked_model, random_window):
    """Six windows of eight decisions for which a return of 1 was asked."""
    window = random_window(6, 8, 0)
    window[RETURN_TO_GO] = torch.ones(6, 9)
    return replace(labeled(window, asked_model.spec), asked=np.ones(6))


def test_the_components_that_read_the_asked_return_have_its_slopes(asked_model, contexts):
    sums = contexts.sums(partial(scan, asked_model, asked=ASKED_RETURNS), 4)
    sums = {name: total.sum(1) for name, total in sums.items()}
    assert sums["count"].tolist() == [24, 24]
    slope = sums["slope"].sum(0) / 48
    found = dict(zip(component_names(asked_model), slope[:, 1:].T.round(5).tolist(), strict=True))
    of_embedding, of_head = np.full(5, -0.1), np.full(5, 0.2)
    of_embedding[1], of_head[3] = 0.4, -0.8
    assert found.pop("return-to-go") == pytest.approx(of_embedding)
    assert found.pop("0.1") == pytest.approx(of_head)
    assert not any(map(any, found.values()))
    np.testing.assert_allclose(slope[:, 0], slope[:, 1:].sum(1), atol=1e-6)


def test_only_the_present_episode_is_asked_for_another_return(asked_model, contexts):
    spans = replace(contexts, episode=np.repeat([[0] * 5 + [1] * 4], 6, 0))
    changed = asked_otherwise(spans, asked_model).window[RETURN_TO_GO] - 1
    assert (changed != 0).tolist() == [[False] * 5 + [True] * 4] * 6


def test_the_analysis_says_who_moves_which_action(asked_model, contexts):
    analysis = ReturnScan()
    results = analysis.run(subject_of(asked_model, contexts))
    slope, correlation = results["slope"], results["correlation"]
    assert slope.at(action=1, component="return-to-go") == pytest.approx(0.4)
    low, high = results["slope_interval"].at(action=1, component="return-to-go")
    assert low == pytest.approx(0.4) and high == pytest.approx(0.4)
    assert correlation.at(action=0, component="0.1") == pytest.approx(1)
    assert correlation.at(action=0, component="return-to-go") == pytest.approx(
        -1
    )  # which is weaker
    assert correlation.at(action=1, component="preference") == pytest.approx(1)
    assert np.isnan(correlation.at(action=1, component="0.0"))
    rows = analysis.table(results).rows
    assert rows[3][4].startswith("0.1 (-0.80, +1.00)") and rows[1][4].startswith(
        "return-to-go (+0.40"
    )
    assert float(rows[1][1]) < float(rows[1][2]) and float(rows[3][1]) > float(rows[3][2])


def test_contributions_and_attention_by_asked_return_are_those_worked_out_by_hand():
    model = hand_made.conditioned()
    window = hand_made.front_window(["wall", "empty"], [0.0, 0.0])
    contexts = replace(labeled(window, hand_made.GRID_SPEC), asked=np.zeros(2))
    results = ReturnScan().run(subject_of(model, contexts))
    contribution, attention = results["contribution"], results["attention"]
    asked = np.array(contribution.axes["asked return"])
    assert asked[[0, -1]] == pytest.approx([-1, 0.95])
    obeys, avoids = (contribution.at(action=2, component=head) for head in ("0.1", "0.0"))
    assert obeys == pytest.approx(1.5 * asked * 2 / 3, abs=1e-5)  # less the mean of three actions
    assert avoids == pytest.approx([-2 / 2 * 2 / 3] * 9, abs=1e-5)  # one wall of two
    assert attention.at(head="0.1", relation="return-to-go") == pytest.approx([1] * 9)
    assert attention.at(head="0.0", relation="state") == pytest.approx([0.5] * 9)
    whole = results["preference"].values
    np.testing.assert_allclose(contribution.values.sum(2), whole, atol=1e-6)
