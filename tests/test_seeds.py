"""`scripts.seeds`: one experiment with several training seeds, each a run of its own."""

import pytest
from conftest import SMOKE

from ad import pipeline
from ad.cli import VERBS, exit_code
from ad.errors import NumericError
from ad.runtime.run import Run

SHORT = ("--training.steps", "6", "--source.env_steps", "2000", "--record.source_videos", "false")
SHORT += ("--evaluation.episodes", "3", "--record.held_out_videos", "0")


def test_each_seed_is_a_run_and_the_table_has_their_mean(tmp_path, capsys):
    words = [str(SMOKE), "--root", str(tmp_path), "--device", "cpu", "--threads", "1"]
    words += ["--seeds", "2,7", "--name", "two", *SHORT]
    assert exit_code(VERBS["seeds"], words) == 0
    out = capsys.readouterr().out
    assert "two-seed-2" in out and "two-seed-7" in out and "**mean of 2 runs**" in out
    for seed in (2, 7):
        folder = tmp_path / f"logs/two-seed-{seed}"
        assert f"train_seed: {seed}" in (folder / "config.yaml").read_text()
        assert (folder / "report.html").exists()
    assert exit_code(VERBS["seeds"], words) == 0
    assert not capsys.readouterr().err


def test_a_seed_whose_numbers_go_wrong_leaves_the_results_of_the_others(experiment, capsys):
    words = {"training__learning_rate": "1e30", "training__warmup_steps": "0"}
    words |= {"training__gradient_norm": "1e30"}
    good, bad = experiment(), experiment(**words)
    with pytest.raises(NumericError, match="1 of 2 runs failed: " + bad.name):
        pipeline.run_all([Run.open(bad), Run.open(good)])
    assert (Run.open(good).folder / "report.html").exists()
    assert not (Run.open(bad).folder / "results.json").exists()
    said = capsys.readouterr()
    assert f"{bad.name}: training left the finite numbers" in said.err
    assert "train: 8 steps" in said.out
    with pytest.raises(NumericError, match="training left the finite numbers"):
        pipeline.run_all([Run.open(bad)])  # the only one that is left says why, too
