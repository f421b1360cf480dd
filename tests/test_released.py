"""Released models: a folder that a board fills from its kept runs, and the app on each of them."""

import re
from pathlib import Path

import pytest
from small_board import SmallBoard

import ad.play
from ad.cli import VERBS, exit_code
from ad.errors import ConfigError, CorruptError
from ad.exchange.release import load_release
from ad.interpret.app.requests import App
from ad.runtime.files import read_checked_json
from ad.runtime.run import Run


@pytest.fixture(scope="module")
def board(tmp_path_factory) -> SmallBoard:
    """A board whose runs are kept; tests only read it."""
    board = SmallBoard(tmp_path_factory.mktemp("kept"), seeds=[0])
    assert exit_code(VERBS["leaderboard"], [*board.words, "--keep", "true"]) == 0
    return board


@pytest.fixture(scope="module")
def models(board, tmp_path_factory) -> Path:
    """The folder of its models; only to be read."""
    folder = tmp_path_factory.mktemp("models")
    assert exit_code(VERBS["leaderboard"], [*board.words, "--release", str(folder)]) == 0
    return folder


@pytest.fixture
def opened(monkeypatch):
    """opened(model) returns the app that `play` serves."""
    served = []
    monkeypatch.setattr(ad.play, "serve_run", lambda *arguments: served.append(arguments))

    def play(model) -> App:
        assert exit_code(VERBS["play"], [str(model)]) == 0
        config, port, load = served.pop()
        assert port == 8000
        return App(Run(config), load())

    return play


def test_a_board_releases_the_kept_run_of_each_row(board, models):
    runs = {run.row: run.in_root(board.root).folder for run in board.runs}
    assert {path.name for path in models.iterdir()} == {
        *("README.md", "room-clone", "room-distillation")
    }
    for row, folder in runs.items():
        nauc = read_checked_json(folder / "results.json")["splits"]["held_out"]["nauc"]
        name = f"room-{row}"
        line = rf"\| \[{name}\]\({name}/\) \| room \| {row} \| .* \| {nauc:.3f} \| 0\.0\d \|"
        assert re.search(line, (models / "README.md").read_text())
        assert load_release(models / name).config.root == "."


def test_the_board_names_what_was_not_kept(board, models, tmp_path, capsys):
    others = [*board.words, "--root", str(tmp_path), "--release", str(tmp_path / "models")]
    assert exit_code(VERBS["leaderboard"], others) == 2
    assert "make them with --keep true" in capsys.readouterr().err
    assert not (tmp_path / "models").exists()


def test_the_app_plays_a_released_model_as_it_plays_the_trained_one(board, models, opened):
    config = next(run for run in board.runs if run.row == "distillation").in_root(board.root)
    views = []
    for app in (opened(models / "room-distillation"), App(Run(config))):
        [step] = app.answer("run", {})["checkpoints"][:1]
        token = app.answer("start", {"checkpoint": step, "task": 1, "seed": 2})["token"]
        for until in ("episode", "step"):
            app.answer("model", {"token": token, "until": until})
        views.append(app.answer("look", {"token": token}))
    assert step == 20 and views[0] == views[1] and views[0]["time"] == 1


def test_a_released_model_keeps_no_situations(models, opened):
    app = opened(models / "room-clone")
    token = app.answer("start", {})["token"]
    with pytest.raises(ConfigError, match="a released model has no run"):
        app.answer("save", {"token": token})
    with pytest.raises(ConfigError, match="there is no train step 3"):
        app.answer("start", {"checkpoint": 3})


def test_a_model_is_found_by_its_name_in_models(models, opened, monkeypatch, capsys):
    monkeypatch.setattr(ad.play, "MODELS", models)
    assert opened("room-clone").run.config.method.name == "behavior_cloning"
    assert exit_code(VERBS["play"], ["room-clon"]) == 2
    text = "there is no released model room-clon; did you mean room-clone?"
    assert text in capsys.readouterr().err


def test_a_damaged_release_is_not_played(models, tmp_path):
    for name in ("config.yaml", "SHA256SUMS"):
        (tmp_path / name).write_bytes((models / "room-clone" / name).read_bytes())
    with pytest.raises(CorruptError, match="is not what was written"):
        ad.play.play(tmp_path, 0)
