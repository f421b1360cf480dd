"""The table of worlds has every world and preset, with facts that the worlds tell."""

from pathlib import Path

import envs
from ad.cli import VERBS, exit_code
from ad.reporting import worlds
from envs.presets import PRESETS

ROOT = Path(__file__).parent.parent


def test_the_table_has_every_world_and_preset(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(worlds, "MOST_TASKS", 4)
    monkeypatch.setattr(worlds, "EPISODES", 2)
    monkeypatch.setattr(worlds, "SECONDS", 0.0)
    monkeypatch.setattr("envs.grid.explorer.MAX_CELLS", 100)  # which larger rooms exceed
    page = tmp_path / "page.md"
    page.write_text("<!-- table of worlds -->\n<!-- /table of worlds -->\n")
    assert exit_code(VERBS["worlds"], ["--update", str(page)]) == 0
    text = capsys.readouterr().out
    rows = {row.split(" | ")[0].strip("| "): row for row in text.splitlines()[2:]}
    assert rows.keys() == {*envs.REGISTRY, *PRESETS} - {
        "DarkRoomPermuted-v0",  # worlds whose only settings of interest are those of a preset
        "DarkRoomSequences-v0",
    }
    assert "| 81 | 1 of 81 | 5 | 20 |" in rows["DarkRoom-9x9-Dense-v1"]
    assert text.strip() in page.read_text()


def test_the_page_of_the_worlds_has_the_table_but_for_returns_and_speeds(monkeypatch):
    monkeypatch.setattr(worlds, "_mean", lambda fact, count: "")
    monkeypatch.setattr(worlds, "_searcher", lambda world, tasks, length: "")
    monkeypatch.setattr(worlds, "_steps_per_second", lambda name, length: 0)
    monkeypatch.setattr(worlds, "MOST_TASKS", 4)
    page = (ROOT / "envs" / "README.md").read_text().split("table of worlds -->")[1]
    published = [line.strip("| ").split(" | ") for line in page.strip().splitlines()[2:-2]]
    made = worlds.worlds_table().rows
    assert [row[:7] + row[-1:] for row in published] == [row[:7] + row[-1:] for row in made]


def test_a_page_without_marks_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "page.md").write_text("nothing")
    assert exit_code(VERBS["worlds"], ["--update", str(tmp_path / "page.md")]) == 2
    assert "has no lines <!-- table of worlds -->" in capsys.readouterr().err
