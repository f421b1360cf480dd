"""The records of a sweep as hyperparameters and metrics of TensorBoard."""

import pytest
from small_board import SmallBoard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from ad.cli import VERBS, exit_code
from ad.sweeps.leaderboard.plan import load_board
from ad.sweeps.records import COLUMNS, TEXT, add_records

METHODS = {"room / distillation": "algorithm_distillation", "room / clone": "behavior_cloning"}


@pytest.fixture
def board(tmp_path) -> SmallBoard:
    """A board with records of three of its four runs."""
    board = SmallBoard(tmp_path)
    for number, run in enumerate(load_board(board.plan).planned_runs()[:3]):
        record = dict.fromkeys(COLUMNS) | dict.fromkeys(TEXT, "")
        record |= {"key": run.key, "changed": run.changed, "split_seed": 0, "train_seed": 0}
        record |= {"nauc": 0.5 + number, "curve": "1:0.25 10:0.5"}
        add_records(board.records, [record])
    return board


def hyperparameters(events: EventAccumulator) -> dict:
    """Return the hyperparameters of a run in TensorBoard."""
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    start = HParamsPluginData.FromString(content).session_start_info.hparams
    return {
        name: value.string_value if value.HasField("string_value") else value.number_value
        for name, value in start.items()
    }


def test_a_run_has_the_settings_that_differ_and_its_scores(board, tmp_path, capsys):
    words = [*board.words, "--hparams", str(tmp_path / "hparams")]
    for _ in range(2):  # the second call takes the place of the first
        assert exit_code(VERBS["leaderboard"], words) == 0
    assert "3 of 4 runs are in" in capsys.readouterr().out
    found = []
    for folder in (tmp_path / "hparams").iterdir():
        assert len(list(folder.iterdir())) == 1
        events = EventAccumulator(str(folder)).Reload()
        (nauc,) = events.Scalars("nauc")
        curve = [(event.step, event.value) for event in events.Scalars("share_of_optimum")]
        assert curve == [(1, 0.25), (10, 0.5)]
        values = hyperparameters(events)
        found.append((nauc.value, values["run"], values["training.train_seed"]))
        assert values["method.name"] == METHODS[values["run"]]
        assert "env.id" not in values  # which is that of all runs
    names = ("room / distillation", 0), ("room / clone", 0), ("room / distillation", 1)
    assert sorted(found) == [(0.5 + n, *name) for n, name in enumerate(names)]


def test_a_sweep_without_records_has_a_sentence(tmp_path, capsys):
    board = SmallBoard(tmp_path)
    words = [*board.words, "--hparams", str(tmp_path / "hparams")]
    assert exit_code(VERBS["leaderboard"], words) == 2
    assert "has a record of none of the 4 runs" in capsys.readouterr().err
    assert not (tmp_path / "hparams").exists()
