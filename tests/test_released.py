"""Released models of a board: their folder, the app on each, and entries from outside."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from small_board import SmallBoard

import ad.entry
import ad.play
from ad.cli import VERBS, exit_code
from ad.entry import submit
from ad.entry_scores import evaluate_files
from ad.errors import ConfigError, CorruptError
from ad.exchange.foreign import SOURCE, WORLD, places
from ad.exchange.release import EVALUATED, load_release, write_sums
from ad.interpret.app.requests import App
from ad.runtime.files import read_checked_json
from ad.runtime.run import Run
from ad.sweeps.load import load_sweep
from ad.sweeps.pages import sweep_page
from ad.sweeps.records import read_records
from ad.sweeps.results import entry_title, sweep_results
from ad.sweeps.tables import short_table


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


def test_the_code_of_a_strangers_world_runs_only_if_it_is_trusted(models, tmp_path, monkeypatch):
    folder, ran, served = tmp_path / "model", tmp_path / "ran", []
    shutil.copytree(models / "room-clone", folder)
    code = f"open({str(ran)!r}, 'w')\nfrom envs.grid.dark_room import DarkRoom\n"
    (folder / "room.py").write_text(code)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["env"]["id"] = f"{folder}/room.py:DarkRoom"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    write_sums(folder, EVALUATED)
    monkeypatch.setattr(ad.play, "serve_run", lambda *arguments: served.append(arguments))
    with pytest.raises(ConfigError, match="DarkRoom', whose code would run"):
        ad.play.play(folder, 0)
    assert not ran.exists() and not served
    ad.play.play(folder, 0, trust_code=True)
    assert ran.exists() and served


def test_a_text_that_an_import_would_run_is_found():
    env = [{"id": "/a b/x.py:Y"}, {"id": "evil:3x-v0"}, {"kwargs": {"minigrid_id": "evil:n/x"}}]
    for data in (*({"env": own} for own in env), {"method": {"name": "/a b/m.py:M"}}):
        assert len(places(data)) == 1
    source = {"algorithm": SOURCE, "settings": {"place": "hf:me/data"}}
    assert not places({"env": {"id": WORLD}, "source": source, "device": "cuda:0"})


def test_a_verified_entry_is_a_row_below_those_of_its_board(board, tmp_path, monkeypatch, capsys):
    evaluated = []
    monkeypatch.setattr(
        ad.entry,
        "call_isolated",
        lambda name, own, s: evaluated.append(name) or evaluate_files(**own),
    )
    run = Run(next(run for run in board.runs if run.row == "clone").in_root(board.root))
    entry = submit(run)
    plan = yaml.safe_load(board.plan.read_text()) | {"facts": ["knows"]}

    def verify(**changes) -> int:
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan | changes, sort_keys=False))
        words = [str(entry), "--file", str(tmp_path / "plan.yaml")]
        return exit_code(VERBS["verify_entry"], words)

    assert verify() == 2 and "names no file of entries" in capsys.readouterr().err
    assert verify(entries="outside.jsonl", seeds=[7], paired=True) == 2
    assert "no run of the board plan has the world, the split and" in capsys.readouterr().err
    assert not (tmp_path / "outside.jsonl").exists() and not evaluated
    for _ in range(2):  # the second time in place of the first
        assert verify(entries="outside.jsonl") == 0
    [record] = read_records(tmp_path / "outside.jsonl").values()
    own = read_checked_json(run.folder / "results.json")["splits"]["held_out"]
    assert record.values[""]["scores"]["nauc"] == pytest.approx(own["nauc"], abs=1e-5)
    assert (record.group, record.row, record.split_seed) == ("room", run.config.name, 0)

    results = sweep_results(load_sweep(tmp_path / "plan.yaml"), read_records(board.records))
    title, nauc = f"entry: {run.config.name}", own["nauc"]
    page = sweep_page(results).markdown()
    assert f"| {title} | not verified | – | {nauc:.3f} |" in page  # of all groups
    assert f"| {title} | not verified | {nauc:.3f} | – | 1 |" in page  # of its group
    assert "what they were trained on" in page and ("room", title) not in results.comparisons
    assert short_table(results).rows[-1] == [title, "not verified", f"{100 * nauc:.1f} (1)"]
    program = replace(record, made_with=record.made_with | {"program": True})
    assert entry_title(program) == f"entry, unverified code: {run.config.name}"
