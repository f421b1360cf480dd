"""The table of runs is made from the results on the disk."""

import json
import re
import shutil
from pathlib import Path

import pytest
from small_run import evaluated_run

from ad.errors import ConfigError
from ad.reporting.report import report
from ad.runtime.files import read_checked_json, write_checked_json
from ad.sweeps.results_table import print_table


@pytest.fixture(scope="module")
def made(smoke, tmp_path_factory) -> Path:
    """A folder of two evaluated runs that differ in a seed; only to be read."""
    root = tmp_path_factory.mktemp("table")
    for seed in ("0", "1"):
        words = ("--name", f"seed-{seed}", "--training.train_seed", seed)
        report(evaluated_run(smoke(root, *words)))
    return root


@pytest.fixture
def root(made, tmp_path) -> Path:
    """A copy of it."""
    return shutil.copytree(made, tmp_path / "root")


def rows(text: str) -> dict[str, list[str]]:
    """The cells of each row of a Markdown table, by its first cell."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]
    return {line[0]: line[1:] for line in lines}


def test_runs_that_differ_in_seeds_share_a_mean(root, capsys):
    print_table(root, [])
    first = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert first[:3] == ["seed-0", "seed-1", "**mean of 2 runs**"]


def test_a_run_under_two_names_counts_once_and_unknown_scores_are_said(root, capsys):
    shutil.copytree(root / "logs/seed-1", root / "logs/again")
    for name, first in (("seed-0", None), ("seed-1", 3), ("again", 3)):
        path = root / f"logs/{name}/results.json"
        results = read_checked_json(path)
        results["splits"]["held_out"] |= {"episodes_to_80pct": first}
        write_checked_json(path, results)
    print_table(root, [])
    mean = rows(capsys.readouterr().out)["**mean of 2 runs**"]
    assert [cell for cell in mean if cell.endswith(" (1 of 2)")] == ["3 (1 of 2)"]


def test_a_run_that_does_not_exist_is_refused(root):
    with pytest.raises(ConfigError, match="none"):
        print_table(root, ["none"])


def test_a_run_without_results_is_marked_and_does_not_count(root, capsys):
    (root / "logs/seed-1/results.json").unlink()
    print_table(root, [])
    cells = rows(capsys.readouterr().out)
    assert cells["seed-1"][0] == "not evaluated"
    assert not any(name.startswith("**mean") for name in cells)


def test_a_run_whose_class_file_is_gone_does_not_hide_the_others(root, capsys):
    config = root / "logs/seed-1/config.yaml"
    config.write_text(re.sub("algorithm: .*", "algorithm: gone.py:Gone", config.read_text()))
    print_table(root, [])
    said = capsys.readouterr()
    assert rows(said.out)["seed-1"][0] == "its settings cannot be read"
    assert rows(said.out)["seed-0"][0] != "–" and "gone.py" in said.err


@pytest.mark.parametrize(
    ("content", "mark"),
    [
        ("{", "results.json is damaged"),
        ("{}", "results.json is damaged"),
        ('{"config_hash": "x"}', "results.json is damaged"),
        ({"config_hash": "x"}, "results of other settings"),
    ],
)
def test_results_that_are_not_those_of_the_run_are_marked(root, capsys, content, mark):
    path = root / "logs/seed-0/results.json"
    path.write_text(content) if isinstance(content, str) else write_checked_json(path, content)
    print_table(root, ["seed-0", "seed-1"])
    assert rows(capsys.readouterr().out)["seed-0"][0] == mark


def test_no_cell_of_a_table_of_equal_runs_is_nan(root, capsys):
    results = read_checked_json(root / "logs/seed-0/results.json")
    twin = root / "logs/seed-1/results.json"
    config_hash = json.loads(twin.read_text())["config_hash"]
    write_checked_json(twin, results | {"config_hash": config_hash})
    print_table(root, [])
    text = capsys.readouterr().out
    assert "nan" not in text.lower() and "inf" not in text.lower()
    assert rows(text)["**mean of 2 runs**"][1].count(rows(text)["seed-0"][1].split()[0]) == 3
