"""The benchmark of speed: its alternating repeats, ratios, operation counts and peers."""

import importlib
import json

import numpy as np
import pytest
import torch

from ad.config.parser import load
from ad.data.spec import make_spec
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.models.sequence_model import SequenceModel
from ad.rollout.rollout import rollout, sampled
from ad.runtime.run import Run
from envs import make_vec
from scripts.benchmark import measure, peers, rollouts, show, training
from scripts.benchmark.__main__ import PARTS, main
from scripts.benchmark.measure import Effort, Measurement, alternate, median, operations
from scripts.benchmark.rollouts import RecomputedWindow

TINY = Effort(repeats=1, scale=1e-9, quick=True)


def measurement(**changes) -> Measurement:
    fields = {"part": "train", "name": "a", "unit": "steps", "ours": 6.0, "repeats": {}}
    return Measurement(**fields | changes)


def test_contenders_take_turns_and_the_first_turn_does_not_count():
    calls = []

    def contender(name: str):
        return lambda: calls.append(name) or 1.0

    rates = alternate({"a": contender("a"), "b": contender("b")}, repeats=2)
    assert "".join(calls) == "ababab"
    assert {name: len(values) for name, values in rates.items()} == {"a": 2, "b": 2}
    assert median([1.0, 9.0, 2.0]) == 2.0


def test_a_measurement_has_its_ratios_or_none():
    values = measurement(peer=3.0, limit=12.0).as_dict()
    assert values.items() >= {"ratio": 2.0, "share_of_limit": 0.5}.items()
    assert measurement().ratio is None and measurement().share is None


def small_trainer(*options: str):
    options = ("--data.context_length", "8", "--threads", "1", *options)
    return training.new_trainer(*options, actor_steps=200)


def test_gpt2_trains_on_equally_many_transitions():
    pytest.importorskip("transformers")
    trainer = small_trainer("--training.batch_size", "4")
    assert training.gpt2_steps(trainer, 2, "float32")() == 2 * 4 * 8


def test_operations_of_a_matrix_product_and_of_its_backward_pass():
    a, b = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5, requires_grad=True)
    assert operations(lambda: a @ b) == 2 * 3 * 4 * 5
    assert operations(lambda: (a @ b).sum().backward()) == 3 * 2 * 3 * 4 * 5


def test_a_rollout_that_recomputes_its_window_plays_the_same_episodes():
    config = load(["--data.context_length", "12", "--model.width", "16"])
    torch.manual_seed(0)
    spec = make_spec(Run(config).world, config.env.episode_length, np.array([0.0, 1.0]))
    model = SequenceModel(spec, config.model).eval().double()
    tasks = np.array([[0, 0], [4, 5], [8, 1]])
    pair = []
    for context in (SlidingWindow, RecomputedWindow):
        env = make_vec("DarkRoom-v0", tasks, 20)
        policy = ContextPolicy(model, context(model, 3, 12))
        pair.append(rollout(policy, env, [1, 2, 3], 4, sampled(), record=range(3)))
    for name, values in pair[0].trajectory.items():
        np.testing.assert_array_equal(values, pair[1].trajectory[name])


def test_measurements_become_a_table_detail_lines_and_a_plot(tmp_path):
    names = {"peer_name": "them", "limit_name": "matrix product"}
    measurements = [
        measurement(peer=3.0, limit=12.0, **names),
        measurement(name="growth", detail={show.TRAINING_COST: {"context 64": 1.0}}),
    ]
    text = show.table(measurements).markdown()
    assert "2.0 x" in text and "50%" in text
    lines = show.detail_lines(measurements)
    assert any("peer: them; limit: matrix product" in line for line in lines)
    show.write_plot(tmp_path / "growth.png", measurements)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_a_part_runs_to_its_results(tmp_path, monkeypatch, capsys):
    part = "rollout"
    monkeypatch.setattr(measure, "QUICK", TINY)
    small = {"NUM_ENVS": 2, "GROWTH": (1, 2), "LENGTHS": (20, 40), "WINDOW": 32}
    for name, value in small.items():
        monkeypatch.setattr(rollouts, name, value)
    main([part], quick=True, root=tmp_path)
    results = json.loads((tmp_path / "logs/benchmark/results.json").read_text())
    entries = results["measurements"]
    assert entries and {entry["part"] for entry in entries} == {part}
    assert all(entry["ours"] > 0 for entry in entries)
    assert {"threads", "torch", "cores"} <= results["system"].keys()
    assert capsys.readouterr().out.count("| " + part) == len(entries)


def test_a_peer_that_is_not_installed_is_a_warning(capsys):
    assert not peers.installed("no_such_package")
    assert "no_such_package is not installed" in capsys.readouterr().err


def test_every_part_has_benchmarks():
    for name in PARTS.values():
        assert importlib.import_module(f"scripts.benchmark.{name}").BENCHMARKS
