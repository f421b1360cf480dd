"""The benchmark of speed: a part runs to its results."""

import json

from scripts.benchmark import measure, rollouts
from scripts.benchmark.__main__ import main
from scripts.benchmark.measure import Effort

TINY = Effort(repeats=1, scale=1e-9, quick=True)


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
