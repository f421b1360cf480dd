"""Situations: what is in them, contexts that are made, banks of them, and behavior in them."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hand_made import GRID_SPEC, conditioned, front_window, hand_made
from windows import labeled

from ad.config.parser import load
from ad.errors import ConfigError, CorruptError
from ad.interpret import situations
from ad.interpret.analyses import bank
from ad.interpret.analyses.bank import FOUND, MADE, Bank
from ad.interpret.analyses.behavior import Behavior
from ad.interpret.analysis import Choice, Subject
from ad.interpret.situations import in_situation, made_contexts, situation_names
from ad.methods import build_method
from ad.registry import SITUATIONS
from ad.runtime.run import Run
from envs import make_base
from envs.minigrid.encoding import from_one_hot

OBSTACLES = "MiniGrid-Dynamic-Obstacles-8x8-v0"
AHEAD = ("wall", "obstacle", "nothing", "goal")
POSES = {  # of the 35 free cells of 8 x 8, by what does not depend on the obstacles
    "wall in front": 22,  # 4 x 6 without two in the cell of the goal
    "goal in front": 2,
    "goal in front from above": 1,
    "goal in front from the left": 1,
    "goal to the left": 2,
    "goal to the right": 2,
    "corner": 6,  # two directions in each of three corners
}


@pytest.mark.parametrize("kind", ["index", "one_hot"])
def test_the_poses_of_a_situation_are_those_counted_in_the_grid(kind):
    world = make_base(OBSTACLES, [{}], observation=kind)
    placed, rng = world.placed(np.array([0]), 0), np.random.default_rng(0)
    assert len(placed.poses) == 35 * 4
    seen = np.stack([placed.observe(pose, rng) for pose in placed.poses])
    own = situations.situations_of(world)
    holds = {name: own.holds(name, {"": seen}) for name in situation_names(world)}
    assert {name: int(holds[name].sum()) for name in POSES} == POSES
    ahead = sum(holds[f"{what} in front"].astype(int) for what in AHEAD)
    assert (ahead == 1).all()
    above = placed.poses[holds["goal in front from above"]].tolist()
    assert above == [[6, 5, 1]]  # which looks down
    cells = seen if kind == "index" else from_one_hot(seen)
    assert ((cells[..., 0] == 6).sum((1, 2)) <= 4).all()
    in_front = [placed.observe(pose, rng, in_front=True) for pose in placed.poses]
    made = [view for view in in_front if view is not None]
    assert len(made) == 140 - 22 - 2 and own.holds("obstacle in front", {"": np.stack(made)}).all()


@pytest.fixture
def subject(tmp_path, monkeypatch) -> Subject:
    """The hand-made decision transformer, with contexts of three objects and two asked returns."""
    words = ["--config_path", "configs/dynamic_obstacles.yaml", "--root", str(tmp_path)]
    config = load(words)
    found = Subject(Run(config), build_method(config.method), conditioned())
    objects = ["wall", "ball", "goal", "empty"] * 2
    window = front_window(objects, [-1.0] * 4 + [0.9] * 4, time=0)
    asked = window["return_to_go"][:, 1].double().numpy()
    contexts = replace(labeled(window, GRID_SPEC), asked=asked)
    found.__dict__.update(contexts=contexts, all_contexts=contexts, dataset=None)
    monkeypatch.setattr(bank, "MOST", 8)
    time = np.full((8, 2), 7)  # of the histories
    monkeypatch.setattr(situations, "history_contexts", lambda *_: SimpleNamespace(time=time))
    return found


def test_a_situation_is_found_by_what_is_in_front(subject):
    world = subject.run.world
    mask = in_situation(world, subject.contexts, "obstacle in front")
    assert np.argwhere(mask).tolist() == [[1, 1], [5, 1]]
    with pytest.raises(ConfigError, match="did you mean goal in front"):
        in_situation(world, subject.contexts, "goal in frnt")
    assert situation_names(make_base("DarkRoom-v0")) == []
    assert situation_names(make_base(OBSTACLES, [{}], observation="full")) == []
    with pytest.raises(ConfigError, match="no situations"):
        in_situation(make_base("DarkRoom-v0"), subject.contexts, "corner")


def test_made_contexts_are_what_a_rollout_would_read_there(subject):
    made = made_contexts(subject, "goal in front", [-1.0, 0.9], 6)
    assert len(made) == 12 and made.asked.tolist() == [-1.0] * 6 + [0.9] * 6
    assert made.group.tolist() == [*range(6)] * 2
    assert in_situation(subject.run.world, made, "goal in front")[:, 1].all()
    assert made.window["return_to_go"][:, 1].tolist() == pytest.approx(made.asked)
    assert (made.time[:, 1] == 7).all() and made.decided.sum() == 12
    first, second = (made.window["observation"][rows] for rows in (slice(6), slice(6, None)))
    assert torch.equal(first, second) and len(torch.unique(first, dim=0)) > 2  # of the obstacles
    logits = subject.model(made.window)[:, 0]
    assert logits[:6, 2].tolist() == pytest.approx([1 - 2 - 1.5] * 6)


def test_a_situation_that_never_occurs_is_one_sentence(subject, monkeypatch):
    monkeypatch.setitem(situations.MiniGridSituations.cells, "lava", ({"front": "lava"},))
    with pytest.raises(ConfigError, match="'lava' does not occur in any pose"):
        made_contexts(subject, "lava", None, 3)


class DarkRoomSituations(situations.Situations):
    """Whether a cell has an even number."""

    def names(self):
        return ["even"]

    def holds(self, name, parts):
        return parts[""] % 2 == 0


def test_a_world_gets_situations_by_a_line_in_the_registry(spec, random_window, monkeypatch):
    place = f"{__name__}:DarkRoomSituations"
    monkeypatch.setitem(SITUATIONS, "DarkRoom", place)
    contexts, world = labeled(random_window(4, 6, 0), spec), make_base("DarkRoom-v0")
    even = contexts.window["observation"].numpy() % 2 == 0
    np.testing.assert_array_equal(in_situation(world, contexts, "even"), even & contexts.valid)


def test_a_bank_is_read_as_it_was_written(subject, tmp_path):
    kept_bank = Bank.of_subject(subject)
    kept = {(one.source, one.situation): one for one in kept_bank.kept}
    assert len(kept[FOUND, "wall in front"].contexts) == 2
    assert len(kept[MADE, "wall in front"].contexts) == 2 * 8
    assert (FOUND, "corner") not in kept and (MADE, "corner") in kept
    files = [tmp_path / name for name in ("a.npz", "b.npz")]
    kept_bank.save(files[0], subject.model)
    read = Bank.load(files[0], subject.model)
    read.save(files[1], subject.model)
    assert files[0].read_bytes() == files[1].read_bytes() and read.name == kept_bank.name
    again = bank.probabilities(subject, read.kept[-1].contexts)
    np.testing.assert_array_equal(again, kept_bank.kept[-1].probability)


def test_a_damaged_bank_and_one_of_other_models_are_one_sentence_each(subject, spec, tmp_path):
    path = tmp_path / "bank.npz"
    with pytest.raises(ConfigError, match=r"there is no bank of situations .*bank\.npz"):
        Bank.load(path, subject.model)
    Bank.of_subject(subject).save(path, subject.model)
    whole = path.read_bytes()
    with pytest.raises(ConfigError, match="other observations, actions, inputs or episodes"):
        Bank.load(path, hand_made(spec))
    with pytest.raises(ConfigError, match="episodes"):
        Bank.load(path, conditioned(replace(subject.model.spec, episode_length=7)))
    for damaged in (whole[: len(whole) // 2], b"", b"bank"):
        path.write_bytes(damaged)
        with pytest.raises(CorruptError, match="is damaged"):
            Bank.load(path, subject.model)


TIME_LEFT = 0.5 * 7 / 300  # logit of left at time 7


def forward(logit: float, left: float = 0.0) -> float:
    """The probability of forward by its logit and that of left; that of right is 0."""
    return np.exp(logit) / (np.exp(logit) + np.exp(left) + 1)


def test_what_replaces_a_component_is_over_all_situations(subject):
    name = "obstacle in front"
    own = replace(subject, choice=Choice(situation=name))
    mask = in_situation(subject.run.world, subject.contexts, name)
    few = subject.contexts.where(mask)
    own.__dict__.update(contexts=few, all_contexts=subject.contexts, dataset=None)
    at = {"situation": name, "contexts": "found"}
    whole, alone = (Behavior().run(each)["enters"].at(**at) for each in (subject, own))
    np.testing.assert_allclose(alone, whole)


def test_behavior_is_that_worked_out_by_hand(subject):
    analysis = Behavior()
    results = analysis.run(subject)
    enters, effect = results["enters"], results["effect"]
    assert enters.axes["ablated"] == ["none", "0.0", "0.1", "mlp 0"]
    logits = {"wall": -3 - 2, "obstacle": -2, "goal": 1 - 2, "nothing": 0}
    for name, asked in itertools.product(logits, (-1.0, float(np.float32(0.9)))):
        at = {"situation": f"{name} in front", "asked return": asked, "actions": "sampled"}
        alone = logits[name] + 2 * (name != "nothing")  # without what head 0 writes
        expected = [
            logits[name] + 1.5 * asked,
            alone - 2 * 6 / 8 + 1.5 * asked,  # it writes -2 in six of eight contexts
            logits[name] - 1.5 * 0.05,  # the mean of -1 and 0.9
            logits[name] + 1.5 * asked,
        ]
        for source, left in (("found", 0.0), ("made", TIME_LEFT)):
            found = enters.at(contexts=source, **at)
            assert found == pytest.approx([forward(f, left) for f in expected], abs=1e-6)
            assert effect.at(contexts=source, **at) == pytest.approx(found[1:] - found[0], abs=1e-6)
        greedy = enters.at(contexts="made", **at | {"actions": "greedy"})
        assert greedy.tolist() == [f > TIME_LEFT for f in expected]
    assert results["decisions"].at(situation="wall in front").tolist() == [[1, 1], [8, 8]]
    bounds = results["enters_interval"]
    made = bounds.at(contexts="made", situation="goal in front", ablated="none", actions="sampled")
    assert np.ptp(made, axis=0).max() < 1e-6  # of contexts that are all alike to the model
    assert np.isnan(bounds.at(contexts="found")).all()  # of one decision
    row = analysis.table(results).rows[0]
    assert row[:3] == ["wall in front", "-1", "1, 8"] and row[7].startswith("0.1: 0.00")


def test_two_models_are_compared_in_the_same_contexts(subject):
    Behavior().run(subject)
    path = subject.run.folder / "inspect" / bank.BANK
    other = replace(subject, model=conditioned(), choice=Choice(bank=str(path)))
    other.model.head.weight[2] *= 0.0
    other.__dict__.update(contexts=subject.contexts, all_contexts=subject.contexts, dataset=None)
    difference = Behavior().run(other)["difference"]
    found = difference.at(contexts="made", situation="goal in front", **{"asked return": -1.0})
    before = forward(-2.5, TIME_LEFT)
    assert found[2] == pytest.approx(forward(0, TIME_LEFT) - before, abs=1e-6)
