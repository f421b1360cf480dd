"""The hand-made decision transformer: what every analysis says of it is known."""

import hand_made
import numpy as np
import pytest
import torch
from hand_made import AVOIDS, COPIES, GOAL, TIME, WALL
from windows import labeled

from ad.interpret.analyses.attribution import Reading, component_names, read_values
from ad.interpret.directions import parse_direction


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
