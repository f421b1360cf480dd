"""Path patching: the edge that carries a change is found in circuits of two layers."""

import hand_made
import numpy as np
import pytest
from test_patching import AD
from windows import rewarded_queries

from ad.interpret.analyses.pairs import Pair
from ad.interpret.analyses.path_patching import edge_recoveries, receivers
from ad.interpret.changes import changed

HEADS = [(0, 0), (0, 1), (1, 0), (1, 1)]
NOTE = hand_made.block("other")[:1]  # where head 0.1 notes that there was a reward
PLACES, OUT = hand_made.block("position"), hand_made.block("out")[2:3]


@pytest.fixture
def queries(spec, random_window):
    """Twelve windows with a reward at the fourth decision."""
    return rewarded_queries(spec, random_window)


def reads_values(model):
    """Head 1.0 moves the note of the token before to the third action."""
    hand_made.previous_step(model, 1, 0)
    hand_made.copies(model, 1, 0, NOTE, OUT, gain=4.0)


def reads_keys(model):
    """Head 1.0 attends to the tokens with a note, and tells whether they are the first ones."""
    hand_made.attends(model, 1, 0, hand_made.block("one"), NOTE)
    for place in PLACES[:5]:
        hand_made.copies(model, 1, 0, [place], OUT, gain=4.0)


def reads_queries(model):
    """Head 1.0 attends to the first token where there is a note at its own."""
    hand_made.attends(model, 1, 0, NOTE, PLACES[:1])
    hand_made.copies(model, 1, 0, PLACES[:1], OUT, gain=4.0)


def reads_by_mlp(model):
    """A neuron of layer 1 moves the note to the third action."""
    block = model.transformer.blocks[1]
    block.mlp.up.weight[3, NOTE], block.mlp.down.weight[OUT, 3] = 4.0, 1.0


def writes_logits(model):
    """Head 0.1 itself raises the third action."""
    hand_made.copies(model, 0, 1, [hand_made.block("reward")[hand_made.REWARD]], OUT, gain=4.0)


CIRCUITS = {
    "v 1.0": reads_values,
    "k 1.0": reads_keys,
    "q 1.0": reads_queries,
    "mlp 1": reads_by_mlp,
    "logits": writes_logits,
}


def noting_model(spec, circuit):
    """Head 0.1 reads rewards and writes a note, which the circuit reads."""
    model = hand_made.hand_made(spec, layers=2)
    hand_made.rewarded(model, 0, 1)
    hand_made.copies(model, 0, 1, [hand_made.block("reward")[hand_made.REWARD]], NOTE)
    circuit(model)
    return model


def without_rewards(spec, queries, circuit) -> Pair:
    model = noting_model(spec, circuit)
    return Pair(model, queries, changed(queries, "no rewards", model, AD))


@pytest.mark.parametrize("edge", CIRCUITS)
def test_a_change_goes_by_the_edge_that_was_built_and_by_no_other(spec, queries, edge):
    pair = without_rewards(spec, queries, CIRCUITS[edge])
    assert pair.effect()[0] > 0.01
    found, names = edge_recoveries(pair, HEADS)[0], receivers(pair.model, HEADS)
    of_sender = dict(zip(names, found[1].round(4).tolist(), strict=True))
    assert of_sender.pop(edge) == 1
    assert not any(np.nan_to_num(list(of_sender.values())))
    second = dict(zip(names, found[2].round(4).tolist(), strict=True))
    assert second["logits"] == (1 if " 1.0" in edge else 0) and second["mlp 1"] == 0
    assert not np.nan_to_num(found[[0, 3]].round(4)).any()


def test_edges_go_forward_only(spec, queries):
    found = edge_recoveries(without_rewards(spec, queries, reads_values), HEADS)
    exists = np.isfinite(found).all(0)
    of_heads = [[False] * 6 + [True] * 6] * 2 + [[False] * 12] * 2
    np.testing.assert_array_equal(exists[:, :12], of_heads)
    assert exists[:2, 12:].all() and (exists[2:, 12:] == [False, True, True]).all()
