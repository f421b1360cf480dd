"""Weights of embeddings and circuits of heads: the numbers that were set are found."""

from dataclasses import replace

import hand_made
import numpy as np
import pytest
import torch
from hand_made import (
    ASKED,
    AVOIDS,
    BLOCKED,
    COPIES,
    FORWARD,
    FRONT,
    GOAL,
    GRID_SPEC,
    RETURN,
    STRENGTH,
    TIME,
    WALL,
)
from windows import labeled, subject_of

from ad.config.schema import ModelConfig
from ad.data.spec import OBSERVATIONS, Spec
from ad.interpret.analyses.circuits import Circuits
from ad.interpret.analyses.reading import Reading, outputs, read_values
from ad.interpret.analyses.static import Static
from ad.interpret.analyses.weights import METHODS, Weights, attributed, blank
from ad.interpret.analysis import Choice
from ad.interpret.hooks import hooked
from ad.models.rewards import ReturnToGo
from ad.models.sequence_model import SequenceModel
from envs.minigrid.encoding import WORDS, word_numbers
from envs.spaces import Array

THERE = "2 - 1"  # forward - turn right
SEEN = ["empty", "wall", "goal", "ball"]


def subject(model, objects=SEEN, asked=(-1.0, 0.0, 0.9)):
    """A model that sees `objects` in front of it, each at time 30, asked for a return of 0.9."""
    window = hand_made.front_window(objects, [0.9] * len(objects), time=30)
    return replace_asked(subject_of(model, labeled(window, model.spec)), asked)


def replace_asked(subject, asked):
    """The subject with returns that are asked for."""
    changed = replace(subject, choice=Choice(asked=asked))
    changed.__dict__["contexts"] = subject.contexts
    return changed


def grid_model(encoder: str, spec: Spec = GRID_SPEC, **changes) -> SequenceModel:
    """A random decision transformer of a MiniGrid view, of which no bias is 0."""
    sizes = {"width": 16, "layers": 1, "heads": 2, "feed_forward": 8, "reward": "none"}
    names = {"tokenizer": "conditioned", "position": "env_time", "norm": "none"}
    config = ModelConfig(encoder=encoder, **(sizes | names | changes))
    torch.manual_seed(1)
    inputs = {"return_to_go": ReturnToGo(spec, config.width)}
    model = SequenceModel(spec, config, inputs).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "head" in name or "ln" in name:
            torch.nn.init.normal_(parameter)
    return model


def test_the_weights_of_the_hand_made_model_are_those_that_were_set():
    analysis = Weights()
    results = analysis.run(subject(hand_made.conditioned()))
    state = results["state"].at(direction=THERE)
    own = {"cell": "5-3", "direction": THERE}
    assert results["state"].at(channel="wall", **own) == WALL
    assert results["state"].at(channel="goal", **own) == GOAL
    assert np.count_nonzero(state) == 2
    front = {"empty": 0, "red wall": WALL, "red ball": 0, "red goal": GOAL}
    found = results["in_front"]
    assert dict(zip(found.axes["thing"], found.at(direction=THERE), strict=True)) == front
    assert results["object_color"].at(direction=THERE, object="goal", color="blue") == GOAL
    assert results["return_to_go"].at(direction=THERE).tolist() == [RETURN, 0]
    late = results["time"].at(direction="0", position=150)  # turn left, against both others
    assert late == pytest.approx(TIME / 2)
    rows = {row[0]: row[-1] for row in analysis.table(results).rows}
    assert rows["red wall in front"] == "-3.000" and rows["return-to-go, 1 more"] == "+0.250"


def test_indices_multiply_the_weights_of_object_and_color():
    """The numbers are those of the study of 2023."""
    model = grid_model("index")
    weight = model.tokenizer.encoders[0].linear.weight
    torch.nn.init.zeros_(weight)
    torch.nn.init.zeros_(model.head.weight)
    model.head.weight[2, 0] = 1.0
    weight.unflatten(1, (7, 7, 3))[0, *FRONT] = torch.tensor([0.27, -0.742, 0.0])
    found = Weights().run(subject(model))
    table = found["object_color"]
    pairs = [("wall", "grey", -3.17), ("ball", "blue", 0.136), ("goal", "green", 1.418)]
    for kind, color, value in [*pairs, ("empty", "red", 0.27)]:
        got = table.at(direction=THERE, object=kind, color=color)
        assert got == pytest.approx(value, abs=1e-3)
    assert found["state"].at(direction=THERE, channel="color", cell="5-3") == pytest.approx(-0.742)


@pytest.mark.parametrize("norm", ["pre", "none"])
def test_weights_of_one_decision_add_up_to_the_contribution_of_its_embedding(norm):
    model = grid_model("one_hot", norm=norm)
    contexts = labeled(hand_made.front_window(["wall"], [0.5], time=3), GRID_SPEC)
    found = Weights().run(subject_of(model, contexts))
    direction = torch.tensor([0.0, -1.0, 1.0])
    reading = Reading(model, read_values(model, contexts), direction)
    cells = [found["things"].at(direction=THERE, thing="empty")]
    front = found["things"].axes["cell"].index("5-3")
    cells[0][front] = found["in_front"].at(direction=THERE, thing="red wall")
    added = cells[0].sum() + found["time"].at(direction=THERE, position=3)
    bias = float(reading.reader[0, 0] @ model.tokenizer.encoders[0].linear.bias)
    assert added + bias == pytest.approx(float(reading.components()[..., :2].sum()), abs=1e-4)


@pytest.mark.parametrize("encoder", ["one_hot", "index", "bag_of_words", "cnn", "vit", "mlp"])
def test_integrated_gradients_add_up_to_the_difference_from_an_empty_view(encoder):
    model = grid_model(encoder, norm="pre")
    contexts = labeled(hand_made.front_window(SEEN, [0.1, 0.2, 0.3, 0.4]), GRID_SPEC)
    base = blank(GRID_SPEC.observation[""])
    found = attributed(model, contexts, model.tokenizer.encoders[0], base)[1].sum(1)
    window = dict(contexts.window)
    window["observation"] = base.expand_as(window["observation"])
    other = replace(contexts, window=window)
    expected = (outputs(model, contexts) - outputs(model, other))[:, 0]
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-2)
    assert (found[0] == 0).all() and (found[1:] != 0).all()
    results = Weights().run(subject(model))
    assert any(METHODS[1] in row[0] for row in Weights().table(results).rows) == (
        encoder not in ("one_hot", "index")
    )
    assert Static().run(subject(model))[
        "channel_cosine" if encoder in ("index", "mlp") else "object_cosine"
    ]


def test_what_an_instruction_does_is_attributed_to_its_words():
    mission, words = Array((4,), "uint8", 0.0, float(len(WORDS))), [*word_numbers("open a key"), 0]
    spec = replace(GRID_SPEC, observation={"image": GRID_SPEC.observation[""], "mission": mission})
    model = grid_model("one_hot", spec, encoders={"mission": "words"})
    window = hand_made.front_window(SEEN, [0.1, 0.2, 0.3, 0.4])
    for role in OBSERVATIONS:
        window[f"{role}-image"] = window.pop(role)
        shape = (*window["valid"].shape, 4)
        window[f"{role}-mission"] = torch.tensor(words, dtype=torch.uint8).expand(shape)
    contexts = labeled(window, spec)
    window = window | {"observation-mission": torch.zeros(shape, dtype=torch.uint8)}
    change = outputs(model, contexts) - outputs(model, replace(contexts, window=window))
    expected = float((change @ torch.tensor([0.0, -1.0, 1.0])).mean())
    array = Weights().run(subject_of(model, contexts))["attributed-mission"]
    values = array.at(method=METHODS[1], direction=THERE)  # [channels, cells]
    assert values.sum() == pytest.approx(expected, rel=2e-2)
    at = {(array.axes["channel"][k], array.axes["cell"][p]) for k, p in np.argwhere(values)}
    assert at == {("open", "0"), ("a", "1"), ("key", "2"), *(("no word", p) for p in "012")}


def test_the_circuits_of_the_hand_made_model_are_those_that_were_set():
    analysis, model = Circuits(), hand_made.conditioned()
    model.transformer.blocks[0].mlp.up.weight[3, FORWARD] = 1.0
    results = analysis.run(subject(model))
    terms = results["ov_terms"]
    assert terms.at(head="0.0", direction=THERE, term="every state") == pytest.approx(AVOIDS)
    one = terms.at(head="0.1", direction=THERE, term="return-to-go, 1 more")
    assert one == pytest.approx(COPIES)
    assert np.count_nonzero(np.abs(terms.at(direction=THERE)) > 1e-6) == 2
    asked = {"head": "0.1", "direction": THERE}
    written = results["ov_return"].at(**asked)
    np.testing.assert_allclose(written, [-COPIES, 0, 0.9 * COPIES], atol=1e-6)
    score = results["qk_terms"].at(head="0.1", **{"query term": "every state"})
    assert score[1] == pytest.approx(STRENGTH) and not score[[0, 2, 3, 4]].any()
    singular = results["singular_writes"].at(head="0.1", direction=THERE)
    np.testing.assert_allclose(singular, [COPIES, 0, 0, 0], atol=1e-6)
    cosine = results["neuron_cosine"]
    assert cosine.at(head="0.0", written="every state", neuron=3) == pytest.approx(-1)
    assert cosine.at(head="0.1", written="return-to-go, 1 more", neuron=3) == pytest.approx(1)
    rows = [row for row in analysis.table(results).rows if row[:2] == ["0.0", "red wall in front"]]
    assert rows[0][2:5] == ["0.00"] * 3


def test_a_replaced_cell_turns_the_head_that_reads_what_is_in_front():
    results = Circuits().run(subject(hand_made.conditioned(), ["empty", "empty", "wall"]))
    own = {"asked return": 0.9, "thing": "red wall"}
    changed = results["replaced"]
    there = {measure: changed.at(head="0.0", measure=measure, **own) for measure in ("state",)}
    front = changed.axes["cell"].index("5-3")
    assert there["state"][front] == pytest.approx(2 * STRENGTH * 2 / 3)  # two views of three
    assert np.count_nonzero(there["state"]) == 1
    attention = "attention to the return-to-go"
    in_front = {"head": "0.0", "asked return": 0.9, "measure": attention}
    np.testing.assert_allclose(results["in_front"].at(**in_front), [1, 0], atol=1e-6)
    assert not changed.at(head="0.1").any()
    assert results["scores"].at(**in_front) == pytest.approx(2 / 3)


def test_a_key_of_the_asked_return_turns_its_sign_and_scores_add_up():
    model = hand_made.conditioned()
    attention = model.transformer.blocks[0].attn
    q, k, _ = attention.qkv.weight.unflatten(0, (3, 2, -1))[:, 1]
    q[:], k[:] = 0.0, 0.0
    q[0, BLOCKED] = k[0, ASKED] = 1.0
    attention.qkv.bias.unflatten(0, (3, 2, -1))[1, 1, 0] = 0.25
    found = Circuits().run(subject(model))["qk_return"]
    blocked = found.at(head="0.1", channel="wall", cell="5-3")
    np.testing.assert_allclose(blocked, [-0.75, 0.25, 1.15], atol=1e-6)  # 2 (asked + 0.25) / 2

    model = grid_model("one_hot")
    results = Circuits().run(subject(model, ["wall"], (0.9,)))
    features = results["qk_return"].values[:, 0]  # [H, channels, cells]
    present = features[:, [1, 11, 17]].sum((1, 2))  # empty, red and open everywhere
    front = results["qk_return"].axes["cell"].index("5-3")
    present += features[:, 2, front] - features[:, 1, front]
    terms, names = results["qk_terms"].values, results["qk_terms"].axes["key term"]
    share = np.array([{"return-to-go, 1 more": 0.9, "every state": 0}.get(n, 1) for n in names])
    queries = np.array([float("return" not in name) for name in names])
    contexts = labeled(hand_made.front_window(["wall"], [0.9], time=30), GRID_SPEC)
    with hooked(model, ("*.hook_attn_scores",)) as values:
        model(contexts.window)
    score = values["blocks.0.attn.hook_attn_scores"][0, :, 1, 0]
    found = present + np.einsum("hqk,q,k->h", terms, queries, share)
    np.testing.assert_allclose(found, score, rtol=1e-4)
