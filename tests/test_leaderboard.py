"""The leaderboard: its plan, its runs, and the files that are made from the records."""

import csv
import json
import re
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest

import ad.sources.sb3.settings
from ad.cli import VERBS, exit_code
from ad.errors import ConfigError, CorruptError, NumericError
from ad.sweeps.failures import failures_file, read_failures
from ad.sweeps.files import read_file, read_lines
from ad.sweeps.leaderboard.aims import Aim, aims_table, read_aims
from ad.sweeps.leaderboard.further_runs import with_further_runs
from ad.sweeps.leaderboard.plan import LeaderboardConfig, load_board
from ad.sweeps.leaderboard.published import Published, read_published
from ad.sweeps.leaderboard.report import (
    FOOTNOTE,
    html,
    latex,
    markdown,
    read_leaderboard,
    write_leaderboard,
)
from ad.sweeps.leaderboard.scores import (
    TABULAR_LEARNER,
    aggregate,
    compare,
    missing_cells,
    records_of_cells,
    references,
    tuning_scores,
    values_of,
)
from ad.sweeps.leaderboard.tables import summary_table, world_table
from ad.sweeps.planned import PlannedRun, group_by_training
from ad.sweeps.records import COLUMNS, TEXT, add_records, read_records
from ad.sweeps.runs import budget, list_runs, run_missing

COMMITTED = Path("configs/leaderboard/leaderboard.yaml")
RECORDS = Path("configs/records/leaderboard.csv")
PLAN = """
worlds:
  room:
    experiment: configs/smoke.yaml
    settings: {evaluation.episodes: 7}
    searcher: {source.algorithm: posterior_sampling}
  dense:
    experiment: configs/smoke.yaml
  hall:
    experiment: configs/smoke.yaml
  cave:
    experiment: configs/smoke.yaml
  cart:
    experiment: CART
methods:
  distillation: {}
  searcher: {histories: searcher, settings: {training.steps: 21}}
  clone: {settings: {method.name: behavior_cloning, model.reward: none}}
  labels: {labels: optimal actions, settings: {method.name: METHOD}}
  tuned:
    tried:
      - {}
      - {training.steps: 21}
      - {training.steps: 21, evaluation.temperature: 2}
    tuned: {training.steps: 21}
boards:
  core: {worlds: [room], methods: [distillation, clone], seeds: [0, 1, 2]}
  other: {worlds: [room, dense], methods: [distillation, searcher]}
  tuning:
    worlds: [hall, cave]
    methods: [tuned]
    seeds: [7]
    settings: {split.tuning: true, split.num_train_tasks: 4}
    tuning: true
"""
CART = """
env: {id: CartPole-v1, episode_length: 20, tasks: [{}, {}]}
split: {num_train_tasks: 1}
source: {algorithm: demonstrations, env_steps: 100, num_envs: 2}
model: {encoder: mlp, reward: projection}
"""
LABELED = '''
from typing import ClassVar

from ad.methods.algorithm_distillation import AlgorithmDistillation


class Labeled(AlgorithmDistillation):
    """A method that needs optimal actions."""

    fields: ClassVar = (*AlgorithmDistillation.fields, "optimal_action")
'''


@pytest.fixture
def plan(tmp_path):
    """The path of a plan with three worlds, of which one cannot tell optimal actions."""
    (tmp_path / "cart.yaml").write_text(CART)
    (tmp_path / "labeled.py").write_text(LABELED)
    text = PLAN.replace("CART", str(tmp_path / "cart.yaml"))
    path = tmp_path / "plan.yaml"
    path.write_text(text.replace("METHOD", f"{tmp_path / 'labeled.py'}:Labeled"))
    return path


def fill(path, board, scores: dict[str, list[float]]) -> None:
    """Write records with these scores for the runs of each method in every world."""
    for cell in board.cells:
        runs = zip(cell.runs, scores.get(cell.method, []), strict=False)
        add_records(path, [record_of(run, score) for run, score in runs])


def record_of(run: PlannedRun, score: float) -> dict:
    """Return a record of a run with this score."""
    record = dict.fromkeys(COLUMNS) | dict.fromkeys(TEXT, "")
    record |= {"key": run.key, "changed": run.changed, "split_seed": 0, "train_seed": 0}
    record |= {"share_of_optimum_last10": score, "nauc": score, "train_s": 60.0}
    record["normalized_return_last10"] = score
    return record | {"curve": f"1:0.1 10:{score}", "per_task": f"0-1:{score} 2-2:0.5"}


def test_the_committed_boards_are_valid():
    for name in ("core", "small", "extended", "temperature", "training"):
        board = load_board(COMMITTED, name)
        assert all(len(cell.runs) > 1 or cell.problem for cell in board.cells)
        assert not board.tried
        keys = [run.key for run in board.planned_runs()]
        assert len(set(keys)) == len(keys)
    small = {run.key for run in load_board(COMMITTED, "small").planned_runs()}
    assert small <= {run.key for run in load_board(COMMITTED).planned_runs()}


@pytest.mark.parametrize(
    ("name", "setting"),
    [("temperature", ("evaluation", "temperature")), ("training", ("training", "steps"))],
)
def test_a_method_that_looks_for_a_reason_has_one_other_setting_than_a_tuned_one(name, setting):
    cells = {(cell.world, cell.method): cell.config for cell in load_board(COMMITTED, name).cells}
    for (world, method), config in cells.items():
        own, tuned = asdict(config), asdict(cells[world, method.split(",")[0]])
        differing = {
            (section, key)
            for section, values in own.items()
            if isinstance(values, dict)
            for key, value in values.items()
            if value != tuned[section][key]
        }
        assert differing == ({setting} if "," in method else set())


def test_the_extended_board_learns_from_at_most_as_much_as_the_paper_of_an_aim():
    limits = {"Dark Room, 19 x 19": 17_600_000, "Dark Room, few transitions": 768_396}
    cells = [cell for cell in load_board(COMMITTED, "extended").cells if cell.world in limits]
    assert {cell.world for cell in cells} == set(limits)
    assert all(cell.transitions <= limits[cell.world] for cell in cells)


def test_all_methods_of_the_core_board_have_the_same_tuning_budget_in_other_worlds():
    core, tuning = load_board(COMMITTED), load_board(COMMITTED, "tuning")
    assert list(tuning.tried) == list(core.methods)
    assert {len(rows) for rows in tuning.tried.values()} == {6}
    assert not core.worlds.keys() & tuning.worlds.keys()
    assert all(run.config.split.tuning for run in tuning.planned_runs())


def test_the_committed_settings_are_those_that_the_records_of_tuning_choose():
    board = load_board(COMMITTED, "tuning")
    scores = tuning_scores(board, records_of_cells(board, read_records(RECORDS)))
    chosen = {method: board.methods[max(own, key=own.get)].tuned for method, own in scores.items()}
    assert (
        board.tuned == dict.fromkeys(board.tried) | chosen
    )  # null until all its records are there


def test_a_tuning_board_compares_what_a_method_tries_and_other_boards_have_the_chosen(plan):
    (cell, *_) = load_board(plan, worlds=["room"], methods=["tuned"]).cells
    assert cell.runs[0].config.training.steps == 21
    board = load_board(plan, "tuning")
    rows = ["tuned: base", "tuned: training.steps=21"]
    rows += ["tuned: evaluation.temperature=2 training.steps=21"]
    assert list(board.methods) == board.tried["tuned"] == rows
    runs = [run.config for run in board.planned_runs()]
    assert [run.training.steps for run in runs] == [20, 21, 21] * 2
    assert {run.source.source_seed for run in runs} == {7}
    assert len(group_by_training(board.planned_runs())) == 4  # temperatures share a training


def test_the_best_of_a_tuning_board_is_named_where_the_plan_names_another(plan, tmp_path, capsys):
    board, path = load_board(plan, "tuning"), tmp_path / "records.csv"
    first, second, third = board.methods
    fill(path, board, {first: [0.5], second: [0.7]})
    write_leaderboard(board, path, tmp_path, "tuning")  # not all rows have their runs
    assert not tuning_scores(board, records_of_cells(board, read_records(path)))
    assert "set tuned" not in capsys.readouterr().err
    fill(path, board, {third: [0.9]})
    write_leaderboard(board, path, tmp_path, "tuning")
    asked = "set tuned to {'training.steps': 21, 'evaluation.temperature': 2}"
    assert asked in capsys.readouterr().err
    assert (
        "| tuned | evaluation.temperature=2 training.steps=21 | 0.900 | 0.500 | 3 |"
        in (tmp_path / "tuning.md").read_text()
    )
    fill(path, board, {third: [0.6]})
    write_leaderboard(board, path, tmp_path, "tuning")
    assert "set tuned" not in capsys.readouterr().err


def test_runs_of_a_cell_differ_in_the_seeds_of_sources_and_of_training(plan):
    cell = load_board(plan).cells[0]
    assert cell.config.evaluation.episodes == 7  # as the world says
    seeds = [(r.config.source.source_seed, r.config.training.train_seed) for r in cell.runs]
    assert seeds == [(0, 0), (1, 1), (2, 2)]
    assert len({run.key for run in cell.runs}) == 3


def test_a_method_learns_from_the_searcher_of_a_world_that_has_one(plan):
    board = load_board(plan, worlds=["room"], methods=["distillation", "searcher"])
    learner, searcher = (cell.runs[0].config for cell in board.cells)
    assert learner.source.algorithm == "a2c"
    assert (searcher.source.algorithm, searcher.training.steps) == ("posterior_sampling", 21)
    with pytest.raises(ConfigError, match="dense / searcher: the world has no searcher"):
        load_board(plan, "other")


def test_a_cell_that_cannot_be_made_says_why(plan):
    board = load_board(plan, worlds=["room", "cart"], methods=["distillation", "labels"])
    problems = {(cell.world, cell.method): cell.problem for cell in board.cells}
    assert "optimal actions" in problems.pop(("cart", "labels"))
    assert not any(problems.values())
    row = summary_table(board, {}).rows[1]
    assert row[0] == "labels" and row[-2:] == ["–", "not applicable"]


def test_a_choice_of_impossible_cells_is_refused_before_anything_is_written(plan, tmp_path, capsys):
    argv = ["--file", str(plan), "--records", str(tmp_path / "r.csv"), "--worlds", "cart"]
    assert exit_code(VERBS["leaderboard"], [*argv, "--methods", "labels"]) == 2
    error = capsys.readouterr().err
    assert "no cell can be made" in error and "cart / labels: " in error
    assert not list(tmp_path.glob("leaderboard*"))


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("worlds: [room]", "worlds: [rooms]", "has no 'rooms'; did you mean room?"),
        ("histories: searcher", "histories: some", "histories"),
        ("clone: {", "clone: {regime: online, ", "is an offline method: regime and histories"),
        ("clone: {", "clone: {labels: optimal actions, ", "labels must be none, which behavior"),
        ("histories: searcher,", "tuned: {}, histories: searcher,", "tuned must be an entry"),
        ("clone: {settings: {", "clone: {settings: {training.train_seed: 1, ", "must not set"),
        ("seeds: [0, 1, 2]", "seeds: [0, 0]", "each once"),
        ("seeds: [0, 1, 2]", "seeds: [0, 1], further_seeds: [1]", "each once"),
        ("seeds: [0, 1, 2]", "seeds: [], further_seeds: [1]", "each once"),
        ("worlds: [room]", "worlds: []", "needs worlds and methods, each once"),
        ("worlds: [room]", "worlds: [room, room]", "needs worlds and methods, each once"),
        ("method.name: behavior_cloning", "method.name: cloning", "unknown method"),
        ("model.reward: none", "model.rewards: none", "model.reward"),
    ],
)
def test_a_wrong_plan_is_refused(plan, old, new, sentence):
    plan.write_text(plan.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        load_board(plan, methods=["distillation", "searcher", "clone"])


def test_a_tuning_board_with_a_world_of_another_board_is_refused(plan):
    plan.write_text(plan.read_text().replace("[hall, cave]", "[hall, room]"))
    with pytest.raises(ConfigError, match="tuning: room is a world of the board core"):
        load_board(plan, "tuning")


def test_a_method_whose_optimal_actions_are_no_label_of_its_entry_is_refused(plan):
    text = plan.read_text()
    plan.write_text(text.replace("labels: {labels: optimal actions, ", "labels: {"))
    with pytest.raises(ConfigError, match=r"labels must be optimal actions, which .*Labeled has"):
        load_board(plan, methods=["labels"])


def test_each_page_has_the_note_of_the_plan(plan, tmp_path):
    plan.write_text(plan.read_text() + "note: All methods are small.\n")
    found = read_leaderboard(load_board(plan), tmp_path / "none.csv")
    assert "\nAll methods are small.\n" in markdown(found)
    assert page_data(html(found))["note"] == "All methods are small."


def test_methods_without_a_tuning_are_named(plan, tmp_path):
    board = load_board(plan, methods=["tuned", "clone", "distillation"])
    found = read_leaderboard(board, tmp_path / "none.csv")
    assert "\nNot tuned yet: clone, distillation.\n" in markdown(found)
    assert '"untuned": "Not tuned yet: clone, distillation."' in html(found)
    tuning = read_leaderboard(load_board(plan, "tuning"), tmp_path / "none.csv")
    assert "Not tuned yet" not in markdown(tuning)


def test_comparisons_and_aggregates_use_the_first_method_as_reference(plan, tmp_path):
    board = load_board(plan)
    fill(tmp_path / "r.csv", board, {"distillation": [0.8, 0.9, 1.0], "clone": [0.1, 0.2, 0.3]})
    cells = records_of_cells(board, read_records(tmp_path / "r.csv"))
    compared = compare(board, cells)
    assert set(compared) == {("room", "clone")}
    comparison = compared["room", "clone"]
    # s = 0.1 with 4 degrees of freedom, error = s sqrt(2 / 3) = 0.0816, t(0.975, 4) = 2.776
    assert comparison.difference == pytest.approx(-0.7)
    assert comparison.bounds == pytest.approx((-0.9267, -0.4733), abs=1e-3)
    assert comparison.verdict == "worse"
    found = aggregate(board, cells)
    assert found["clone"]["improvement"][0] == 0 and found["distillation"]["improvement"] is None
    assert found["distillation"]["interquartile_mean"][0] == pytest.approx(0.9)
    assert found["clone"]["optimality_gap"][0] == pytest.approx(0.8)
    assert np.all(np.diff(found["clone"]["profile"][0]) <= 0)


def test_a_board_with_one_run_a_cell_has_no_aggregates(plan, tmp_path):
    plan.write_text(plan.read_text().replace("seeds: [0, 1, 2]", "seeds: [0]"))
    board, path = load_board(plan), tmp_path / "r.csv"
    fill(path, board, {"distillation": [0.8], "clone": [0.4]})
    assert aggregate(board, records_of_cells(board, read_records(path))) == {}


def test_a_method_without_all_runs_is_left_out_of_the_aggregates(plan, tmp_path):
    board = load_board(plan)
    fill(tmp_path / "r.csv", board, {"distillation": [0.8, 0.9, 1.0], "clone": [0.1, 0.2]})
    cells = records_of_cells(board, read_records(tmp_path / "r.csv"))
    assert set(aggregate(board, cells)) == {"distillation"}
    assert [cell.method for cell in missing_cells(board, cells)] == ["clone"]


def page_data(page: str) -> dict:
    """Return the data that the script of an HTML page shows."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(data)


LEVEL = {"distillation": [0.9, 0.91, 0.92], "clone": [0.87, 0.88, 0.89]}
CEILING = {"distillation": [1.0, 1.0, 1.0], "clone": [1.0, 1.0, 1.0]}
APART = {"distillation": [0.89, 0.9, 0.91], "clone": [0.1, 0.11, 0.12]}


@pytest.mark.parametrize("scores, counts", [(LEVEL, [5, 5]), (APART, [3, 3]), (CEILING, [3, 3])])
def test_methods_level_at_the_top_of_a_world_have_further_runs(plan, tmp_path, scores, counts):
    plan.write_text(plan.read_text().replace("2]}", "2], further_seeds: [3, 4]}"))
    board, path = load_board(plan), tmp_path / "r.csv"
    fill(path, board, scores)
    widened = with_further_runs(board, read_records(path))
    assert [len(cell.runs) for cell in widened.cells] == counts
    made = aggregate(widened, records_of_cells(widened, read_records(path)))
    assert set(made) == {"distillation", "clone"}  # by the first runs
    shown = page_data(html(read_leaderboard(widened, path)))["cells"]
    assert [(cell["first"], cell["planned"]) for cell in shown] == [(3, count) for count in counts]
    fill(path, widened, {method: [*own, own[1], own[1]] for method, own in scores.items()})
    again = with_further_runs(board, read_records(path))
    # The first runs alone decide: by five, the intervals of LEVEL no longer overlap.
    assert again.planned_runs() == widened.planned_runs()
    assert "these methods have further runs" in markdown(read_leaderboard(again, path))


def test_further_runs_wait_for_the_first_ones_of_a_world(plan, tmp_path):
    plan.write_text(plan.read_text().replace("2]}", "2], further_seeds: [3, 4]}"))
    board, path = load_board(plan), tmp_path / "r.csv"
    assert with_further_runs(board, {}).planned_runs() == board.planned_runs()
    fill(path, board, {**LEVEL, "clone": [0.8, 0.9]})
    assert with_further_runs(board, read_records(path)).planned_runs() == board.planned_runs()


def test_the_budget_is_known_from_the_records(plan, tmp_path):
    board, path = load_board(plan), tmp_path / "r.csv"
    assert budget(board.planned_runs(), {}) == "6 of 6 runs are missing"
    fill(path, board, {"distillation": [0.8, 0.9, 1.0]})
    text = budget(board.planned_runs(), read_records(path))
    assert text.startswith("3 of 6 runs are missing") and text.endswith("about 3 minutes")


def test_a_failed_run_says_why_and_is_made_again_only_if_asked(plan, tmp_path, monkeypatch, capsys):
    runs, path, made = load_board(plan).planned_runs(), tmp_path / "r.csv", []
    bad, diverges = runs[1], [True]

    def make(path, run, root):
        made.append(run)
        if run is bad and diverges:
            raise NumericError("the loss, 1e39, is not finite")
        add_records(path, [record_of(run, 0.9)])

    monkeypatch.setattr("ad.sweeps.runs.make", make)
    with pytest.raises(NumericError, match="1 of 6 trainings failed"):
        run_missing(path, runs, tmp_path)
    assert len(made) == 6 and len(read_records(path)) == 5
    run_missing(path, runs, tmp_path)
    assert len(made) == 6
    said = capsys.readouterr()
    assert "1 of 6 runs failed" in said.err and "--retry true" in said.err
    list_runs(path, runs, tmp_path)
    *lines, total = capsys.readouterr().out.splitlines()
    assert lines[0] == "done     split 0  seed 0  room / distillation: NAUC 0.900"
    assert lines[1] == "failed   split 0  seed 0  room / clone: the loss, 1e39, is not finite"
    assert total == "r: 0 of 6 runs are missing, 1 failed"
    diverges.clear()
    run_missing(path, runs, tmp_path, retry=True)
    assert made[6:] == [bad] and not read_failures(path) and not failures_file(path).exists()


def test_without_its_extra_a_board_is_shown_and_only_the_runs_that_need_it_are_refused(
    plan, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(ad.sources.sb3.settings, "find_spec", lambda name: None)
    online = "rl2: {histories: none, regime: online, settings: {method.name: rl2}}"
    plan.write_text(
        plan.read_text().replace("  distillation: {}", f"  distillation: {{}}\n  {online}")
    )
    board, path = load_board(plan, methods=["distillation", "rl2"]), tmp_path / "r.csv"
    made = {"distillation": [0.8, 0.9, 1.0], "rl2": [0.5, 0.6]}
    fill(path, board, made)
    assert "| rl2 | none | online | none | 0.550" in markdown(read_leaderboard(board, path))
    list_runs(path, board.planned_runs(), tmp_path)
    assert "missing  split 0  seed 2  room / rl2" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"room / rl2: method.name .* not installed: pip"):
        run_missing(path, board.planned_runs(), tmp_path)
    fill(path, board, made | {"rl2": [0.5, 0.6, 0.7]})
    run_missing(path, board.planned_runs(), tmp_path)


def test_a_missing_run_is_listed_with_the_time_that_it_takes(plan, tmp_path, capsys):
    board, path = load_board(plan), tmp_path / "r.csv"
    fill(path, board, {"distillation": [0.8]})
    list_runs(path, board.planned_runs(), tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "missing  split 0  seed 0  room / clone: about 1 minute"


def test_failures_that_were_cut_off_are_refused(tmp_path):
    failures_file(tmp_path / "r.csv").write_text("key,changed\n")
    with pytest.raises(CorruptError, match=r"r_failed\.csv is not a whole file"):
        read_failures(tmp_path / "r.csv")


def test_records_that_are_older_than_a_reference_are_read_and_its_row_is_that_of_the_others(
    plan, tmp_path
):
    board, path = load_board(plan), tmp_path / "r.csv"
    fill(path, board, {"distillation": [0.8, 0.9]})
    with open(path, newline="") as file:
        header, *lines = csv.reader(file)
    added = header.index("tabular_learner_nauc")
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([row[:added] + row[added + 1 :] for row in (header, *lines)])
    cells = records_of_cells(board, read_records(path))
    assert references(board, cells, "room") == {}
    new = record_of(board.cells[0].runs[2], 0.9) | {"tabular_learner_nauc": 0.7}
    add_records(path, [new])
    cells = records_of_cells(board, read_records(path))
    assert references(board, cells, "room") == {"tabular learner from nothing": {"nauc": 0.7}}
    page = page_data(html(read_leaderboard(board, path)))
    assert page["worlds"][0]["least_nauc"] == 0.7
    table = world_table(board, cells, "room", {})
    assert "†" not in table.markdown()
    assert FOOTNOTE not in markdown(read_leaderboard(board, path))
    slow = {("room", "distillation"): [new | {"nauc": 0.69}]}
    assert world_table(board, slow, "room", {}).rows[0][3] == "0.690 †"
    add_records(path, [new | {"key": board.cells[0].runs[1].key, "nauc": 0.1}])
    assert markdown(read_leaderboard(board, path)).endswith(FOOTNOTE)
    row = table.rows[-1]
    assert row[0] == "*tabular learner from nothing*" and row.count("0.700") == 1


def test_each_table_has_the_optimum_random_play_and_the_sources_themselves(plan):
    board = load_board(plan, methods=["distillation", "searcher", "clone"])
    known = {"optimal_return": 16.0, "random_nauc": 0.125}
    shares = {"distillation": [0.75, 0.5, None], "clone": [0.1, 0.1, 0.1], "searcher": [0.875]}
    runs = {cell.method: cell.runs for cell in board.cells}
    cells = {
        ("room", method): [
            record_of(run, 0.5) | known | {"source_share": share}
            for run, share in zip(runs[method], own, strict=False)
        ]
        for method, own in shares.items()
    }
    found = {row[0]: row[4] for row in summary_table(board, cells).rows[3:]}
    assert found == {
        "*optimal policy*": "1.000",
        "*random actions*": "0.125",
        "*the learner itself, on train tasks*": "0.625",
        "*the searcher itself, on train tasks*": "0.875",
    }
    rows = {row[0]: row[1:4] for row in world_table(board, cells, "room", {}).rows}
    assert rows["*random actions*"] == ["0.125", "0.000", "0.125"]
    assert rows["*the searcher itself, on train tasks*"] == ["0.875", "–", "–"]
    assert r"\emph{random actions} & --" in latex(summary_table(board, cells))


def test_the_tabular_learner_is_not_that_of_a_run_on_a_searcher(plan):
    board = load_board(plan, methods=["searcher", "distillation"])
    runs = {cell.method: cell.runs[0] for cell in board.cells}
    known = {"searcher": 0.9, "distillation": 0.6}
    cells = {
        ("room", method): [record_of(runs[method], 0.5) | {"tabular_learner_nauc": nauc}]
        for method, nauc in known.items()
    }
    assert references(board, cells, "room")[TABULAR_LEARNER] == {"nauc": 0.6}
    del cells["room", "distillation"]
    assert references(board, cells, "room") == {}


def test_a_world_without_positive_returns_has_no_share_of_the_optimum(plan):
    board = load_board(plan, methods=["distillation"])
    record = record_of(board.cells[0].runs[0], 0.5) | {"optimal_return": -2.0}
    assert references(board, {("room", "distillation"): [record]}, "room") == {}


def test_the_page_holds_all_data_and_needs_no_other_file(plan, tmp_path):
    text = plan.read_text().replace("clone:", "<b>clone</b></script>:")
    plan.write_text(text.replace("methods: [distillation, clone]", "methods: [distillation]"))
    board = load_board(plan, methods=["distillation", "<b>clone</b></script>"])
    fill(tmp_path / "r.csv", board, {"distillation": [0.8, 0.9, 1.0]})
    (tmp_path / "published.csv").write_text(
        "world,method,value,metric,budget,regime,labels,read,source,difference\n"
        "room,AD,0.9,success,100 episodes,offline,none,text,a paper,another split\n"
    )
    page = html(read_leaderboard(board, tmp_path / "r.csv"))
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", page)
    data = page_data(page)
    assert [m["name"] for m in data["methods"]] == ["distillation", "<b>clone</b></script>"]
    assert data["worlds"][0]["published"][0]["value"] == "0.9"
    (cell, other) = data["cells"]
    assert cell["scores"]["at_10"][0] == pytest.approx(0.9)
    assert cell["runs"][0]["per_task"] == {"0-1": 0.8, "2-2": 0.5}
    assert other["runs"] == [] and other["planned"] == 3


AIMS = """world,score,aim,methods,note
room,nauc,0.85,,nothing is published
room,at_10,0.5,clone; tuned,told nothing
room,share_of_source,0.98,distillation,
dense,nauc,1,,
"""


def test_an_aim_stands_beside_the_best_of_the_methods_that_count(plan, tmp_path):
    (tmp_path / "aims.csv").write_text(AIMS)
    board = load_board(plan)
    fill(tmp_path / "r.csv", board, {"distillation": [0.8, 0.9], "clone": [0.1, 0.2, 0.3]})
    found = read_leaderboard(board, tmp_path / "r.csv")
    rows = aims_table(board, found.cells, found.aims).rows
    share = "share of optimum / that of its source, last 10"
    first = "0.850 [0.215, 1.485]"
    plain = "any offline method without labels"
    assert [row[1:9] for row in rows] == [
        ["NAUC", "0.850", plain, first, "distillation", "2", "open", first],
        [
            *("share of optimum, episode 10", "0.500", "clone or tuned"),
            *("0.200 [-0.048, 0.448]", "clone", "3", "no", first),
        ],
        [share, "0.980", "distillation", *"–––––"],
    ]
    record = record_of(board.cells[0].runs[0], 0.8) | {"return_last10": 3.0, "source_share": 0.5}
    add_records(tmp_path / "r.csv", [record])
    found = read_leaderboard(board, tmp_path / "r.csv")
    assert aims_table(board, found.cells, found.aims).rows[2][4] == "1.600 (1 of 2)"
    assert plain in markdown(found) and plain in html(found)


def test_a_model_that_learns_as_fast_as_the_tabular_learner_scores_1(plan):
    run = load_board(plan).cells[0].runs[0]
    told = {"random_nauc": 0.5, "tabular_learner_nauc": 0.9}
    made = [record_of(run, score) | told for score in (0.5, 0.7, 0.9)]
    unknown = record_of(run, 0.7) | {"random_nauc": 0.5}  # no table can be learned
    assert values_of([*made, unknown], "between_random_and_learner") == pytest.approx([0, 0.5, 1])


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ([0.9, 0.9, 0.9], "yes"),
        ([0.9, 0.9], "open"),  # a run is missing
        ([0.9], "open"),
        ([0.5, 0.9, 1.3], "open"),  # above by a mean whose interval is not
        ([0.84, 0.84, 0.84], "no"),
        ([0.84, 0.84], "no"),
    ],
)
def test_an_aim_is_reached_by_all_runs_and_their_interval(plan, tmp_path, scores, verdict):
    (tmp_path / "aims.csv").write_text(AIMS)
    board = load_board(plan)
    fill(tmp_path / "r.csv", board, {"distillation": scores})
    found = read_leaderboard(board, tmp_path / "r.csv")
    assert aims_table(board, found.cells, found.aims).rows[0][7] == verdict


def test_a_method_with_labels_counts_for_aims_that_name_it(plan):
    board = load_board(plan, methods=["distillation", "labels"])
    assert Aim("room", "nauc", "1", "", "").counts(board) == ["distillation"]
    assert Aim("room", "nauc", "1", "labels", "").counts(board) == ["labels"]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("nauc,0.85", "nuc,0.85", "did you mean nauc?"),
        ("0.85", "high", "high is not a number"),
        ("dense,", "dens,", "has no 'dens'; did you mean dense?"),
        ("clone;", "clones;", "has no 'clones'; did you mean clone?"),
    ],
)
def test_a_wrong_aim_is_refused(plan, tmp_path, old, new, sentence):
    (tmp_path / "aims.csv").write_text(AIMS.replace(old, new))
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        read_aims(tmp_path / "aims.csv", read_file(plan, LeaderboardConfig))


def test_a_published_result_of_an_unknown_world_is_refused(plan, tmp_path):
    line = "rooms,AD,0.9,success,100 episodes,offline,none,text,a paper,another split\n"
    names = ",".join(field.name for field in fields(Published))
    (tmp_path / "published.csv").write_text(f"{names}\n{line}")
    with pytest.raises(ConfigError, match=re.escape("has no 'rooms'; did you mean room?")):
        read_published(tmp_path / "published.csv", read_file(plan, LeaderboardConfig))


def test_the_committed_aims_and_published_results_are_of_known_worlds_and_methods():
    plan = read_file(COMMITTED, LeaderboardConfig)
    assert read_aims(COMMITTED.with_name("aims.csv"), plan)
    assert read_published(COMMITTED.with_name("published.csv"), plan)


def test_the_summary_is_put_between_the_marks_of_its_board_on_a_page_that_has_them(plan, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("first\n<!-- board -->\nold\n<!-- /board -->\nlast\n")
    plan.write_text(f"page: {page}\n{plan.read_text()}")
    methods = ["distillation", "clone", "tuned"]
    board = load_board(plan, worlds=["room", "hall"], methods=methods)
    records = tmp_path / "r.csv"
    fill(records, board, {"distillation": [0.5, 0.75, 1.0], "clone": [0.25, 0.75]})
    write_leaderboard(board, records, tmp_path, "other")
    assert "old" in page.read_text()
    write_leaderboard(board, records, tmp_path, "board")
    begin, *_, room, hall, _, end, last = page.read_text().splitlines()[1:]
    assert (begin, end, last) == ("<!-- board -->", "<!-- /board -->", "last")
    assert (room, hall) == ("| room | 75.0 | 50.0 (2) | – |", "| hall | 75.0 | 50.0 (2) | – |")
    assert "old" not in page.read_text()


def test_latex_escapes_what_has_a_meaning_there(plan, tmp_path):
    plan.write_text(plan.read_text().replace("clone:", "50 % & more_clone:"))
    board = load_board(plan, methods=["distillation", "50 % & more_clone"])
    text = latex(summary_table(board, {}))
    assert r"50 \% \& more\_clone & learner & offline & none & -- \\" in text


def test_published_results_with_other_columns_are_refused(tmp_path):
    (tmp_path / "published.csv").write_text("world,method\nroom,AD\n")
    with pytest.raises(ConfigError, match="must have the columns"):
        read_lines(tmp_path / "published.csv", Published)
    assert read_lines(tmp_path / "none.csv", Published) == []


def test_the_verb_makes_missing_runs_once_and_writes_all_files(plan, tmp_path, capsys):
    records = tmp_path / "out" / "leaderboard.csv"  # the default's name
    records.parent.mkdir()
    plan.write_text(plan.read_text().replace("seeds: [0, 1, 2]", "seeds: [0, 1]"))
    argv = ["--file", str(plan), "--root", str(tmp_path / "runs"), "--records", str(records)]
    (tmp_path / "runs").mkdir()
    assert exit_code(VERBS["leaderboard"], argv) == 0
    assert len(read_records(records)) == 4
    files = sorted(path.name for path in records.parent.iterdir() if path.name[0] != ".")
    assert files == [
        *(f"leaderboard.{end}" for end in ("csv", "html", "md", "tex")),
        "leaderboard_scores.csv",
    ]
    before = records.read_bytes()
    capsys.readouterr()
    assert exit_code(VERBS["leaderboard"], argv) == 0
    assert records.read_bytes() == before
    assert "4 of 4 runs" in capsys.readouterr().out
    made = next(iter(read_records(records).values()))
    known = ("normalized_return_last10", "random_nauc", "tabular_learner_nauc", "source_share")
    assert None not in {made[name] for name in known}
    assert made["curve"].startswith("1:") and made["per_task"].count(":") == 3


def test_chosen_cells_have_a_page_of_their_own(plan, tmp_path, capsys):
    argv = ["--file", str(plan), "--records", str(tmp_path / "board.csv"), "--table", "true"]
    assert exit_code(VERBS["leaderboard"], [*argv, "--methods", "clone"]) == 0
    assert [path.name for path in tmp_path.glob("*.html")] == ["leaderboard_selection.html"]
    assert exit_code(VERBS["leaderboard"], [*argv, "--small", "true", "--board", "other"]) == 2
    assert "--small true is --board small" in capsys.readouterr().err


def test_a_board_without_records_has_a_page(plan, tmp_path):
    write_leaderboard(load_board(plan), tmp_path / "none.csv", tmp_path, "board")
    assert "\nMissing runs: 6 of 6.\n" in (tmp_path / "board.md").read_text()
