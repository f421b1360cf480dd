"""Successes: a decision that rests on the last reward, on any of them, or on their number."""

import hand_made
import pytest
from windows import labeled, subject_of

from ad.interpret.analyses.successes import Successes
from ad.methods import algorithm_distillation

AD = algorithm_distillation.AlgorithmDistillation(algorithm_distillation.Settings())
REWARD = hand_made.block("reward")[hand_made.REWARD]
OUT = hand_made.block("out")


@pytest.fixture
def contexts(spec, random_window):
    """Six windows of eight decisions; the third and the fifth transition of each are rewarded."""
    window = random_window(6, 8, 0)
    window["reward"][:, 1:] = 0.0
    window["reward"][:, [3, 5]] = 1.0
    window["valid"][:] = True
    window["reward"][:, 0] = 0.0
    return labeled(window, spec)


def any_reward_model(spec):
    """Its head 0.1 raises the third action if a token tells a reward of 1."""
    model = hand_made.hand_made(spec)
    hand_made.attends(model, 0, 1, hand_made.block("one"), [REWARD], not_itself=False)
    hand_made.copies(model, 0, 1, [REWARD], [OUT[2]], gain=4.0)
    return model


def last_reward_model(spec):
    """Its head 0.1 does so if the token of the decision itself tells a reward of 1."""
    model = hand_made.hand_made(spec)
    places = hand_made.block("position")
    hand_made.attends(model, 0, 1, places, places, not_itself=False)
    hand_made.copies(model, 0, 1, [REWARD], [OUT[2]], gain=4.0)
    return model


def test_either_of_two_rewards_does_for_a_head_that_looks_for_any(spec, contexts):
    results = Successes().run(subject_of(any_reward_model(spec), contexts, AD))
    found = results["recovery"]
    assert found.at(successes="1").tolist() == pytest.approx([0, 1], abs=1e-3)
    assert found.at(successes="2").tolist() == pytest.approx([1, 1], abs=1e-3)
    assert (results["divergence"].values > 0.1).all()


def test_only_the_last_reward_does_for_a_head_that_reads_the_newest_transition(spec, contexts):
    results = Successes().run(subject_of(last_reward_model(spec), contexts, AD))
    assert results["recovery"].at(successes="2").tolist() == pytest.approx([0, 1], abs=1e-3)
    assert results["decisions"].values.tolist() == [12, 18]
    table = Successes().table(results)
    assert table.rows[1][0] == "2" and table.rows[1][-1].startswith("1.00")
