"""Sweeps from plan to page: which runs are made, once, what is recorded, and what fails."""

import json
import threading
import time
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from processes import ROOT
from small_board import CLONE, EXPERIMENT, SmallBoard
from sweeps import make, page_of, records_of, scored, write_sweep
from test_sweep_plan import BOARD

from ad import pipeline
from ad.cli import VERBS, exit_code
from ad.data.histories import HistoryStore
from ad.errors import ConfigError, CorruptError, NumericError
from ad.runtime.locks import is_locked, locked
from ad.runtime.run import world_title
from ad.runtime.signals import Terminated
from ad.sweeps.load import load_sweep
from ad.sweeps.measures import Measure
from ad.sweeps.pages import write_page
from ad.sweeps.records import add_records, merge_records, read_records
from ad.sweeps.run import budget, list_runs, new_measure, run_missing, take_shard


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> SmallBoard:
    """A board whose runs this process has made; tests only read it."""
    board = SmallBoard(tmp_path_factory.mktemp("made"))
    assert exit_code(VERBS["leaderboard"], board.words) == 0
    return board


def test_the_verb_makes_missing_runs_once_and_writes_the_page(made, capsys):
    assert len(read_records(made.records)) == 4
    before = made.records.read_bytes()
    assert exit_code(VERBS["leaderboard"], made.words) == 0
    assert made.records.read_bytes() == before and "4 of 4 runs" in capsys.readouterr().out
    assert "| distillation | " in made.page()
    assert (made.root / "leaderboard.html").exists() and not list((made.root / "logs").iterdir())
    record = next(iter(read_records(made.records).values()))
    values = record.values[""]
    known = {"nauc", "normalized_return_last10", "source_share", "success_fifth_1", "train_nauc"}
    assert known <= values["scores"].keys() and len(values["per_task"]) == 3
    assert list(values["curve"]) == ["1", "2", "3"] and 0 < values["references"]["random"] < 1
    assert {"version", "torch", "device"} <= record.made_with.keys() and record.seconds["train_s"]


def test_a_run_made_again_loses_no_world_and_a_failure_no_scores(made, tmp_path):
    path, record = tmp_path / "records.jsonl", next(iter(read_records(made.records).values()))
    for worlds in ({"": {}, "size 11": {}}, {"": {"again": True}, "size 13": {}}):
        add_records(path, [replace(record, values=worlds)])
    add_records(path, [replace(record, values={}, failure="the loss is not finite")])
    (kept,) = read_records(path).values()
    assert kept.values == {"": {"again": True}, "size 11": {}, "size 13": {}} and not kept.failure


def test_a_checkout_that_is_not_installed_makes_no_run(tmp_path, monkeypatch, capsys):
    def version(name: str):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("ad.sweeps.run.version", version)
    board = SmallBoard(tmp_path)
    assert exit_code(VERBS["leaderboard"], board.words) == 3
    assert "is not installed in this Python" in capsys.readouterr().err
    assert not board.root.exists() and not board.records.exists()


def test_a_later_command_leaves_kept_runs_and_unfinished_ones_of_another_board(made, tmp_path):
    board, measure = SmallBoard(tmp_path), new_measure(made.sweep)
    run_missing(board.records, measure, [board.runs[:1]], board.root, keep=True)
    kept, unfinished = (board.root / "logs" / run.config.name for run in board.runs[:2])
    (unfinished / "checkpoints").mkdir(parents=True)
    add_records(board.records, read_records(made.records).values())
    assert not make(board.sweep, board.root)
    run_missing(board.records, measure, [board.runs[:1]], board.root)  # after it was locked
    assert any((kept / "checkpoints").iterdir()) and (unfinished / "checkpoints").exists()


def test_two_shards_make_the_records_of_one_process(made, tmp_path):
    board, measure = SmallBoard(tmp_path), new_measure(made.sweep)
    for number in (2, 1):
        own = take_shard(measure, board.runs, number, 2)
        run_missing(board.records, measure, measure.bundles(own), board.root)
        assert len(read_records(board.records)) == 4 / number
    assert board.scores() == made.scores()


def test_a_run_is_recorded_in_each_world_that_it_was_evaluated_in(tmp_path):
    (tmp_path / "room.yaml").write_text(json.dumps(EXPERIMENT))
    worlds = {"model.encoder": "offsets", "evaluation.worlds": [{"size": 4}]}
    rows = {"larger": {"experiment": str(tmp_path / "room.yaml"), "settings": worlds}}
    groups = {"first": {"rows": rows}}
    sweep = write_sweep(tmp_path, {"splits": [3], "seeds": [5], "groups": groups})
    make(sweep, tmp_path / "runs")
    (record,) = read_records(sweep.records).values()
    assert set(record.values) == {"", "size 4"}
    assert record.score("num_tasks") != record.score("num_tasks", "size 4")
    assert "/room.yaml), size 4 | " in page_of(sweep)


def test_a_record_has_the_calibration_of_a_decision_transformer(tmp_path):
    (tmp_path / "room.yaml").write_text(json.dumps(EXPERIMENT))
    settings = {"method.name": "decision_transformer", "model.tokenizer": "conditioned"}
    settings |= {"evaluation.calibration": [0, 1], "data.context_length": 4}
    content = {"experiment": str(tmp_path / "room.yaml"), "settings": settings, "seeds": [0]}
    sweep = write_sweep(tmp_path, content | {"rows": {"asked": {}}})
    make(sweep, tmp_path / "runs")
    (record,) = read_records(sweep.records).values()
    assert 0 < record.score("held_out_accuracy") < 1 and 0 < record.score("random_return") < 1
    for achieved in record.values[""]["calibration"].values():
        assert list(achieved) == ["0.0", "1.0"] and all(0 <= v <= 1 for v in achieved.values())


def test_a_failed_run_says_why_and_is_made_again_only_if_asked(tmp_path, monkeypatch, capsys):
    board, made, diverges = SmallBoard(tmp_path), [], [True]
    plain, bad, *_ = board.runs

    def make_run(self, runs, root):
        for run in runs:
            made.append(run.key)
            if run.key == bad.key and diverges:
                raise NumericError("the loss, 1e39, is not finite")
            yield records_of(self.sweep, {run.row: [0.9, 0.9]})[run.key]

    monkeypatch.setattr("ad.sweeps.measures.Measure.make", make_run)
    with pytest.raises(NumericError, match="1 of 4 bundles failed"):
        make(board.sweep, board.root)
    assert len(made) == 4 and read_records(board.records)[bad.key].failure
    make(board.sweep, board.root)
    said = capsys.readouterr()
    assert len(made) == 4 and "1 of 4 runs failed" in said.err and "--retry true" in said.err
    list_runs(board.records, new_measure(board.sweep), board.runs, board.root)
    *lines, _, total = capsys.readouterr().out.splitlines()
    assert lines[0] == f"done     split 0  seed 0  {plain.label}: NAUC 0.900"
    assert lines[1] == f"failed   split 0  seed 0  {bad.label}: the loss, 1e39, is not finite"
    assert total == "leaderboard: 0 of 4 runs are missing, 1 failed"
    board.records.unlink()
    assert exit_code(VERBS["leaderboard"], board.words) == 5
    assert f"3 of 4 runs in {board.root}" in capsys.readouterr().out  # the page of the others
    diverges.clear()
    make(board.sweep, board.root, retry=True)
    assert made[8:] == [bad.key] and not read_records(board.records)[bad.key].failure


def test_runs_that_share_a_training_fail_with_it(tmp_path):
    (tmp_path / "room.yaml").write_text(json.dumps(EXPERIMENT))
    broken = {"training.learning_rate": 1e30}
    broken |= {"training.warmup_steps": 0, "training.gradient_norm": 1e30}
    content = {"experiment": str(tmp_path / "room.yaml"), "settings": broken, "seeds": [0]}
    sweep = write_sweep(tmp_path, content | {"grid": {"evaluation.temperature": [1.0, 2.0]}})
    with pytest.raises(NumericError, match="1 of 1 bundles failed"):
        make(sweep, tmp_path / "runs")
    failures = [record.failure for record in read_records(sweep.records).values()]
    assert len(failures) == 2 and all("finite" in failure for failure in failures)


def test_a_run_that_is_told_to_stop_has_not_failed(tmp_path, monkeypatch, capsys):
    def stop(*_, **options):
        raise Terminated

    board = SmallBoard(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "train", stop)
        assert exit_code(VERBS["leaderboard"], board.words) == 143
    assert "terminated; run the same command to resume" in capsys.readouterr().err
    assert exit_code(VERBS["leaderboard"], [*board.words, "--status", "true"]) == 0
    assert "leaderboard: 4 of 4 runs are missing" in capsys.readouterr().out


def test_the_budget_is_known_from_the_records(tmp_path, capsys):
    board = SmallBoard(tmp_path, seeds=[0, 1, 2])
    measure = new_measure(board.sweep)
    assert budget(measure, board.runs, {}) == "6 of 6 runs are missing"
    records = records_of(board.sweep, {"distillation": [0.8, 0.9, 1.0]})
    text = budget(measure, board.runs, records)
    assert text.startswith("3 of 6 runs are missing") and text.endswith("about 3 minutes")
    tuning = write_sweep(tmp_path / "tuning", BOARD, board="tuning")
    made = records_of(tuning, {"tuned: training.steps=21": [0.8]})
    text = budget(new_measure(tuning), tuning.planned_runs(), made)  # two trainings for four runs
    assert text.startswith("4 of 6 runs are missing") and text.endswith("about 2 minutes")
    add_records(board.records, records.values())
    list_runs(board.records, measure, board.runs, board.root)
    lines = capsys.readouterr().out.splitlines()
    assert "missing  split 0  seed 0  room / clone: about 1 minute" in lines[:2]
    assert "3 of 3 records were made with other versions" in lines[-2]  # torch 1


def test_a_run_whose_folder_is_locked_is_running_and_comes_last(made, tmp_path, capsys):
    board, measure = SmallBoard(tmp_path), new_measure(made.sweep)
    first, *others = board.runs
    folder = board.root / "logs" / first.config.name
    bundles = measure.bundles(board.runs)
    with locked(folder):
        list_runs(board.records, measure, board.runs, board.root)
        states = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert states[:4] == ["running", "missing", "missing", "missing"]
        process = threading.Thread(
            target=run_missing, args=(board.records, measure, bundles, board.root), daemon=True
        )
        process.start()
        while len(read_records(board.records)) < len(others):
            assert process.is_alive()
            time.sleep(0.05)
        assert first.key not in read_records(board.records)
    process.join(120)
    assert board.scores() == made.scores()


def test_a_run_waits_for_histories_that_another_process_collects(made, tmp_path):
    board, measure = SmallBoard(tmp_path), new_measure(made.sweep)
    first = board.runs[0]
    histories = HistoryStore(first.in_root(board.root)).path
    bundles = measure.bundles([first])
    with locked(histories):
        process = threading.Thread(
            target=run_missing, args=(board.records, measure, bundles, board.root), daemon=True
        )
        process.start()
        while not is_locked(board.root / "logs" / first.config.name):
            assert process.is_alive()
            time.sleep(0.05)
        assert not read_records(board.records)
    process.join(120)
    assert board.scores() == {first.key: made.scores()[first.key]}


def test_records_come_back_as_they_were_written(made, tmp_path):
    records, path = read_records(made.records), tmp_path / "copy.jsonl"
    add_records(path, records.values())
    assert path.read_bytes() == made.records.read_bytes() and read_records(path) == records
    assert scored(records) == scored(read_records(path))


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"key": "x"}', "\xff"])
def test_records_that_are_damaged_are_refused_with_their_line(made, tmp_path, text):
    path = tmp_path / "records.jsonl"
    path.write_text(made.records.read_text() + text, encoding="latin-1")
    with pytest.raises(CorruptError, match=r"records\.jsonl, line 5"):
        read_records(path)


def test_records_of_other_machines_are_merged_once(made, tmp_path, capsys):
    whole, path = read_records(made.records), tmp_path / "records.jsonl"
    halves = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    add_records(halves[0], list(whole.values())[:3])
    add_records(halves[1], list(whole.values())[1:])
    for _ in range(2):
        merge_records(path, halves)
        assert path.read_bytes() == made.records.read_bytes()
    assert "a.jsonl: 3 of 3 records are new" in capsys.readouterr().out
    key, record = next(iter(whole.items()))
    other, torch = tmp_path / "c.jsonl", record.made_with["torch"]
    add_records(other, [replace(record, made_with=record.made_with | {"torch": "1.0"})])
    merge_records(path, [other])
    stays = f"torch 1.0 in place of {torch}; the record of {path} stays"
    assert stays in capsys.readouterr().err
    add_records(other, [replace(record, seconds={"train_s": 9.0})])
    merge_records(path, [other])
    assert not capsys.readouterr().err and read_records(path)[key] == record
    add_records(other, [replace(record, values={"": {}})])
    merge_records(path, [other])
    assert "other values of the same versions" in capsys.readouterr().err
    add_records(path, [replace(record, failure="diverged")])
    merge_records(path, [made.records])
    assert read_records(path)[key] == record  # in place of a failure
    wider = replace(record, values=record.values | {"another world": record.values[""]})
    add_records(other, [wider])
    merge_records(path, [other])
    assert read_records(path)[key] == wider
    with pytest.raises(ConfigError, match=r"there is no file .*none\.jsonl"):
        merge_records(path, [tmp_path / "none.jsonl"])


def test_a_copy_of_a_sweep_has_records_of_its_own(made, tmp_path):
    copy = tmp_path / "mine.yaml"
    rows = {"distillation": {}, "own": {"settings": CLONE | {"training.steps": 10}}}
    content = {"groups": {"room": {"experiment": str(made.plan.with_name("room.yaml"))}}}
    sweep = write_sweep(tmp_path, content | {"rows": rows, "seeds": [0]}, "mine")
    before = made.records.read_bytes()
    words = ["--file", str(copy), "--root", str(tmp_path / "runs")]
    assert exit_code(VERBS["sweep"], [*words, "--merge", str(made.records)]) == 0
    assert exit_code(VERBS["sweep"], words) == 0
    assert made.records.read_bytes() == before
    runs = sweep.planned_runs()
    assert {run.key for run in runs} <= read_records(sweep.records).keys()
    assert sweep.records == tmp_path / "mine.jsonl"


def test_the_page_is_made_from_the_records_alone(tmp_path, capsys):
    board = SmallBoard(tmp_path)
    add_records(board.records, records_of(board.sweep, {"clone": [0.5, 0.7]}).values())
    write_page(board.sweep, board.root)
    assert "| clone |" in board.page() and "2 of 4 runs" in capsys.readouterr().out
    assert not (board.root / "logs").exists()


def test_the_status_of_all_sweeps_is_that_of_the_files_in_configs(
    made, tmp_path, monkeypatch, capsys
):
    plan = tmp_path / "configs/records/leaderboard.yaml"
    plan.parent.mkdir(parents=True)
    plan.write_text(made.plan.read_text())
    monkeypatch.chdir(tmp_path)
    assert exit_code(VERBS["sweep"], ["--status", "true"]) == 0
    *runs, total = capsys.readouterr().out.splitlines()
    assert len(runs) == 4 and all(line.startswith("missing  split 0  seed ") for line in runs)
    assert total == "leaderboard: 4 of 4 runs are missing"
    assert exit_code(VERBS["sweep"], ["--shard", "1/2"]) == 2
    assert "--file is missing" in capsys.readouterr().err


@pytest.mark.slow
def test_the_committed_sweeps_can_be_read(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in sorted(Path("configs/records").glob("*.yaml")):
        for board in load_sweep(path).config.boards or [""]:
            assert load_sweep(path, board).planned_runs()


def test_a_run_is_made_again_for_a_further_world_of_its_evaluation(made):
    measure, run = Measure(made.sweep), made.sweep.planned_runs()[0]
    further = replace(run.config.evaluation, worlds=[{"size": 7}])
    asked = replace(run, config=replace(run.config, evaluation=further))
    record = read_records(made.records)[run.key]
    assert asked.key == run.key  # the worlds change nothing of the run's own results
    assert measure.is_done(run, record) and not measure.is_done(asked, record)
    there = replace(record, values=record.values | {world_title({"size": 7}): {}})
    assert measure.is_done(asked, there)
