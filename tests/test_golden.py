"""The hand-made decision transformer: what every analysis says of it is known."""

from dataclasses import replace
from types import SimpleNamespace

import hand_made
import numpy as np
import pytest
import torch
from hand_made import AVOIDS, COPIES, GOAL, TIME, WALL
from windows import labeled, subject_of

from ad.interpret.analyses import ablation
from ad.interpret.analyses.attention import Attention
from ad.interpret.analyses.attribution_patching import AttributionPatching
from ad.interpret.analyses.patching import Patching
from ad.interpret.analyses.path_patching import PathPatching
from ad.interpret.analyses.reading import Reading, component_names, read_values
from ad.interpret.analyses.return_scan import ReturnScan
from ad.interpret.analyses.scrubbing import Scrubbing
from ad.interpret.analysis import Choice
from ad.interpret.components import KINDS, Replacements, parse_components
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


def asked_subject(objects: list[str], asked: list[float]):
    """The hand-made model with decisions of two groups in turn: what is in front and asked."""
    model = hand_made.conditioned()
    contexts = labeled(hand_made.front_window(objects, asked), model.spec)
    method = decision_transformer.DecisionTransformer(decision_transformer.Settings())
    return subject_of(model, replace(contexts, asked=np.array(asked)), method)


def test_a_replaced_head_changes_forward_by_what_it_no_longer_writes():
    objects, asked = ["empty", "wall", "goal", "ball", "wall"], [0.9, 0.9, -1.0, -1.0, 0.0]
    subject = asked_subject(objects, asked)
    run = SimpleNamespace(world=SimpleNamespace(action_names=()))
    chosen = replace(subject, run=run, choice=Choice(direction="2 - 1"))
    chosen.__dict__["contexts"] = subject.contexts
    names = ["0.0", "0.1"]
    components = [parse_components(name, subject.model.transformer) for name in names]
    table = Replacements.of_contexts(subject.model, subject.contexts, [components[0][0].point])
    axes = {"kind": list(KINDS), "component": names}
    found = ablation._decisions(chosen, table, components, axes)["decisions"]
    written = {"0.0": AVOIDS * np.array([0, 1, 1, 1, 1]), "0.1": COPIES * np.array(asked)}
    for name, own in written.items():
        for kind, instead in (("zero", 0.0), ("mean", own.mean())):
            change = instead - own
            expected = (change[[0, 2, 4]].mean() + change[[1, 3]].mean()) / 2  # of two groups
            value = found.at(kind=kind, component=name, measure="change of 2 - 1")
            assert value == pytest.approx(expected, abs=1e-6)


def probabilities(forward: float) -> np.ndarray:
    """The probabilities of the actions at time 0: the logits of left and right are 0."""
    weights = np.exp([0.0, 0.0, forward])
    return weights / weights.sum()


def divergence(forward: float, other: float) -> float:
    """The divergence of the probabilities with another logit of forward, in nats."""
    p, q = probabilities(forward), probabilities(other)
    return float((p * np.log(p / q)).sum())


OBEYS = COPIES * 0.9  # what head 1 writes for the return of 0.9
# The logits of forward with nothing in front and with a wall, and the same with the other state, in
# which head 0 writes what it writes for the own one.
OWN = OBEYS, WALL + AVOIDS + OBEYS
OTHER, PATCHED = OWN[::-1], (WALL + OBEYS, AVOIDS + OBEYS)


@pytest.mark.parametrize(
    ("analysis", "name", "at"),
    [
        (Patching, "head", {"head": "0.0"}),
        (PathPatching, "sender", {"sender": "0.0"}),
        (PathPatching, "edge", {"sender": "0.0", "receiver": "logits"}),
    ],
)
def test_head_0_undoes_its_part_of_another_state(analysis, name, at):
    found = analysis().run(asked_subject(["empty", "wall"], [0.9, 0.9]))[name]
    left, whole = (sum(map(divergence, OWN, other)) for other in (PATCHED, OTHER))
    assert found.at(change="another state", **at) == pytest.approx(1 - left / whole, abs=1e-5)
    if name == "edge":  # the MLP reads nothing
        mlp = found.at(change="another state", sender="0.0", receiver="mlp 0")
        assert mlp == pytest.approx(0, abs=1e-6)


def test_a_gradient_estimates_what_a_patch_of_a_head_undoes():
    subject = asked_subject(["empty", "wall"], [0.9, 0.9])
    found = AttributionPatching().run(subject)["head"]
    pairs = list(zip(OWN, OTHER, PATCHED, strict=True))
    # The derivative of the divergence by a logit is the changed less the original probability.
    slopes = [probabilities(other)[2] - probabilities(own)[2] for own, other, _ in pairs]
    falls = [slope * (other - back) for slope, (_, other, back) in zip(slopes, pairs, strict=True)]
    expected = sum(falls) / sum(divergence(own, other) for own, other, _ in pairs)
    assert found.at(change="another state", head="0.0") == pytest.approx(expected, abs=1e-4)
    asked = np.array([0.9, 0.9]), np.full(2, 0.95)
    own, other = (COPIES * value + [0, WALL + AVOIDS] for value in asked)
    slopes = [probabilities(b)[2] - probabilities(a)[2] for a, b in zip(own, other, strict=True)]
    expected = (slopes * (other - own)).sum() / sum(map(divergence, own, other))
    at_head_1 = found.at(change="highest return asked", head="0.1")
    assert at_head_1 == pytest.approx(expected, rel=1e-3)


def test_the_asked_return_moves_forward_by_what_head_1_copies():
    results = ReturnScan().run(asked_subject(["empty", "wall"], [0.9, 0.9]))
    slope, probability = results["slope"], results["probability"]
    # A preference is an output less the mean of three: forward rises by two thirds.
    for action, share in enumerate((-1 / 3, -1 / 3, 2 / 3)):
        assert slope.at(action=action, component="0.1") == pytest.approx(COPIES * share, abs=1e-6)
        assert slope.at(action=action, component="0.0") == pytest.approx(0, abs=1e-6)
    chosen = asked_subject(["empty", "wall"], [0.9, 0.9])
    run = SimpleNamespace(world=SimpleNamespace(action_names=()))
    along = replace(chosen, run=run, choice=Choice(direction="2 - 1"))
    along.__dict__["contexts"] = chosen.contexts
    analysis = ReturnScan()
    slope_along = analysis.run(along)["slope"]
    assert slope_along.at(action="2 - 1", component="0.1") == pytest.approx(COPIES, abs=1e-6)
    assert analysis.table(analysis.run(along)).rows[0][0] == "2 - 1"
    for asked in probability.axes["asked return"]:
        both = [probabilities(own + COPIES * asked) for own in (0, WALL + AVOIDS)]
        found = [probability.at(action=n, **{"asked return": asked}) for n in range(3)]
        assert found == pytest.approx(np.mean(both, 0), abs=1e-6)
