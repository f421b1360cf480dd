"""The table of runs is made from the results on the disk and put where the README wants it."""

from pathlib import Path

import pytest
from small_run import evaluated_run

from ad.errors import ConfigError
from ad.report import report
from scripts import table


@pytest.fixture
def root(smoke, tmp_path):
    for seed in ("0", "1"):
        words = ("--name", f"seed-{seed}", "--training.train_seed", seed)
        report(evaluated_run(smoke(tmp_path, *words)))
    return tmp_path


def test_runs_that_differ_in_seeds_share_a_mean(root, capsys):
    table.main(root, [], None)
    first = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert first[:3] == ["seed-0", "seed-1", "**mean of 2 runs**"]


def test_the_table_takes_the_place_between_the_marks(root):
    page = root / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.main(root, ["seed-1"], page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "seed-1" in text and "old" not in text and "seed-0" not in text


@pytest.mark.parametrize(("names", "page"), [(["none"], None), ([], "no marks")])
def test_what_is_not_there_gets_a_sentence(root, names, page):
    path = Path(root / "page.md")
    path.write_text(page or "")
    with pytest.raises(ConfigError):
        table.main(root, names, path)
