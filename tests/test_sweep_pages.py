"""The pages of sweeps, from made-up records: estimates, comparisons, references, choices."""

import math
import re
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sweeps import page_of, records_of, results_of, write_sweep
from test_sweep_plan import BOARD, STUDY, TABLES, changed

from ad.runtime.run import world_title
from ad.sweeps import tables
from ad.sweeps.load import load_sweep
from ad.sweeps.pages import write_page
from ad.sweeps.records import add_records, new_record
from ad.sweeps.results import references, sweep_results
from ad.sweeps.run import new_measure

LEADERS = {
    **BOARD,
    "baseline": "distillation",
    "scores": ["share_of_optimum_last10", "normalized_return_last10", "nauc"],
    "means": ["at_10"],
    "facts": ["transitions"],
}


def rows_of(results, group: str) -> dict[str, dict[str, str]]:
    """Return the rows of a group's table by title, each by the headings of its columns."""
    table = tables.group_table(results, group, Path())
    titles = [re.sub(r"[*]*\[?([^\]*]*)\]?(\(.*?\))?[*]*", r"\1", row[0]) for row in table.rows]
    cells = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    return dict(zip(titles, cells, strict=True))


def test_the_interval_is_that_of_the_split_means(tmp_path):
    sweep = write_sweep(tmp_path, TABLES)
    by_split = {0: [0.4, 0.5, 0.6], 1: [0.7, 0.7, 0.7]}
    seeds = [(r.config.split.split_seed, r.config.training.train_seed) for r in sweep.cells[0].runs]
    results = results_of(sweep, {"plain": [by_split[split][seed] for split, seed in seeds]})
    row = rows_of(results, "first")["plain"]
    # Split means 0.5 and 0.7: half = t(0.975, 1) * sd / sqrt(2) = 12.7062 * 0.141421 / 1.414214
    assert row["NAUC"] == "0.600 [-0.671, 1.000]" and row["runs"] == "6"  # NAUC is at most 1


def test_rows_are_compared_by_the_differences_of_their_split_means(tmp_path):
    sweep = write_sweep(tmp_path, TABLES)
    noisy = [0.6 + 0.02 * run.config.split.split_seed for run in sweep.cells[1].runs]
    rows = rows_of(results_of(sweep, {"plain": [0.5] * 6, "noisy": noisy}), "first")
    # Differences 0.10 and 0.12: deviation 0.0141421, error 0.01, t(0.975, 1) = 12.7062
    assert rows["noisy"]["NAUC minus that of plain"] == "+0.110 [-0.017, +0.237], p 0.058"
    assert rows["plain"]["NAUC minus that of plain"] == "–"


def test_the_pooled_deviation_makes_intervals_and_comparisons(tmp_path):
    sweep = write_sweep(
        tmp_path, {**STUDY, "seeds": [0, 1, 2], "scores": ["nauc", "first_success"]}
    )
    results = results_of(
        sweep,
        {"table": [0.2, 0.4, 0.6], "factored": [0.9, 0.9, 0.9]},
        scores={"first_success": 5.0},
    )
    rows = rows_of(results, "encoder")
    # s = sqrt((0.08 + 0) / 4) = 0.14142, t(0.975, 4) = 2.77645, half = t s / sqrt(3) = 0.22669
    assert [row["NAUC"] for row in rows.values()] == [
        "0.400 [0.173, 0.627]",
        "0.900 [0.673, 1.000]",
    ]
    assert rows["table"]["first success, episode"] == "5.0 [5.0, 5.0]"
    # half = t s sqrt(2 / 3) = 0.32060, p of t = 0.5 / 0.11547 = 4.33013 with 4 degrees of freedom
    against = [row["NAUC minus that of factored"] for row in rows.values()]
    assert against == ["-0.500 [-0.821, -0.179], p 0.012", "–"]
    text = " ".join(page_of(sweep, records_of(sweep, {})).split())
    assert "standard deviation of NAUC" not in text  # nothing to pool


def test_each_experiment_is_pooled_once_and_p_values_are_corrected_together(tmp_path):
    sweep = write_sweep(tmp_path, STUDY)  # factored is also temperature 1
    own = {"table": [0.1, 0.2], "factored": [0.5, 0.7], "1": [0.5, 0.7]}
    alone = results_of(sweep, own)
    assert math.isclose(alone.deviation.value, math.sqrt((0.01 + 0.04) / 2 / 2), rel_tol=1e-6)
    both = results_of(sweep, own | {"2": [0.61]})
    single, several = (r.comparisons["encoder", "table"] for r in (alone, both))
    assert (single.difference, single.p * 2) == (several.difference, pytest.approx(several.p))
    assert both.comparisons["temperature", "2"].p > several.p


def test_a_whole_page_has_the_texts_tables_and_numbers_of_the_sweep(tmp_path):
    groups = STUDY["groups"]["encoder"] | {"about": "Which encoder?", "note": "Factored, by far."}
    sweep = write_sweep(tmp_path, changed(STUDY, "groups/encoder", groups))
    records = records_of(sweep, {"table": [0.11, 0.12], "factored": [0.74, 0.76]})
    text = page_of(sweep, records)
    section = text.split("## encoder")[1].split("\n## ")[0]
    assert "Which encoder?" in section and "Factored, by far." in section
    assert "| **factored** | 0.750 [" in section
    words = " ".join(text.split())
    assert "4 of 6 runs are done" in words and "(2 degrees of freedom)" in words
    assert "0 of 6 runs" in page_of(sweep, {})
    boards = {"first": {"about": "Of the first board."}, "second": {}}
    texts = {"about": "Of all.\n\nOn methods.", "page": "first.md", "boards": boards}
    path = write_sweep(tmp_path, STUDY | texts).path
    first, second = (page_of(load_sweep(path, board), {}) for board in boards)
    assert "Of all.\n\nOf the first board." in first and "first board" not in second
    assert "On methods." in first and "On methods." not in second and "first.md" in second


def test_cells_are_compared_by_the_deviation_of_the_two(tmp_path):
    sweep = write_sweep(tmp_path, LEADERS)
    scores = {"distillation": [0.8, 0.9, 1.0], "clone": [0.1, 0.2, 0.3]}
    results = results_of(sweep, scores)
    assert set(results.comparisons) == {("room", "clone")}
    by = results.comparisons["room", "clone"].difference
    # s = 0.1 with 4 degrees of freedom, error = s sqrt(2 / 3) = 0.0816, t(0.975, 4) = 2.776
    assert by.mean == pytest.approx(-0.7)
    assert (by.low, by.high) == pytest.approx((-0.9267, -0.4733), abs=1e-3)
    cells = {row[0]: row[1:] for row in tables.aggregates_table(results).rows}
    # The interval of three runs whose deviation is 0.1: 4.302653 * 0.1 / sqrt(3) = 0.248
    assert cells["distillation"][3:] == ["0.900 [0.652, 1.000]", "–"]  # of one group no quartiles
    assert cells["clone"][3].startswith("0.200 [") and cells["clone"][4].startswith("0.000")
    assert np.all(np.diff(tables.profile_chart(results).values[1]) <= 0)
    some = tables.complete_scores(results_of(sweep, scores | {"clone": [0.1, 0.2]}))
    assert set(some) == {"distillation"}
    two = results_of(sweep, scores | {"clone": [0.1, 0.2]}).comparisons["room", "clone"]
    assert (two.difference.low, two.p) == (None, None)  # the two may agree by chance
    assert tables.complete_scores(results_of(sweep, {"distillation": [0.8], "clone": [0.4]})) == {}


def test_a_mean_over_groups_has_the_interval_of_runs_within_groups_if_its_own_is_narrower(tmp_path):
    core = {"groups": ["room", "hall"], "rows": ["distillation"], "seeds": [0, 1, 2]}
    sweep = write_sweep(tmp_path, {**LEADERS, "boards": {"core": core}})
    results = results_of(sweep, {"distillation": [0.2, 0.5, 0.8]})
    for record, score in zip(results.made["hall", "distillation"], [0.8, 0.5, 0.2], strict=True):
        record.values[""]["scores"][sweep.config.score] = score
    (row,) = tables.aggregates_table(results).rows
    # All runs have a mean of 0.5; t(0.975, 4) * 0.3 / sqrt(6) = 2.776445 * 0.3 / 2.449490
    assert row[1:5] == ["nothing", "2", "3", "0.500 [0.160, 0.840]"]


def test_paired_runs_are_compared_split_by_split_where_the_plan_says_so(tmp_path):
    rows = {
        "learner": {"settings": {"method.name": "source", "source.algorithm": "q_learning"}},
        "distillation": {"against": "learner"},
        "labels": {"settings": {"method.name": "dpt"}},
        "clone": {"settings": {"method.name": "behavior_cloning"}},
        "informed": {"variant": "informed"},
        "bandits": {"settings": {"method.name": "source", "source.algorithm": "ucb"}},  # barred
    }
    plan = {
        **{"groups": {"room": BOARD["groups"]["room"]}, "rows": rows, "seeds": [0, 1, 2]},
        **{"paired": True, "learner": "learner", "scores": ["nauc"]},
    }
    sweep = write_sweep(tmp_path, plan)
    for cell in sweep.cells[:-1]:
        seeds = [(r.config.split.split_seed, r.config.training.train_seed) for r in cell.runs]
        assert seeds == [(0, 0), (1, 1), (2, 2)]
    own = {
        "learner": [0.1, 0.5, 0.9],
        "distillation": [0.2, 0.61, 0.99],
        "labels": [0.0, 0.42, 0.83],
        "clone": [0.0, 0.42, 0.83],
    }
    results = results_of(sweep, own)
    lines = rows_of(results, "room")
    # Differences 0.1, 0.11, 0.09: error 0.01 / sqrt(3), t(0.975, 2) = 4.302653, t = 17.32
    text = "learner: +0.100 [+0.075, +0.125], p 0.0033, above in 3 of 3"
    assert lines["distillation"]["difference of NAUC from that of"] == text
    assert lines["labels"]["difference of NAUC from that of"] == "–"
    marked = [title for title, line in lines.items() if "†" in line.get("NAUC", "")]
    # By pairs -0.1, -0.08, -0.07: p 0.011, corrected 0.022, though runs differ by 0.8.
    assert marked == ["clone"]  # the other one knows the optimal actions
    knows = {row[0]: row[1] for row in tables.summary_table(results).rows}
    assert knows["learner"] == knows["distillation"] == "nothing"
    assert (knows["labels"], knows["informed"]) == ("optimal actions", "the family of tasks")
    assert tables.paired_table(results).rows == [["distillation", "learner", "room", "–", "–"]]
    two = rows_of(results_of(sweep, own | {"distillation": [0.2, 0.61]}), "room")["distillation"]
    text = "learner: +0.105, above in 2 of 2"  # neither an interval nor a p value
    assert [two["NAUC"], two["difference of NAUC from that of"]] == ["0.405", text]
    assert "distillation with learner" in page_of(sweep, results.records)
    for number, record in enumerate(results.made["room", "clone"]):  # two tasks, one in all splits
        record.values[""]["per_task"] = {"0": 0.1 * number, str(1 + number): 0.5 + 0.1 * number}
    (chart,) = tables.tasks_chart(results, "room").options["clone"]
    assert dict(zip(chart.columns, chart.values[0], strict=True)) == pytest.approx(
        {"0": 0.1, "1": 0.5, "2": 0.6, "3": 0.7}
    )


def test_a_group_shows_the_results_of_the_world_that_it_names(tmp_path):
    room = deepcopy(BOARD["groups"]["room"])
    large = deepcopy(room) | {"world": world_title({"change": 2})}
    large["settings"] = {"evaluation.worlds": [{"change": 2}]}
    other = deepcopy(large) | {"world": world_title({"change": 3})}
    other["settings"] = {"evaluation.worlds": [{"change": 3}]}
    groups = {"large": large, "other": other, "room": room}
    rows = {"first": {}, "second": {"settings": {"training.steps": 21}}}
    sweep = write_sweep(tmp_path, {"groups": groups, "rows": rows, "seeds": [0]})
    assert len(sweep.planned_runs()) == 2  # groups share them: those with the further worlds
    for run in sweep.planned_runs():
        assert run.config.evaluation.worlds == [{"change": 2}, {"change": 3}]
    records = records_of(sweep, {"first": [0.5], "second": [0.6]})
    key = next(run.key for run in sweep.planned_runs() if run.row == "first")
    own = records[key].values
    there = {large["world"]: own[""] | {"scores": {"nauc": 0.2}}}
    records[key] = replace(records[key], values=own | there)
    results = sweep_results(sweep, records)
    assert results.values(("large", "first"), "nauc") == [0.2]
    assert results.values(("room", "first"), "nauc") == [0.5]
    assert ("large", "second") not in results.made  # it was not evaluated there yet
    assert list(rows_of(results, "large")) == ["first"]
    assert "0 of 2 runs are done" in page_of(sweep, records).replace("\n", " ")  # nor in the third


def test_the_tuning_table_has_the_best_of_the_tries_that_did_not_fail(tmp_path):
    sweep = write_sweep(tmp_path, BOARD, board="tuning")  # one run in each of two groups
    base, longer, warm = sweep.tried["tuned"]
    records = records_of(sweep, {base: [0.5], longer: [0.7]})
    (row,) = tables.tuning_table(sweep_results(sweep, records)).rows
    assert row[1] == "runs are missing or failed"
    failures = (r for cell in sweep.cells if cell.row == warm for r in cell.runs[:1])
    records |= {run.key: new_record(run, failure="the loss is NaN") for run in failures}
    (row,) = tables.tuning_table(sweep_results(sweep, records)).rows
    assert row == ["tuned", "training.steps=21", "0.700", "0.500", "2, 1 failed"]


def test_an_oracle_has_the_best_of_the_settings_tried_in_each_group(tmp_path):
    cold, long = {"evaluation.temperature": 0.1}, {"training.steps": 21}
    board = {"groups": ["room"], "rows": ["tuned"], "seeds": [0, 1], "tried": [cold, long]}
    boards = {"decoding": board, "other": {"groups": ["room"], "rows": ["clone"]}}
    noted = changed({**BOARD, "boards": boards}, "rows/tuned/note", "Of the row.")
    sweep = write_sweep(tmp_path, noted)
    # The row has 21 steps already, as chosen by the board that tunes.
    cold_row = "tuned: evaluation.temperature=0.1"
    assert sweep.tried == {"tuned": ["tuned", cold_row]}
    runs = sweep.cells_of("room")[1].runs
    assert {run.config.training.steps for run in runs} == {21}
    assert len(new_measure(sweep).bundles(sweep.planned_runs())) == 2  # a training each
    results = results_of(sweep, {"tuned": [0.5, 0.7], cold_row: [0.8, 0.9]})
    (row,) = tables.oracle_table(results).rows
    assert row == ["tuned", "0.600, 0.850 (evaluation.temperature=0.1)", "0.600, 0.850"]
    page, other = page_of(sweep, results.records), page_of(load_sweep(sweep.path, "other"), {})
    assert "an oracle" in page and page.count("Of the row.") == 1 and "Of the row." not in other


def test_each_table_has_the_optimum_random_play_and_the_sources_themselves(tmp_path):
    rows = ["distillation", "informed", "clone"]
    sweep = write_sweep(tmp_path, changed(LEADERS, "boards/core/rows", rows))
    entries = {"references": {"random": 0.125}, "scores": {"optimal_return": 16.0}}
    records = records_of(sweep, {row: [0.5] * 3 for row in rows}, **entries)
    shares = {"distillation": [0.75, 0.5, None], "clone": [0.1] * 3, "informed": [0.875] * 3}
    for cell in sweep.cells:
        for run, share in zip(cell.runs, shares[cell.row], strict=True):
            records[run.key].values[""]["scores"]["source_share"] = share
    results = sweep_results(sweep, records)
    assert {row[0]: row[3] for row in tables.summary_table(results).rows[3:]} == {
        "*optimal policy*": "1.000",
        "*random actions*": "0.125",
        "*the learner itself, on train tasks*": "0.625",
        "*the informed source itself, on train tasks*": "0.875",
    }
    table = rows_of(results, "room")
    shown = [table["random actions"][heading] for heading in tables_headings()]
    assert shown == ["0.125", "0.000", "0.125"]
    for record in records.values():
        record.values[""]["scores"]["optimal_return"] = -2.0
    assert "optimal policy" not in references(sweep_results(sweep, records), "room")


def tables_headings() -> list[str]:
    return ["share of optimum, last 10", "between random and optimal", "NAUC"]


def test_the_short_table_and_published_results(tmp_path):
    readme, published = tmp_path / "readme.md", tmp_path / "published.csv"
    readme.write_text("first\n<!-- plan -->\nold\n<!-- /plan -->\nlast\n")
    published.write_text("world,method,value\nroom,AD,0.9\nhall,AD,0.8\n")
    content = {**LEADERS, "summary": str(readme), "published": str(published), "page": "x.md"}
    sweep = write_sweep(tmp_path, content | {"page": str(tmp_path / "page.md")})
    scores = {"distillation": [0.5, 0.75, 1.0], "clone": [0.25, 0.75]}
    add_records(sweep.records, records_of(sweep, scores).values())
    write_page(sweep, tmp_path / "root")
    assert "| distillation | nothing | 75.0 |" in readme.read_text()
    assert (
        "| clone | nothing | 50.0 (2) |" in readme.read_text() and "old" not in readme.read_text()
    )
    text = (tmp_path / "page.md").read_text()
    assert "| AD | 0.9 |" in text and "0.8 |" not in text
    html = (tmp_path / "root/plan.html").read_text()
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", html)
    write_page(load_sweep(sweep.path, "tuning"), tmp_path / "root")
    assert (tmp_path / "plan_tuning.md").exists()
    (tmp_path / "page.md").write_text("<!-- room -->\nold\n<!-- /room -->\n")
    sweep.records.unlink()
    write_page(load_sweep(sweep.path), tmp_path / "root")
    assert (tmp_path / "page.md").read_text().split("\n")[2] == "No run has a record yet."


def test_records_of_other_settings_are_not_counted(tmp_path):
    sweep = write_sweep(tmp_path, STUDY)
    records = records_of(sweep, {"table": [0.5, 0.5]})
    longer = write_sweep(tmp_path, changed(STUDY, "settings/training.steps", 9))
    assert not sweep_results(longer, records).made
    failed = {key: replace(record, failure="diverged") for key, record in records.items()}
    assert not sweep_results(sweep, failed).made
