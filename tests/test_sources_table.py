"""The table of sources has every registered source, with what the classes and the worlds tell."""

from dataclasses import replace

import pytest

from ad.cli import VERBS, exit_code
from ad.registry import SOURCES
from ad.reporting import sources
from envs import make_base


@pytest.fixture
def rows(monkeypatch, tmp_path, capsys) -> dict[str, list[str]]:
    """The cells of each row by source, of tiny batches; the page has the table."""
    monkeypatch.setattr(sources, "NUM_TASKS", 2)
    monkeypatch.setattr(sources, "NUM_ENVS", 1)
    monkeypatch.setattr(sources, "SINGLE_TASKS", 1)
    short = {name: replace(about, steps=25) for name, about in sources.ABOUT.items()}
    monkeypatch.setattr(sources, "ABOUT", short)
    page = tmp_path / "page.md"
    page.write_text("<!-- table of sources -->\n<!-- /table of sources -->\n")
    assert exit_code(VERBS["sources"], ["--update", str(page)]) == 0
    text = capsys.readouterr().out
    assert text.strip() in page.read_text()
    lines = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return {name: cells for name, *cells in lines}


def test_the_table_has_every_source_with_what_it_is_told_and_where_it_runs(rows):
    assert rows.keys() == set(SOURCES)
    told, worlds = ({name: cells[i] for name, cells in rows.items()} for i in (1, 2))
    assert told["a2c"] == told["ppo"] == "nothing"
    assert (told["psrl"], told["noise_distillation"]) == ("family", "optimum")
    assert told["demonstrations"] == "–"
    assert worlds["stable_baselines3"] == "all"
    assert worlds["ppo"] == "all but HiddenObject, WaterMaze"
    assert worlds["ucb"] == "BernoulliBandit, GaussianBandit, OddEvenBandit"
    for *_, speed, ratio in rows.values():
        assert float(speed.replace(",", "")) > 0 and float(ratio) > 0


def test_a_source_that_cannot_run_is_not_timed(monkeypatch):
    monkeypatch.setattr(SOURCES.load("ppo"), "problem", lambda world, tasks: "needs a package")
    row = sources._row("ppo", {"DarkRoom-v0": make_base("DarkRoom-v0")})
    assert row[3:] == ["–", "DarkRoom-v0", "–", "–"]


def test_a_page_without_marks_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "page.md").write_text("nothing")
    assert exit_code(VERBS["sources"], ["--update", str(tmp_path / "page.md")]) == 2
    assert "has no lines <!-- table of sources -->" in capsys.readouterr().err
