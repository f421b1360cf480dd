"""The hand-made decision transformer: what every analysis says of it is known."""

from dataclasses import replace

import hand_made
import numpy as np
import pytest
import torch
from hand_made import AVOIDS, COPIES, GOAL, TIME, WALL
from windows import labeled, subject_of

from ad.interpret.analyses.attention import Attention
from ad.interpret.analyses.patching import Patching
from ad.interpret.analyses.reading import Reading, component_names, read_values
from ad.interpret.analyses.scrubbing import Scrubbing
from ad.interpret.directions import parse_direction
from ad.methods import decision_transformer


def test_the_components_write_the_numbers_that_were_set():
    model = hand_made.conditioned()
    window = hand_made.front_window(["empty", "wall", "goal", "ball"], [0.9, 0.9, -1, 0], time=150)
    left, right, forward = model(window)[:, 0].T.tolist()
    embedding, head_0 = [0, WALL, GOAL, 0], [0, AVOIDS, AVOIDS, AVOIDS]
    head_1 = [COPIES * asked for asked in (0.9, 0.9, -1, 0)]
    assert forward == pytest.approx(np.sum([embedding, head_0, head_1], 0))
    assert left == pytest.approx([TIME / 2] * 4) and right == [0] * 4
    contexts = labeled(window, model.spec)
    direction = parse_direction("2 - 1", (), 3)
    added = Reading(model, read_values(model, contexts), direction).components()[:, 0]
    expected = dict.fromkeys(component_names(model), [0] * 4)
    expected |= {"state": embedding, "0.0": head_0, "0.1": head_1}
    torch.testing.assert_close(added.T, torch.tensor(list(expected.values())))


def test_who_reads_the_asked_return_is_found_and_who_reads_the_state():
    model = hand_made.conditioned()
    asked = [0.9, 0.9, -1.0, -1.0, 0.0, 0.0]
    window = hand_made.front_window(["empty", "wall", "goal", "ball", "empty", "wall"], asked)
    contexts = replace(labeled(window, model.spec), asked=np.array(asked))
    method = decision_transformer.DecisionTransformer(decision_transformer.Settings())
    subject = subject_of(model, contexts, method)
    scores = Attention().run(subject)["scores"]
    assert scores.axes["relation"] == ["return-to-go", "state"]
    assert scores.at(head="0.0") == pytest.approx([1 / 3, 2 / 3])  # where something is in front
    assert scores.at(head="0.1") == pytest.approx([1, 0])
    heads = Patching().run(subject)["head"].at(change="highest return asked")
    assert heads == pytest.approx([0, 1], abs=1e-4)
    kept = Scrubbing().run(subject)["kept"]
    assert kept.axes["heads"][0] == "0.1"
    assert kept.at(heads="0.1") == pytest.approx([1, 1, 1, 1], abs=1e-4)
