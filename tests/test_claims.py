"""The claims of the study of 2023, tested on a transformer whose circuits were set by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
from hand_made import AVOIDS, COPIES, GOAL, RETURN, WALL, conditioned

from ad.config.parser import load
from ad.errors import ConfigError
from ad.interpret import situations
from ad.interpret.analyses import studied as made
from ad.interpret.analyses.claims import Claims, outcomes
from ad.interpret.analyses.studied import Studied
from ad.interpret.analysis import Subject
from ad.methods import build_method
from ad.runtime.run import Run

EXPECTED = {  # part -> own effect and whether it holds, the same of the stronger test
    "6a": (RETURN, True, COPIES * 0.9, True),
    "6b": (0, True, 0, True),
    "7c": (WALL, True, WALL + AVOIDS, True),  # a wall also makes head 0 read the state
    "7d": (GOAL, True, GOAL + AVOIDS, False),
    "10": (COPIES * 0.9, True, None, True),  # with nothing in front both heads read the return
    "4a": (0, False, 0, False),  # the MLP does nothing
    "4b": (0, False, 0, False),
    "8": (0, False, -1, True),  # what is in front raises the score of the state, not of the return
    "9": (0, False, AVOIDS, True),  # head 0 writes the same of every state, once it reads it
    "12": (0, False, AVOIDS / (GOAL + AVOIDS), False),
}


@pytest.fixture(scope="module")
def studied(tmp_path_factory) -> Studied:
    words = ["--config_path", "configs/dynamic_obstacles.yaml"]
    config = load([*words, "--root", str(tmp_path_factory.mktemp("claims"))])
    subject = Subject(Run(config), build_method(config.method), conditioned())
    Claims.check(subject)
    subject.__dict__.update(dataset=None)
    with pytest.MonkeyPatch.context() as patch:
        time = np.full((made.COUNT, 2), 7)  # of the histories
        patch.setattr(situations, "history_contexts", lambda *_: SimpleNamespace(time=time))
        return Studied(subject)


@pytest.mark.parametrize("part", EXPECTED)
def test_a_claim_has_the_effect_that_was_set(studied, part):
    expected = EXPECTED[part]
    tests = zip(outcomes(studied, part), (expected[:2], expected[2:]), strict=True)
    for outcome, (effect, holds) in tests:
        assert outcome.holds == holds
        if effect is not None:  # a change of a probability
            assert outcome.effects.mean() == pytest.approx(effect, abs=1e-5)


def test_heads_are_matched_by_what_they_do(studied):
    assert studied.obstacle_head == "0.0"  # the only one that depends on what is in front
    own, _ = outcomes(studied, "3a")
    before = studied.at(made.BALL, made.HIGH)
    # Without head 0 the logit of forward rises from -2 + 1.35 by 2 times the share of decisions
    # with something in front of all that are drawn from, four situations of five.
    raised = before.logits.clone()
    raised[:, made.FORWARD] -= AVOIDS / 5
    forward = raised.softmax(-1)[:, made.FORWARD].numpy()
    np.testing.assert_allclose(before.forward + own.effects, forward, atol=1e-5)


def test_claims_are_about_models_of_the_studys_kind(studied):
    words = ["--config_path", "configs/door_key.yaml"]
    subject = Subject(Run(load(words)), studied.subject.method, studied.model)
    with pytest.raises(ConfigError, match="one layer"):
        Claims.check(subject)
