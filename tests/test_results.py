"""The published tables: their rows and runs, and what is said of their records."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ad.config.parser import load_file
from ad.config.schema import diff
from ad.config.world import configured_split
from ad.errors import ConfigError
from ad.runtime.files import read_marked
from ad.sweeps.records import (
    COLUMNS,
    TEXT,
    add_records,
    read_calibration,
    read_records,
    world_key,
)
from ad.sweeps.results import load_results
from ad.sweeps.results_report import results_table, write_tables
from ad.sweeps.runs import run_missing
from envs.tasks import PUBLISHED_SEEDS

ROOT = Path(__file__).parents[1]
FILE = """
splits: [0, 1]
seeds: [0, 1, 2]
tables:
  first:
    compared_with: plain
    rows:
      plain: {experiment: configs/smoke.yaml}
      noisy: {experiment: configs/smoke.yaml, settings: {source.algorithm: noise_distillation}}
  second:
    rows:
      larger:
        experiment: configs/smoke.yaml
        settings: {model.encoder: offsets, evaluation.worlds: [{size: 4}]}
        splits: [3]
        seeds: [5]
"""


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "records" / "results.yaml"
    path.parent.mkdir()
    path.write_text(FILE)
    return path


def fill(path: Path, runs, naucs, world: str = "") -> None:
    """Write records of `runs` with these values of NAUC."""
    for run, nauc in zip(runs, naucs, strict=True):
        record = dict.fromkeys(COLUMNS) | dict.fromkeys(TEXT, "x")
        record |= {"key": world_key(run.key, world), "changed": run.changed, "world": world}
        record |= {"split_seed": run.config.split.split_seed, "source_seed": 0, "nauc": nauc}
        add_records(path, [record | {"train_seed": run.config.training.train_seed}])


def rows_of(results, number: int = 0) -> dict[str, dict[str, str]]:
    """Return the rows of a table by their titles, each by the headings of its columns."""
    table = results_table(results.tables[number], read_records(results.records))
    titles = [re.sub(r"\[(.*)\]\(.*?\)", r"\1", row[0]) for row in table.rows]
    cells = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    return dict(zip(titles, cells, strict=True))


def test_a_row_has_a_run_for_each_split_and_seed(file):
    results = load_results(file)
    plain, noisy = results.tables[0].rows
    seeds = [(run.config.split.split_seed, run.config.training.train_seed) for run in plain.runs]
    assert sorted(seeds) == [(split, seed) for split in (0, 1) for seed in (0, 1, 2)]
    assert all(
        run.config.source.source_seed == run.config.training.train_seed for run in noisy.runs
    )
    (larger,) = results.tables[1].rows[0].runs
    assert (larger.config.split.split_seed, larger.config.training.train_seed) == (3, 5)
    runs = results.planned_runs()
    assert len({run.key for run in runs}) == len({run.config.name for run in runs}) == 13
    assert [run.changed for run in runs[:3]] == ["plain", "noisy", "larger"]  # a first answer soon


def test_rows_are_chosen_by_their_titles(file):
    results = load_results(file)
    assert {run.changed for run in results.planned_runs(["noisy", "larger"])} == {"noisy", "larger"}
    with pytest.raises(ConfigError, match=r"'noise' is not a row of .*did you mean noisy"):
        results.planned_runs(["noise"])


def test_an_experiment_of_two_rows_is_made_once(file):
    file.write_text(FILE.replace(", settings: {source.algorithm: noise_distillation}", ""))
    results = load_results(file)
    assert len(results.planned_runs()) == 7


def test_titles_that_differ_in_punctuation_have_runs_of_different_names(file):
    text = FILE.replace("plain:", "x y:").replace("noisy:", "x-y:").replace(": plain", ": x y")
    file.write_text(text)
    runs = load_results(file).planned_runs()
    assert len({run.config.name for run in runs}) == len(runs) == 13


def test_the_interval_is_that_of_the_split_means(file):
    results = load_results(file)
    plain, _ = results.tables[0].rows
    # Split means 0.5 and 0.7: half = t(0.975, 1) * sd / sqrt(2) = 12.7062 * 0.141421 / 1.414214
    by_split = {0: [0.4, 0.5, 0.6], 1: [0.7, 0.7, 0.7]}
    naucs = [by_split[r.config.split.split_seed][r.config.training.train_seed] for r in plain.runs]
    fill(results.records, plain.runs, naucs)
    row = rows_of(results)["plain"]
    assert row["NAUC"] == "0.600 [-0.671, 1.871]" and row["runs"] == "6"


def test_rows_are_compared_by_the_differences_of_their_split_means(file):
    results = load_results(file)
    plain, noisy = results.tables[0].rows
    fill(results.records, plain.runs, [0.5] * 6)
    fill(results.records, noisy.runs, [0.6 + 0.02 * r.config.split.split_seed for r in noisy.runs])
    # Differences 0.10 and 0.12: deviation 0.0141421, error 0.01, t(0.975, 1) = 12.7062
    rows = rows_of(results)
    assert rows["noisy"]["NAUC minus that of plain"] == "+0.110 [-0.017, +0.237], p 0.058"
    assert rows["plain"]["NAUC minus that of plain"] == "–"


def test_missing_runs_are_counted_and_a_row_without_records_is_left_out(file):
    results = load_results(file)
    fill(results.records, results.tables[0].rows[0].runs[:1], [0.5])
    rows = rows_of(results)
    assert list(rows) == ["plain"] and rows["plain"]["runs"] == "1 of 6"
    assert rows["plain"]["NAUC"] == "0.500"  # one split has no interval


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("configs/smoke.yaml}", "configs/smoky.yaml}", r"results\.yaml: plain: .*smoky"),
        ("compared_with: plain", "compared_with: plane", "is none of its rows"),
        ("settings: {source.algorithm", "setting: {source.algorithm", "noisy: setting"),
        ("model.encoder: offsets", "model.encoder: offset", "larger: .*offset"),
        ("seeds: [0, 1, 2]", "seeds: []", r"seeds must be whole numbers from 0 on, each once"),
        ("splits: [0, 1]", "splits: [0, 0]", r"splits must be whole numbers from 0 on, each once"),
        ("larger:", "plain:", "plain must be the title of one row"),
        ("plain: {experiment: configs/smoke.yaml}", "plain: {}", "plain must name an experiment"),
        ("model.encoder: offsets", "split.split_seed: 5", r"must not set split\.split_seed"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(file, old, new, sentence):
    file.write_text(FILE.replace(old, new, 1))
    with pytest.raises(ConfigError, match=sentence):
        load_results(file)


def test_runs_are_made_once_with_a_record_for_each_world_and_fill_their_page(file, tmp_path):
    results = load_results(file)
    run_missing(results.records, results.tables[1].rows[0].runs, tmp_path / "runs")
    before = results.records.read_bytes()
    run_missing(results.records, results.tables[1].rows[0].runs, tmp_path / "runs")
    assert results.records.read_bytes() == before
    own, other = sorted(read_records(results.records).values(), key=lambda r: r["world"])
    assert (own["world"], other["world"]) == ("", "size 4")
    assert own["num_tasks"] != other["num_tasks"] and np.isfinite(other["ceiling_nauc"])
    page = tmp_path / "page.md"
    names = [table.name for table in results.tables]
    page.write_text("".join(f"<!-- {name} -->\n<!-- /{name} -->\n" for name in names))
    read_marked(page, names)
    write_tables(results, page)
    text = page.read_text()
    assert re.search(r"\[larger\]\(.*configs/smoke.yaml\), size 4 \|", text)
    assert "<!-- first -->\n<!-- /first -->" in text  # which has no records
    page.write_text(text.replace("<!-- /second -->", ""))
    with pytest.raises(ConfigError, match="has no lines <!-- second -->"):
        read_marked(page, names)


def test_a_table_may_name_its_columns(file):
    named = "  first:\n    columns: [held_out_accuracy, nauc]"
    file.write_text(file.read_text().replace("  first:", named, 1))
    results = load_results(file)
    fill(results.records, results.tables[0].rows[0].runs[:2], [0.5, 0.7])
    row = rows_of(results)["plain"]
    assert list(row)[2:4] == ["accuracy, held-out actors", "NAUC"]
    file.write_text(file.read_text().replace("held_out_accuracy", "held_out_acuracy"))
    with pytest.raises(ConfigError, match="first has no column held_out_acuracy; did you mean"):
        load_results(file)
    file.write_text(FILE.replace("  first:", "  first:\n    calibration: true", 1))
    with pytest.raises(ConfigError, match="first is a calibration, which has no columns"):
        load_results(file)


def test_a_table_of_calibrations_has_the_achieved_return_for_each_asked_one(file):
    text = file.read_text().replace("  first:", "  first:\n    calibration: true", 1)
    method = "method.name: decision_transformer, model.tokenizer: conditioned"
    settings = f"{{{method}, evaluation.calibration: [0, 1]}}"
    text = text.replace("    compared_with: plain\n", "")
    text = text.replace(
        "plain: {experiment: configs/smoke.yaml",
        f"plain: {{settings: {settings}, experiment: configs/smoke.yaml",
    )
    file.write_text(text)
    results = load_results(file)
    assert results.tables[0].calibration
    plain = results.tables[0].rows[0]
    fill(results.records, plain.runs[:2], [None, None])
    records = list(read_records(results.records).values())
    for number, record in enumerate(records):
        record |= {"calibration_sample": f"0:0.{number}5 1:0.75", "calibration_greedy": "0:1 1:1"}
    add_records(results.records, records)
    table = results_table(results.tables[0], read_records(results.records))
    assert table.header[1:] == [
        "actions",
        "return of the source, last 10",
        "asked 0",
        "asked 1",
        "runs",
    ]
    sampled, greedy = table.rows
    assert (
        sampled[1] == "sampled"
        and sampled[3].startswith("0.100 [")
        and sampled[4].startswith("0.750")
    )
    assert greedy[1] == "greedy" and greedy[3].startswith("1.000") and greedy[-1] == "2 of 6"


def test_a_record_has_what_a_run_of_a_decision_transformer_tells(file, tmp_path):
    method = "method.name: decision_transformer, model.tokenizer: conditioned"
    settings = f"{{{method}, evaluation.calibration: [0, 1], data.context_length: 4}}"
    file.write_text(
        FILE.replace("{model.encoder: offsets, evaluation.worlds: [{size: 4}]}", settings)
    )
    results = load_results(file)
    run_missing(results.records, results.tables[1].rows[0].runs, tmp_path / "runs")
    (record,) = read_records(results.records).values()
    assert 0 <= record["source_return"] <= 1 and 0 < record["held_out_accuracy"] < 1
    assert 0 < record["random_return"] < 1
    for action in ("sample", "greedy"):
        achieved = read_calibration(record, action)
        assert list(achieved) == [0, 1] and all(0 <= value <= 1 for value in achieved.values())


def test_the_published_rows_use_the_published_seeds_alone():
    results = load_results(ROOT / "configs" / "records" / "results.yaml")
    for run in results.planned_runs():
        seeds = run.config.split.split_seed, run.config.source.source_seed
        assert {*seeds, run.config.training.train_seed} <= {*PUBLISHED_SEEDS}
        assert not run.config.split.tuning
    quickstart = load_file(ROOT / "configs" / "quickstart.yaml")
    assert not diff(quickstart, results.tables[0].rows[0].runs[0].config)


def test_no_published_row_is_scored_on_a_task_of_the_tuning_split():
    for run in load_results(ROOT / "configs" / "records" / "results.yaml").planned_runs():
        config = run.config
        tuning = replace(config.split, tuning=True, held_out=None)
        held_out = configured_split(config.env, tuning).held_out_tasks.tolist()
        published = configured_split(config.env, config.split).held_out_tasks.tolist()
        assert held_out and not [task for task in held_out if task in published]
