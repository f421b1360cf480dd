"""Findings: what analyses of models of several seeds say, from the file to the page."""

import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from processes import ROOT

from ad.cli import VERBS, exit_code
from ad.errors import ConfigError, CorruptError
from ad.interpret.labeled import LabeledArray
from ad.runtime.locks import locked, locked_files
from ad.runtime.run import Run
from ad.sweeps.findings.plan import Findings, load_findings
from ad.sweeps.findings.records import add_values, read_values, values_of
from ad.sweeps.findings.report import (
    check_table,
    findings_table,
    make_findings,
    missing_tables,
    write_findings,
)

FILE = """
page: PAGE
seeds: [0, 1]
models:
  small: {experiment: configs/smoke.yaml}
  wide: {experiment: configs/smoke.yaml, settings: {model.width: 32}}
tables:
  heads:
    models: [small]
    analysis: patching
    array: head
    interval: head_interval
    at: {change: no rewards}
    rows: head
    strongest: 2
  masses:
    models: [small]
    analysis: attention
    array: scores
    at: {relation: rewarded}
    rows: head
    rows_of: heads
  all:
    models: [small, wide]
    analysis: attention
    array: scores
    rows: relation
    columns: head
  by_seed:
    models: [wide]
    analysis: attention
    array: scores
    at: {head: "0.1"}
    rows: relation
"""
OVER_TRAINING = """
  learning:
    models: [wide]
    analysis: learning
    over_training: true
    array: gain
    interval: gain_interval
    rows: train steps
  strongest:
    models: [wide]
    analysis: attention
    array: scores
    at: {relation: rewarded}
    rows: head
    strongest: 1
  of_the_strongest:
    models: [wide]
    analysis: attention
    over_training: true
    array: scores
    at: {relation: rewarded}
    rows: train steps
    columns: head
    columns_of: strongest
"""
HEADS, RELATIONS = ["0.0", "0.1"], ["itself", "rewarded"]


def load(file: Path) -> Findings:
    return load_findings(file, file.with_suffix(".csv"))


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "findings.yaml"
    page = tmp_path / "page.md"
    path.write_text(FILE.replace("PAGE", str(page)))
    marks = "".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in load(path).tables)
    page.write_text(f"before\n{marks}after\n")
    return path


def results_of(head, scores) -> dict[str, LabeledArray]:
    """Arrays of two heads, as patching and attention return them."""
    head, scores = np.array([[0, 0], head], float), np.array(scores, float)
    axes = {"change": ["another task", "no rewards"], "head": HEADS}
    bounds = {"bound": ["low", "high"], **axes}
    return {
        "head": LabeledArray(head, axes, ""),
        "head_interval": LabeledArray(np.stack([head - 0.1, head + 0.1]), bounds, ""),
        "scores": LabeledArray(scores, {"head": HEADS, "relation": RELATIONS}, ""),
    }


def fill(findings: Findings, results: list[dict]) -> None:
    """Write the values of `results`, those of each seed of the model small."""
    for run, own in zip(findings.models["small"], results, strict=True):
        for name in findings.tables_of(run):
            add_values(findings.records, values_of(findings, name, run, own))


def cells(findings: Findings, name: str) -> list[list[str]]:
    return findings_table(findings, name, read_values(findings.records)).rows


def test_a_table_shows_the_strongest_rows_of_each_seed_and_another_follows_them(file):
    findings = load(file)
    fill(
        findings,
        [
            results_of([0.25, -0.5], [[0.1, 0.2], [0.3, 0.4]]),
            results_of([0.75, 0.0], [[0.5, 0.6], [0.7, 0.8]]),
        ],
    )
    assert cells(findings, "heads") == [
        ["small", "1", "0.1: -0.50 [-0.60, -0.40]", "0.0: 0.75 [0.65, 0.85]"],
        ["small", "2", "0.0: 0.25 [0.15, 0.35]", "0.1: 0.00 [-0.10, 0.10]"],
    ]
    assert cells(findings, "masses") == [
        ["small", "1", "0.1: 0.40", "0.0: 0.60"],
        ["small", "2", "0.0: 0.20", "0.1: 0.80"],
    ]


def test_an_unknown_value_is_not_among_the_strongest(file):
    findings = load(file)
    fill(findings, [results_of([np.nan, 0.5], [[0.1, 0.2], [0.3, 0.4]])] * 2)
    assert [row[1:3] for row in cells(findings, "heads")] == [["1", "0.1: 0.50 [0.40, 0.60]"]]
    assert [row[1:3] for row in cells(findings, "masses")] == [["1", "0.1: 0.40"]]


def test_an_interval_that_a_table_does_not_name_any_more_is_not_shown(file):
    fill(load(file), [results_of([0.0, 0.5], [[0.1, 0.2], [0.3, 0.4]])] * 2)
    file.write_text(file.read_text().replace("    interval: head_interval\n", ""))
    assert cells(load(file), "heads")[0][2:] == ["0.1: 0.50"] * 2


def test_columns_have_the_mean_over_the_seeds_and_its_interval(file):
    findings = load(file)
    fill(
        findings,
        [
            results_of([0, 0], [[0.1, 0.2], [0.3, 0.4]]),
            results_of([0, 0], [[0.3, 0.2], [0.3, np.nan]]),
        ],
    )
    table = findings_table(findings, "all", read_values(findings.records))
    assert table.header == ["model", "relation", *HEADS]
    assert table.rows == [
        ["small", "itself", "0.20 [-1.07, 1.47]", "0.30 [0.30, 0.30]"],
        ["small", "rewarded", "0.20 [0.20, 0.20]", "0.40"],
    ]


def test_only_the_rows_that_a_table_names_are_shown(file):
    file.write_text(
        file.read_text().replace("rows: relation\n", "rows: relation\n    only: [itself]\n")
    )
    findings = load(file)
    fill(findings, [results_of([0, 0], [[1, 2], [3, 4]])] * 2)
    assert [row[1] for row in cells(findings, "all")] == ["itself"]


def test_a_seed_that_is_missing_is_a_dash(file):
    findings = load(file)
    first, _ = findings.models["wide"]
    values = values_of(findings, "by_seed", first, results_of([0, 0], [[1, 2], [3, 4]]))
    add_values(findings.records, values)
    assert cells(findings, "by_seed") == [
        ["wide", "itself", "3.00", "–", "3.00"],
        ["wide", "rewarded", "4.00", "–", "4.00"],
    ]
    assert not cells(findings, "heads")


def test_values_are_kept_once_and_missing_tables_are_those_without(file):
    findings = load(file)
    run = findings.models["small"][0]
    assert missing_tables(findings, run) == ["heads", "masses", "all"]
    values = values_of(findings, "heads", run, results_of([0, 0], [[1, 2], [3, 4]]))
    for _ in range(2):
        add_values(findings.records, values)
    assert read_values(findings.records) == values
    assert missing_tables(findings, run) == ["masses", "all"]


def test_models_are_trained_analyzed_and_shown_on_the_page(file, tmp_path, capsys):
    findings = load(file)
    run = findings.models["wide"][1]
    make_findings(findings, [run], tmp_path)
    assert not missing_tables(findings, run) and not list((tmp_path / "logs").glob("wide*"))
    records = findings.records.read_bytes()
    make_findings(findings, [run], tmp_path)
    assert findings.records.read_bytes() == records
    write_findings(findings)
    page = findings.page.read_text()
    assert page.startswith("before") and page.endswith("after\n")
    assert "| wide | previous step | – |" in page and "| small |" not in page
    assert page.count("| wide | rewarded |") == 2


def test_a_launcher_is_asked_for_jobs_that_share_the_models(file, tmp_path, capsys):
    words = ["--file", str(file), "--records", str(file.with_suffix(".csv"))]
    words += ["--root", str(tmp_path / "root")]
    launch = ["--launcher", "local", "--launcher_settings", "{jobs: 2}"]
    page = load(file).page.read_text()
    assert exit_code(VERBS["findings"], [*words, *launch, "--dry", "true"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f"ad.cli findings {' '.join(words)} --runs true --shard 1/2")
    assert second == first.replace("1/2", "2/2")
    assert exit_code(VERBS["findings"], [*words, *launch, "--shard", "1/2"]) == 2
    assert "--shard is what --launcher gives to its jobs" in capsys.readouterr().err
    assert not (tmp_path / "root").exists() and load(file).page.read_text() == page


def test_without_missing_values_or_with_a_wrong_table_no_job_starts(file, monkeypatch, capsys):
    words = ["--file", str(file), "--records", str(file.with_suffix(".csv")), "--launcher", "local"]
    monkeypatch.setattr("ad.sweeps.launchers.launch.launch", lambda *_: pytest.fail("a job starts"))
    text = file.read_text()
    file.write_text(text.replace("array: head\n", "array: heads\n"))
    assert exit_code(VERBS["findings"], words) == 2
    assert "the analysis patching has no array 'heads'" in capsys.readouterr().err
    file.write_text(text[: text.index("  heads:")] + text[text.index("  by_seed:") :])
    findings = load(file)
    for run in findings.models["wide"]:
        own = results_of([0, 0], [[1, 2], [3, 4]])
        add_values(findings.records, values_of(findings, "by_seed", run, own))
    assert exit_code(VERBS["findings"], words) == 0
    assert "| wide | rewarded |" in findings.page.read_text()


@pytest.mark.slow
def test_jobs_of_a_launcher_share_the_seeds_and_make_the_values_of_one_process(
    file, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    text = file.read_text()
    file.write_text(text[: text.index("  heads:")] + text[text.index("  by_seed:") :])
    findings = load(file)
    make_findings(findings, findings.planned_runs(), tmp_path / "one")
    records, first = tmp_path / "jobs.csv", tmp_path / "first.csv"
    words = ["--file", str(file), "--root", str(tmp_path / "jobs"), "--records"]
    shard = ["--shard", "1/2", "--runs", "true"]
    assert exit_code(VERBS["findings"], [*words, str(first), *shard]) == 0
    assert {value.seed for value in read_values(first)} == {0}
    assert "| wide |" not in findings.page.read_text()
    launch = ["--launcher", "local", "--launcher_settings", "{jobs: 2}"]
    assert exit_code(VERBS["findings"], [*words, str(records), *launch]) == 0
    jobs, one = (set(map(repr, read_values(path))) for path in (records, findings.records))
    assert jobs == one and one
    assert "| wide | rewarded |" in findings.page.read_text()
    assert not list((tmp_path / "jobs" / "logs").iterdir())


def test_checkpoints_are_analyzed_and_the_strongest_head_is_followed_over_training(file, tmp_path):
    text = file.read_text().replace("{model.width: 32}", "{training.keep_every: 10}")
    file.write_text(text + OVER_TRAINING)
    findings = load(file)
    findings.page.write_text("".join(f"<!-- {n} -->\n<!-- /{n} -->\n" for n in findings.tables))
    run = findings.models["wide"][0]
    make_findings(findings, [run], tmp_path)
    learning = cells(findings, "learning")
    assert [row[1] for row in learning] == ["0", "10", "20"]
    for _, _, gain, *_ in learning:
        mean, low, high = map(float, re.findall(r"-?\d+\.\d+", gain))
        assert low <= mean <= high
    followed, (strongest,) = cells(findings, "of_the_strongest"), cells(findings, "strongest")
    assert [row[1] for row in followed] == ["0", "10", "20"]
    assert strongest[2].endswith(f": {followed[-1][2]}")
    write_findings(findings)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("analysis: patching", "analysis: patchin", "which is none; did you mean patching"),
        ("models: [small, wide]", "models: [smal]", "names the model 'smal', which is none"),
        ("    array: head\n", "", "heads must name an array"),
        ("rows_of: heads", "rows_of: all", "names rows_of 'all', which is no table with strongest"),
        ("rows_of: heads", "rows_of: none\n  none:", "names rows_of 'none', which is no table"),
        ("columns: head", "columns: head\n    strongest: 1", "all has columns"),
        ("columns: head", "columns: head\n    columns_of: all", "names columns_of 'all', which"),
        ("columns: head", "columns_of: heads", "all names columns_of, but no columns"),
        ("{model.width: 32}", "{training.train_seed: 1}", "must not set training.train_seed"),
        ("{experiment: configs/smoke.yaml}", "{}", "small must name an experiment"),
    ],
)
def test_a_mistake_in_the_file_is_a_sentence(file, old, new, sentence):
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ConfigError, match=sentence):
        load(file)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("array: head\n", "array: heads\n", "has no array 'heads'; did you mean"),
        ("{change: no rewards}", "{change: nothing}", "the axis 'change' has no label 'nothing'"),
        ("{change: no rewards}", "{chance: no rewards}", "at` leaves, change, head, not head"),
        ("interval: head_interval", "interval: head", "the array head is no interval of head"),
        ("strongest: 2", "strongest: 2\n    only: ['0.2']", r"the axis 'head' has no label '0\.2'"),
        (
            "rows: head\n    strongest",
            "rows: bound\n    strongest",
            "must be those that",
        ),
    ],
)
def test_an_array_that_does_not_fit_a_table_is_a_sentence(file, old, new, sentence):
    file.write_text(file.read_text().replace(old, new, 1))
    findings = load(file)
    run = findings.models["small"][0]
    with pytest.raises(ConfigError, match=sentence):
        values_of(findings, "heads", run, results_of([0, 0], [[1, 2], [3, 4]]))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("array: head\n", "array: heads\n", "table heads: .* no array 'heads'; did you mean"),
        ("head_interval", "head_intervals", "table heads: .* no array 'head_intervals'; did you"),
        ("{relation: rewarded}", "{relations: rewarded}", "table masses: .* axes head, relation:"),
        ("array: gain\n", "array: gains\n", "table learning: .* learning has no array 'gains'"),
        ("rows: train steps", "rows: steps", "table learning: .* has the axes train steps:"),
    ],
)
def test_a_table_that_an_analysis_does_not_have_is_refused_before_any_training(
    file, tmp_path, old, new, sentence
):
    file.write_text((file.read_text() + OVER_TRAINING).replace(old, new, 1))
    findings, root = load(file), tmp_path / "root"
    with pytest.raises(ConfigError, match=sentence):
        make_findings(findings, findings.planned_runs(), root)
    assert not root.exists()


def test_the_committed_tables_are_those_of_their_analyses():
    findings = load_findings(ROOT / "configs/interpret/findings.yaml", Path("none.csv"))
    for name in findings.tables:
        check_table(findings, name)


def test_a_model_that_another_process_makes_comes_last_and_is_made_once(
    file, tmp_path, monkeypatch
):
    findings, made = load(file), []
    first, second = findings.models["wide"]

    def train(configs):
        made.extend(configs)
        return map(Run, configs)

    def analyze(findings, run, trained, names):
        results = results_of([0, 0], [[1, 2], [3, 4]])
        return [value for name in names for value in values_of(findings, name, run, results)]

    monkeypatch.setattr("ad.sweeps.findings.report.collect_and_train", train)
    monkeypatch.setattr("ad.sweeps.findings.report._analyzed", analyze)
    arguments = findings, [first, second], tmp_path, True
    driver = threading.Thread(target=make_findings, args=arguments, daemon=True)
    with locked(tmp_path / "logs" / first.config.name):  # by another driver
        driver.start()
        while missing_tables(findings, second):
            assert driver.is_alive()
            time.sleep(0.01)
        with locked_files(findings.records.parent):
            names = missing_tables(findings, first)
            add_values(findings.records, analyze(findings, first, None, names))
    driver.join(60)
    assert not driver.is_alive()
    assert [config.name for config in made] == [second.config.name]


def test_records_that_are_cut_are_refused(file):
    findings = load(file)
    fill(findings, [results_of([0, 0], [[1, 2], [3, 4]])] * 2)
    text = findings.records.read_text()
    findings.records.write_text(text[: len(text) // 2])
    with pytest.raises(CorruptError, match="is not a whole file of findings"):
        read_values(findings.records)
