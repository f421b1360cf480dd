"""Patching: contexts that differ in one thing, and circuits that carry the difference."""

import hand_made
import numpy as np
import pytest
import torch
from windows import rewarded_queries, subject_of

from ad.interpret.analyses.pairs import Pair, head_patches, recovery
from ad.interpret.analyses.patching import Patching
from ad.interpret.changes import changed, changes
from ad.methods import algorithm_distillation
from ad.models.sequence_model import SequenceModel

AD = algorithm_distillation.AlgorithmDistillation(algorithm_distillation.Settings())


@pytest.fixture
def queries(spec, random_window):
    """Twelve windows with a reward at the fourth decision."""
    return rewarded_queries(spec, random_window)


def rewarded_model(spec) -> SequenceModel:
    """Its head 0.1 raises the third action if an earlier token tells a reward of 1."""
    model = hand_made.hand_made(spec, layers=2)
    hand_made.rewarded(model, 0, 1)
    reward = hand_made.block("reward")[hand_made.REWARD]
    hand_made.copies(model, 0, 1, [reward], [hand_made.block("out")[2]], gain=4.0)
    hand_made.previous_step(model, 1, 0)
    return model


def recoveries(pair: Pair, patches) -> dict[str, float]:
    found = dict(patches(pair))
    return dict(zip(found, pair.recoveries(found)[0].round(4).tolist(), strict=True))


def test_the_head_that_reads_the_reward_carries_its_removal_and_no_other_does(spec, queries):
    model = rewarded_model(spec)
    pair = Pair(model, queries, changed(queries, "no rewards", model, AD))
    assert pair.effect()[0] > 0.1
    assert recoveries(pair, head_patches) == {"0.0": 0, "0.1": 1, "1.0": 0, "1.1": 0}


def test_a_recovery_is_one_minus_the_share_that_is_left():
    left = np.array([[0.0, 2.0], [0.0, 2.0], [0.0, 1.0]])
    found = recovery(left, np.array([2.0, 2.0, 4.0]))
    assert found[:, 0].tolist() == [1, 1, 1] and found[0, 1] == pytest.approx(3 / 8)
    assert 0 <= found[1, 1] < found[0, 1] < found[2, 1] <= 0.75
    assert np.isnan(recovery(left, np.zeros(3))).all()
    assert np.isnan(recovery(left[:0], np.zeros(0))).all()


def test_rewards_are_removed_shuffled_mirrored_and_forgotten(spec, queries):
    model, past = rewarded_model(spec), queries.past
    reward = {name: changed(queries, name, model, AD).reward for name in changes(model, AD)}
    before = queries.contexts.reward
    assert not reward["no rewards"][past].any()
    np.testing.assert_array_equal(reward["rewards flipped"][past], 1 - before[past])
    for row, known in enumerate(past):
        shuffled = reward["rewards shuffled"][row, known]
        assert sorted(shuffled) == sorted(before[row, known])
        *earlier, last = (before[row] * known).nonzero()[0].tolist()
        changes_at = {"last success removed": [last], "earlier successes removed": earlier}
        for name, places in changes_at.items():
            assert (before[row] - reward[name][row]).nonzero()[0].tolist() == places


def test_episodes_are_permuted_whole_and_another_task_is_another_tasks(spec, queries):
    model = rewarded_model(spec)
    window = queries.contexts.window
    other = changed(queries, "episodes permuted", model, AD).window
    names = ("observation", "action", "reward", "next_observation", "time")

    def episodes(fields, row):
        stacked = torch.stack([fields[name][row, 1:10] for name in names], 1)
        return [tuple(block.flatten().tolist()) for block in stacked.split(3)]

    for row in range(12):
        assert sorted(episodes(other, row)) == sorted(episodes(window, row))
    assert any(episodes(other, row) != episodes(window, row) for row in range(12))
    other = changed(queries, "another task", model, AD).window
    for row, task in enumerate(queries.contexts.task):
        rows = np.flatnonzero(queries.contexts.task != task)
        assert any((other["action"][row, 1:10] == window["action"][r, 1:10]).all() for r in rows)
    assert queries.last.tolist() == [10] * 12  # the only decision of its episode


def test_the_analysis_says_what_carries_which_change(spec, queries):
    model = rewarded_model(spec)
    results = Patching().run(subject_of(model, queries.contexts, AD))
    change = "no rewards"
    pair = Pair(model, queries, changed(queries, change, model, AD))
    assert results["effect"].at(change=change).tolist() == pytest.approx(pair.effect())
    heads = [results["head"].at(change=change, head=head) for head in ("0.0", "0.1", "1.0")]
    assert heads == pytest.approx([0, 1, 0], abs=1e-4)
    of_head = results["head_interval"].at(change=change, head="0.1")
    assert of_head == pytest.approx([1, 1], abs=1e-4)
    at_decision = [f"before layer {layer}, itself" for layer in (0, 1)]
    found = [results["relation"].at(change=change, relation=name) for name in at_decision]
    assert found == pytest.approx([0, 1], abs=1e-4)
    at_last = [f"before layer {layer}, 0 to 0 decisions before" for layer in (0, 1)]
    found = [results["place"].at(change=change, place=name) for name in at_last]
    assert found == pytest.approx([0, 1], abs=1e-4)
    stages = [f"before layer {layer}" for layer in (0, 1)]
    found = [results["steering"].at(change=change, stage=stage) for stage in stages]
    assert found == pytest.approx([0, 1], abs=1e-3)
    without_effect = results["head"].at(change="last success removed")  # others are still read
    assert np.isnan(without_effect).all()
