"""The table of runs is made from the results on the disk and put where the README wants it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from processes import ROOT
from small_run import evaluated_run

from ad.errors import ConfigError
from ad.reporting.report import report
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
    print_table(root, [], None)
    first = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert first[:3] == ["seed-0", "seed-1", "**mean of 2 runs**"]


def test_the_table_takes_the_place_between_the_marks(root):
    page = root / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    print_table(root, ["seed-1"], page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n")
    assert "seed-1" in text and "old" not in text and "seed-0" not in text


def test_a_page_may_have_several_tables(root):
    page = root / "page.md"
    page.write_text("".join(f"<!-- {mark} -->\n<!-- /{mark} -->\n" for mark in ("results", "b")))
    print_table(root, ["seed-1"], page)
    print_table(root, ["seed-0"], page, "b")
    first, second = page.read_text().split("<!-- /results -->")
    assert "seed-1" in first and "seed-0" in second and "seed-1" not in second


@pytest.mark.parametrize(("names", "page"), [(["none"], None), ([], "no marks")])
def test_what_is_not_there_gets_a_sentence(root, names, page):
    path = Path(root / "page.md")
    path.write_text(page or "")
    with pytest.raises(ConfigError):
        print_table(root, names, path)


def test_a_run_without_results_is_marked_and_does_not_count(root, capsys):
    (root / "logs/seed-1/results.json").unlink()
    print_table(root, [], None)
    cells = rows(capsys.readouterr().out)
    assert cells["seed-1"][0] == "not evaluated"
    assert not any(name.startswith("**mean") for name in cells)


def test_a_run_whose_class_file_is_gone_does_not_hide_the_others(root, capsys):
    config = root / "logs/seed-1/config.yaml"
    config.write_text(re.sub("algorithm: .*", "algorithm: gone.py:Gone", config.read_text()))
    print_table(root, [], None)
    said = capsys.readouterr()
    assert rows(said.out)["seed-1"][0] == "its settings cannot be read"
    assert rows(said.out)["seed-0"][0] != "–" and "gone.py" in said.err


@pytest.mark.parametrize(
    ("content", "mark"),
    [
        ("{", "results.json is damaged"),
        ("{}", "results.json is damaged"),
        ('{"config_hash": "x"}', "results of other settings"),
    ],
)
def test_results_that_are_not_those_of_the_run_are_marked(root, capsys, content, mark):
    (root / "logs/seed-0/results.json").write_text(content)
    print_table(root, ["seed-0", "seed-1"], None)
    assert rows(capsys.readouterr().out)["seed-0"][0] == mark


def test_no_cell_of_a_table_of_equal_runs_is_nan(root, capsys):
    results = json.loads((root / "logs/seed-0/results.json").read_text())
    twin = root / "logs/seed-1/results.json"
    config_hash = json.loads(twin.read_text())["config_hash"]
    twin.write_text(json.dumps(results | {"config_hash": config_hash}))
    print_table(root, [], None)
    text = capsys.readouterr().out
    assert "nan" not in text.lower() and "inf" not in text.lower()
    assert rows(text)["**mean of 2 runs**"][1].count(rows(text)["seed-0"][1].split()[0]) == 3


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("nowhere/README.md", "No such file or directory"),
        (".", "Is a directory"),
        ("picture", "is not a text file"),
    ],
)
def test_a_file_that_cannot_take_the_table_is_a_sentence(root, tmp_path, target, sentence):
    (tmp_path / "picture").write_bytes(b"\x89PNG\xff\xfe")
    command = [sys.executable, "-m", "scripts.table", "--root", str(root)]
    command += ["--update", str(tmp_path / target)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (2, 3)
    assert done.stderr.count("\n") == 1 and sentence in done.stderr


def test_a_table_that_nobody_reads_is_a_warning(root):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "scripts.table", "--root", str(root)]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: stdout cannot be written")
