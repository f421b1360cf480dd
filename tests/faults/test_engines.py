"""Sweeps whose processes are killed or work at the same time: each run is recorded once."""

import json
import os
import signal
import time

import pytest
from killing import Killer, campaign
from processes import jobs_of, parent_of
from small_board import SmallBoard, start_board

from ad.sweeps.records import read_records

FULL = pytest.mark.faults


@pytest.fixture(scope="module")
def killer() -> Killer:
    """Start verbs in processes forked from a server with the imports done."""
    return Killer(seed=21)


@pytest.fixture(scope="module")
def untouched(killer, tmp_path_factory) -> SmallBoard:
    """A board whose runs one process has made without a fault; tests only read it."""
    board = SmallBoard(tmp_path_factory.mktemp("untouched"))
    board.seconds = killer.run("leaderboard", [*board.words, "--runs", "true"])
    return board


def lost(board: SmallBoard, untouched: SmallBoard) -> list[str]:
    """Return the keys of the records that differ from those of the board without faults."""
    expected, found = untouched.scores(), board.scores()
    return [key for key in expected | found if expected.get(key) != found.get(key)]


@pytest.mark.parametrize(
    "kills", [pytest.param(1, marks=pytest.mark.slow), pytest.param(15, marks=FULL)]
)
def test_kills_at_random_moments_of_a_sweep_lose_no_record(
    untouched, killer, tmp_path, ledger, kills
):
    kind = "kill -9 at a random moment of a sweep"

    def trial(number: int) -> tuple[int, object]:
        board = SmallBoard(tmp_path / str(number))
        words = [*board.words, "--runs", "true"]
        hits = killer.run_with_kills("leaderboard", words, untouched.seconds, 2)
        return hits, lost(board, untouched)

    campaign(ledger, kind, kills, trial)
    assert not ledger.lost(kind)


@pytest.mark.parametrize(
    "times", [pytest.param(1, marks=pytest.mark.slow), pytest.param(10, marks=FULL)]
)
def test_processes_that_make_the_same_runs_make_each_once(
    untouched, killer, tmp_path, ledger, times
):
    kind = "two processes of one sweep in one folder at the same time"
    for number in range(times):
        board = SmallBoard(tmp_path / str(number))
        words = [*board.words, "--runs", "true", "--keep", "true"]
        both = [killer.start("leaderboard", words) for _ in range(2)]
        for process in both:
            process.join()
        assert [process.exitcode for process in both] == [0, 0]
        sessions = [json.loads(p.read_text()) for p in board.root.glob("logs/*/sessions.json")]
        assert len(sessions) == 4
        again = [session for session in sessions if len(session["train"]) > 1]
        ledger.count(kind, lost(board, untouched) + again)
    assert not ledger.lost(kind)


def sessions_of(board: SmallBoard) -> dict[str, bytes]:
    """Return what is known of the processes that trained the recorded runs of `board`, by run."""
    recorded = read_records(board.records)
    names = [run.config.name for run in board.runs if run.key in recorded]
    return {name: (board.root / "logs" / name / "sessions.json").read_bytes() for name in names}


@pytest.mark.parametrize(
    "faults", [pytest.param(1, marks=pytest.mark.slow), pytest.param(10, marks=FULL)]
)
def test_a_disk_that_fills_up_during_a_sweep_loses_no_record(
    untouched, killer, small_disk, tmp_path, ledger, faults
):
    kind, disk_kib = "a disk that fills up during a sweep", 4096

    def trial(number: int) -> tuple[int, object]:
        # Whole sweeps, and what each of the four runs keeps, take about 1,300 KiB.
        board = SmallBoard(small_disk(tmp_path / str(number), disk_kib))
        other = board.root.parent / "other"
        other.write_bytes(bytes((disk_kib - int(killer.rng.uniform(100, 1200))) * 1024))
        words = [*board.words, "--runs", "true", "--keep", "true"]
        process = killer.start("leaderboard", words)
        process.join()
        assert process.exitcode in (0, 3)
        before = sessions_of(board)
        other.unlink()
        killer.run("leaderboard", words)
        after = sessions_of(board)
        again = [name for name in before if before[name] != after[name]]
        return process.exitcode // 3, lost(board, untouched) + again

    campaign(ledger, kind, faults, trial)
    assert not ledger.lost(kind)


@pytest.fixture(scope="module")
def longer(tmp_path_factory) -> SmallBoard:
    """A board of longer trainings that one process has made; tests only read it."""
    board = SmallBoard(tmp_path_factory.mktemp("longer"), steps=200)
    assert start_board(board).wait(900) == 0
    return board


@FULL
@pytest.mark.parametrize(
    ("launcher", "victim"),
    [
        *(("local", victim) for victim in ("worker", "driver", "both", "preempted")),
        *(
            ("submitit", victim)
            for victim in ("worker", "machine", "driver", "preempted", "time limit")
        ),
    ],
)
def test_a_killed_worker_or_driver_loses_nothing(longer, tmp_path, ledger, launcher, victim):
    kind = f"--launcher {launcher}, {victim}"
    board = SmallBoard(tmp_path, steps=200)
    settings = "{cluster: local}" if launcher == "submitit" else ""
    words = ["--launcher", launcher, "--launcher_settings", settings, "--keep", "true"]
    driver = start_board(board, *words)
    while not (found := list(board.root.glob("logs/*/checkpoints/step_*.pt"))):
        assert driver.poll() is None
        time.sleep(0.02)
    trained = found[0].parent.parent.name
    job = jobs_of(board.plan)[board.shard_of(trained)]
    if victim == "time limit":
        os.kill(parent_of(job), signal.SIGUSR2)
    if victim == "preempted":  # SLURM asks all processes of a job to stop
        os.kill(job, signal.SIGTERM)
    if victim == "machine":
        os.kill(parent_of(job), signal.SIGKILL)
    if victim in ("worker", "machine", "both"):
        os.kill(job, signal.SIGKILL)
    if victim in ("driver", "both"):
        driver.kill()
        assert driver.wait(60) == -signal.SIGKILL
        driver = start_board(board, *words)  # at once, while the jobs of the first go on
    assert driver.wait(900) == 0
    sessions = json.loads((board.root / "logs" / trained / "sessions.json").read_text())["train"]
    assert len(sessions) == 1 + (victim != "driver")
    ledger.count(kind, lost(board, longer))
    assert not ledger.lost(kind)
