"""Causal scrubbing: hypotheses that hold, and hypotheses that fail at the level where they do."""

import hand_made
import pytest
import torch
from windows import labeled, subject_of

from ad.interpret.analyses.scrubbing import Scrubbing
from ad.methods import algorithm_distillation

AD = algorithm_distillation.AlgorithmDistillation(algorithm_distillation.Settings())
ACTIONS, OUT = hand_made.block("action")[:5], hand_made.block("out")
NOTES = hand_made.block("other")[:5]


@pytest.fixture
def contexts(spec, random_window):
    """Sixteen windows of ten decisions at one cell, in which an action that is the task's own was
    rewarded at the fourth; the episode after it is looked at."""
    window = random_window(16, 10, 0)
    window["observation"][:, 1:], window["reward"][:, 1:] = 4, 0.0
    window["reward"][:, 4], window["action"][:, 4] = 1.0, 1 + 2 * (torch.arange(16) % 2)
    contexts = labeled(window, spec)
    contexts.decided[:, :8] = False  # until the token before is not that of the reward
    return contexts


def reads_rewarded(model, target):
    """Head 0.1 copies the actions that were rewarded."""
    hand_made.rewarded(model, 0, 1)
    hand_made.copies(model, 0, 1, ACTIONS, target, gain=6.0)


def direct(model):
    reads_rewarded(model, OUT)


def by_mlp(model):
    reads_rewarded(model, NOTES)
    for neuron, (note, out) in enumerate(zip(NOTES, OUT, strict=True)):
        block = model.transformer.blocks[1]
        block.mlp.up.weight[neuron, note], block.mlp.down.weight[out, neuron] = 1.0, 1.0


def reads_place(model):
    """Head 0.1 copies the action of the fifth token, the rewarded one, whatever its reward."""
    hand_made.attends(model, 0, 1, hand_made.block("one"), hand_made.block("position")[4:5])
    hand_made.copies(model, 0, 1, ACTIONS, OUT, gain=6.0)


def reads_before(model):
    """Head 0.1 copies the action of the token before."""
    hand_made.previous_step(model, 0, 1)
    hand_made.copies(model, 0, 1, ACTIONS, OUT, gain=6.0)


def kept(results, heads="0.1") -> list[float]:
    return results["kept"].at(heads=heads).round(3).tolist()


@pytest.mark.parametrize(
    ("circuit", "expected"),
    [
        (direct, [1, 1, 1, 1]),
        (by_mlp, [1, 1, 1, 0]),
        (reads_place, [1, 1, 1, 1]),
        (reads_before, [1, 0, 0, 0]),
    ],
)
def test_a_hypothesis_fails_at_the_level_that_it_is_wrong_about(spec, contexts, circuit, expected):
    model = hand_made.hand_made(spec, layers=2)
    circuit(model)
    results = Scrubbing().run(subject_of(model, contexts, AD))
    first, *_, all_heads = results["kept"].axes["heads"]
    assert kept(results, all_heads) == pytest.approx(expected, abs=0.02)  # the others do nothing
    if circuit is not reads_before:
        assert first == "0.1" and kept(results) == pytest.approx(expected, abs=0.02)
        # Head 0.1 is in each set of all heads, and in some of the eight sets of one head.
        assert results["random"].at(heads=all_heads) == pytest.approx(1, abs=0.02)
        eighths = 8 * results["random"].at(heads=first)
        assert eighths == pytest.approx(round(float(eighths)), abs=0.1) and eighths < 7


def test_what_agreeing_contexts_do_not_share_is_lost(spec, contexts):
    contexts.window["action"][:, 4] = torch.arange(16) % 5  # not a feature of the task
    model = hand_made.hand_made(spec)
    direct(model)
    results = Scrubbing().run(subject_of(model, contexts, AD))
    outputs, terms, agreeing, _ = kept(results)
    assert outputs == terms == 1 and agreeing < 0.3
