"""The table of sources has every registered source, with what the classes and the worlds tell."""

from dataclasses import replace
from pathlib import Path

import pytest

from ad.cli import VERBS, exit_code
from ad.registry import SOURCES
from ad.reporting import sources

ROOT = Path(__file__).parent.parent


@pytest.fixture
def rows(monkeypatch, tmp_path, capsys) -> dict[str, list[str]]:
    """The cells of each row by source, of tiny batches; the page has the table."""
    monkeypatch.setattr(sources, "NUM_TASKS", 2)
    monkeypatch.setattr(sources, "NUM_ENVS", 1)
    monkeypatch.setattr(sources, "SINGLE_TASKS", 1)
    short = {name: replace(timed, steps=25) for name, timed in sources.TIMED.items()}
    monkeypatch.setattr(sources, "TIMED", short)
    monkeypatch.setattr(sources, "DEFAULT", replace(sources.DEFAULT, steps=25))
    page = tmp_path / "page.md"
    page.write_text("<!-- table of sources -->\n<!-- /table of sources -->\n")
    assert exit_code(VERBS["sources"], ["--update", str(page)]) == 0
    text = capsys.readouterr().out
    assert text.strip() in page.read_text()
    return cells_by_source(text)


def cells_by_source(table: str) -> dict[str, list[str]]:
    """Return the cells of each row of a table in Markdown by its first one."""
    lines = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {name: cells for name, *cells in lines}


def test_the_page_of_the_sources_has_the_table_but_for_its_times(monkeypatch):
    monkeypatch.setattr(sources, "_speed", lambda name, timed: ["", ""])
    page = (ROOT / "ad" / "sources" / "README.md").read_text()
    published = cells_by_source(page.split("table of sources -->")[1].strip())
    for name, *cells in sources.sources_table().rows:
        assert published[name][:4] == cells[:4]


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


def test_a_source_that_names_no_paper_has_a_row(monkeypatch):
    name = f"{ROOT}/tests/components.py:Uniform"
    monkeypatch.setattr(SOURCES.load(name), "privileged_info", "nothing")
    monkeypatch.setattr(sources, "_speed", lambda name, timed: [timed.world, str(timed.steps)])
    row = sources._row(name, ["DarkRoom-v0"])
    assert row[1:] == ["–", "nothing", "all", "DarkRoom-v0", "DarkRoom-v0", "200"]


def test_a_source_that_cannot_run_is_not_timed(monkeypatch):
    monkeypatch.setattr(sources, "fits", lambda name, env, world: False)
    row = sources._row("ppo", ["DarkRoom-v0"])
    assert row[3:] == ["–", "DarkRoom-v0", "–", "–"]


def test_a_page_without_marks_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "page.md").write_text("nothing")
    assert exit_code(VERBS["sources"], ["--update", str(tmp_path / "page.md")]) == 2
    assert "has no lines <!-- table of sources -->" in capsys.readouterr().err
