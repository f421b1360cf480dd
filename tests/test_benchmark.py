"""The benchmark's own arithmetic: turns, ratios, operations, and peers that do the same work."""

import json

import numpy as np
import pytest
import torch

from ad.config.parser import load
from ad.data.spec import make_spec
from ad.methods import build_method
from ad.models.sequence_model import SequenceModel
from ad.rollout.rollout import rollout, sampled
from ad.runtime.run import Run
from envs import make_vec
from scripts.benchmark import measure, peers, rollouts, show, training
from scripts.benchmark.__main__ import PARTS, main
from scripts.benchmark.collection import collection
from scripts.benchmark.measure import Effort, Row, alternate, median, operations, peak_memory
from scripts.benchmark.rollouts import Plain

TINY = Effort(repeats=1, scale=1e-9, quick=True)


def row(**changes) -> Row:
    return Row(
        **{"part": "train", "name": "a", "unit": "steps", "ours": 6.0, "repeats": {}} | changes
    )


def test_contenders_take_turns_and_the_first_turn_does_not_count():
    calls = []

    def contender(name: str):
        return lambda: calls.append(name) or 1.0

    rates = alternate({"a": contender("a"), "b": contender("b")}, repeats=2)
    assert "".join(calls) == "ababab"
    assert {name: len(values) for name, values in rates.items()} == {"a": 2, "b": 2}
    assert median([1.0, 9.0, 2.0]) == 2.0


def test_a_row_has_its_ratios_or_none():
    assert (
        row(peer=3.0, limit=12.0).as_dict().items() >= {"ratio": 2.0, "share_of_limit": 0.5}.items()
    )
    assert row().ratio is None and row().share is None


def small_trainer(*words: str):
    return training.new_trainer("--data.context_length", "8", "--threads", "1", *words, stream=200)


def test_a_step_is_counted_without_a_trace():
    counts = []
    for windows in ("4", "8"):
        trainer = small_trainer("--training.batch_size", windows)
        flat = trainer.optimizer.flat_params
        before = [values.clone() for values in flat]
        counts.append(training._operations(trainer))
        assert all(parameter.grad is None for parameter in trainer.model.parameters())
        torch.testing.assert_close(before, [values.data for values in flat])
    width, ahead = trainer.config.model.width, trainer.config.model.feed_forward
    products = trainer.config.model.layers * (4 * width**2 + 2 * width * ahead)  # a token's
    assert counts[1] - counts[0] > 6 * products * 4 * 8  # forward, and twice that backward
    assert counts[1] < 2 * counts[0] < 2.5 * counts[1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_peer_trains_on_as_many_transitions(precision):
    pytest.importorskip("transformers")
    trainer = small_trainer("--training.batch_size", "4")
    assert training.gpt2_steps(trainer, 2, precision)() == 2 * 4 * 8


def test_operations_of_a_product_and_of_its_backward_pass():
    a, b = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5, requires_grad=True)
    assert operations(lambda: a @ b) == 2 * 3 * 4 * 5
    assert operations(lambda: (a @ b).sum().backward()) == 3 * 2 * 3 * 4 * 5


def test_the_peak_of_memory_sees_what_is_freed_again():
    with peak_memory() as before:
        pass
    with peak_memory() as during:
        np.ones(50_000_000).sum()
    if before and during:  # only Linux tells
        assert during[0] - before[0] > 300_000_000


def test_a_rollout_that_reads_its_window_anew_plays_the_same_episodes():
    config = load(["--data.context_length", "12", "--model.width", "16"]).config
    torch.manual_seed(0)
    spec = make_spec(Run(config).world, config.env.episode_length, np.array([0.0, 1.0]))
    model = SequenceModel(spec, config.model).eval().double()
    method, tasks = build_method(config.method), np.array([[0, 0], [4, 5], [8, 1]])
    played = []
    for chosen in (method, Plain()):
        lanes = make_vec("DarkRoom-v0", tasks, 20)
        played.append(rollout(model, chosen, lanes, [1, 2, 3], 4, 12, sampled(), record=range(3)))
    for name, values in played[0].trajectory.items():
        np.testing.assert_array_equal(values, played[1].trajectory[name])


def test_a_table_a_line_and_a_plot_of_rows(tmp_path):
    rows = [
        row(peer=3.0, peer_name="them", limit=12.0, limit_name="product", target="much", met=True),
        row(name="growth", detail={"milliseconds per 1,000 transitions": {"context 64": 1.0}}),
    ]
    text = show.table(rows).markdown()
    assert "2.0 x" in text and "50%" in text and "| yes |" in text
    assert any("peer: them; limit: product" in line for line in show.lines(rows))
    show.write_plot(tmp_path / "growth.png", rows)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_the_rows_of_other_parts_stay_and_those_of_other_machines_do_not(tmp_path):
    path, old = tmp_path / "results.json", [row(part="collect", peer=3.0), row(ours=1.0)]
    for machine, kept in ((show.machine(), ["collect"]), ({"cores": 99}, [])):
        content = {"machine": machine, "quick": False, "rows": [r.as_dict() for r in old]}
        path.write_text(json.dumps(content))
        rows = show.with_others([row()], path, False, list(PARTS))
        assert [r.part for r in rows] == [*kept, "train"] and rows[-1].ours == 6.0
    assert show.with_others([row()], tmp_path / "none.json", False, list(PARTS)) == [row()]


def test_without_measurements_there_is_no_plot(tmp_path):
    show.write_plot(tmp_path / "growth.png", [row()])
    assert not (tmp_path / "growth.png").exists()


def test_a_part_runs_to_its_results(tmp_path, monkeypatch, capsys):
    part = "rollout"
    monkeypatch.setattr(measure, "QUICK", TINY)
    monkeypatch.setattr(rollouts, "LANES", 2)
    monkeypatch.setattr(rollouts, "GROWTH", (1, 2))
    main([part], quick=True, root=tmp_path)
    results = json.loads((tmp_path / "logs/benchmark/results.json").read_text())
    assert results["rows"] and {entry["part"] for entry in results["rows"]} == {part}
    assert all(entry["ours"] > 0 for entry in results["rows"])
    assert {"threads", "torch", "cores"} <= results["machine"].keys()
    assert capsys.readouterr().out.count("| " + part) == len(results["rows"])


def test_a_collection_counts_the_steps_of_all_its_agents():
    assert collection(200, "--split.num_train_tasks", "3")() == 600


def test_a_peer_that_is_not_installed_is_said(capsys):
    assert not peers.installed("no_such_package")
    assert "no_such_package is not installed" in capsys.readouterr().err


def test_every_part_names_a_module():
    assert set(PARTS) == {"collect", "train", "rollout", "backends", "end_to_end"}
