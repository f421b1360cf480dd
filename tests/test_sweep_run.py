"""Sweeps from plan to page: which runs are made, once, what is recorded, and what fails."""

import threading
import time
from dataclasses import replace

import pytest
from small_board import SmallBoard
from sweeps import make, records_of, scored

from ad import pipeline
from ad.cli import VERBS, exit_code
from ad.errors import ConfigError, CorruptError, NumericError
from ad.runtime.locks import locked
from ad.runtime.signals import Terminated
from ad.sweeps.records import add_records, merge_records, read_records
from ad.sweeps.run import list_runs, missing_batches, new_measure, run_missing, take_shard


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


def test_the_folders_of_finished_runs_are_removed_unless_they_are_kept(made, tmp_path):
    board = SmallBoard(tmp_path)
    add_records(board.records, read_records(made.records).values())
    folder = board.root / "logs" / board.runs[0].config.name
    measure = new_measure(board.sweep)
    for keep in (True, False):
        folder.mkdir(parents=True, exist_ok=True)  # of a process that was killed after its record
        assert not missing_batches(board.records, measure, board.runs, board.root, keep)
        assert folder.exists() == keep


def test_two_shards_make_the_records_of_one_process(made, tmp_path):
    board, measure = SmallBoard(tmp_path), new_measure(made.sweep)
    for number in (2, 1):
        own = take_shard(measure, board.runs, number, 2)
        run_missing(board.records, measure, measure.batches(own), board.root)
        assert len(read_records(board.records)) == 4 / number
    assert board.scores() == made.scores()


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
    with pytest.raises(NumericError, match="1 of 4 batches failed"):
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
    diverges.clear()
    make(board.sweep, board.root, retry=True)
    assert made[4:] == [bad.key] and not read_records(board.records)[bad.key].failure


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


def test_a_run_whose_folder_is_locked_is_running_and_comes_last(made, tmp_path, capsys):
    board, measure = SmallBoard(tmp_path), new_measure(made.sweep)
    first, *others = board.runs
    folder = board.root / "logs" / first.config.name
    batches = measure.batches(board.runs)
    with locked(folder):
        list_runs(board.records, measure, board.runs, board.root)
        states = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert states[:4] == ["running", "missing", "missing", "missing"]
        process = threading.Thread(
            target=run_missing, args=(board.records, measure, batches, board.root), daemon=True
        )
        process.start()
        while len(read_records(board.records)) < len(others):
            assert process.is_alive()
            time.sleep(0.05)
        assert first.key not in read_records(board.records)
    process.join(120)
    assert board.scores() == made.scores()


def test_records_come_back_as_they_were_written(made, tmp_path):
    records, path = read_records(made.records), tmp_path / "copy.jsonl"
    add_records(path, records.values())
    assert path.read_bytes() == made.records.read_bytes() and read_records(path) == records
    assert scored(records) == scored(read_records(path))


@pytest.mark.parametrize("text", ["{", "{}"])
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
    add_records(other, [replace(record, values={})])
    merge_records(path, [other])
    assert "other values of the same versions" in capsys.readouterr().err
    add_records(path, [replace(record, failure="diverged")])
    merge_records(path, [made.records])
    assert read_records(path)[key] == record  # in place of a failure
    with pytest.raises(ConfigError, match=r"there is no file .*none\.jsonl"):
        merge_records(path, [tmp_path / "none.jsonl"])
