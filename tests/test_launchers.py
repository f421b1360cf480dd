"""Launchers: the same records by every one, and jobs that fail, are lost or reach a time limit."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import ROOT
from small_board import SmallBoard
from sweeps import make

from ad.cli import VERBS, exit_code
from ad.errors import MachineError, NumericError
from ad.sweeps.launchers.launch import new_launcher, run_jobs
from ad.sweeps.launchers.submitit import Job
from ad.sweeps.pages import write_page

ON_THIS_MACHINE = {"local": "", "submitit": "{cluster: local}"}


@pytest.fixture
def start(tmp_path):
    """start(name) returns a launcher that starts processes on this machine."""
    return lambda name: new_launcher(name, ON_THIS_MACHINE[name], "test", tmp_path / "jobs", 9)


def sh(text: str) -> list[str]:
    """Return the command of a job that runs a shell script."""
    return ["sh", "-c", text]


@pytest.fixture(scope="module")
def of_one_seed(tmp_path_factory) -> SmallBoard:
    """A board of one seed whose runs this process has made; tests only read it."""
    board = SmallBoard(tmp_path_factory.mktemp("first"), seeds=[0])
    make(board.sweep, board.root)
    write_page(board.sweep, board.root)
    return board


def test_jobs_make_the_records_and_the_page_of_one_process(of_one_seed, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    board = SmallBoard(tmp_path, seeds=[0])
    assert exit_code(VERBS["leaderboard"], [*board.words, "--launcher", "local"]) == 0
    assert board.scores() == of_one_seed.scores() and len(board.scores()) == 2
    assert board.page() == of_one_seed.page()
    assert not list((board.root / "logs").iterdir())


def test_a_page_is_written_after_a_job_whose_numbers_go_wrong(of_one_seed, tmp_path, monkeypatch):
    def launch(*_):
        raise NumericError("1 of 2 jobs failed")

    board = SmallBoard(tmp_path, seeds=[0])
    monkeypatch.setattr("ad.sweeps.launchers.launch.launch", launch)
    assert exit_code(VERBS["leaderboard"], [*board.words, "--launcher", "local"]) == 5
    assert "0 of 2 runs" in board.page()


@pytest.mark.parametrize("name", ON_THIS_MACHINE)
def test_exit_codes_come_back_in_the_order_of_the_jobs(start, name):
    assert start(name).run([sh("exit 5"), sh("sleep 0.1"), sh("kill -9 $$")]) == [5, 0, -9]


def test_the_error_of_a_failed_job_is_that_of_its_exit_code(start):
    launcher = start("local")
    with pytest.raises(NumericError, match="2 of 3 jobs failed, the first with exit code 5"):
        run_jobs(launcher, [sh("exit 0"), sh("exit 5"), sh("exit 3")])
    with pytest.raises(MachineError, match="1 of 1 jobs failed, the first with exit code 1:"):
        run_jobs(launcher, [sh("exit 1")])


def test_a_job_that_is_killed_is_started_again_and_the_others_are_not(start, tmp_path, capsys):
    done = sh(f"echo x >> {tmp_path}/done")
    once = sh(f"mkdir {tmp_path}/tried && kill -9 $$; echo x >> {tmp_path}/killed")
    run_jobs(start("local"), [done, once])
    assert [(tmp_path / name).read_text() for name in ("done", "killed")] == ["x\n", "x\n"]
    assert "warning: 1 of 2 jobs were lost and are started again" in capsys.readouterr().err


def test_a_job_that_is_always_killed_is_given_up(start, tmp_path):
    with pytest.raises(MachineError, match="lost 4 times"):
        run_jobs(start("local"), [sh(f"echo x >> {tmp_path}/tries; kill -9 $$")])
    assert (tmp_path / "tries").read_text() == 4 * "x\n"


def test_a_job_that_is_told_to_stop_has_not_failed_and_is_started_again(start, tmp_path, capsys):
    code = 143
    preempted = sh(f"echo x >> {tmp_path}/starts; mkdir {tmp_path}/saved && exit {code}; exit 0")
    run_jobs(start("local"), [preempted])
    assert (tmp_path / "starts").read_text() == 2 * "x\n"
    assert "1 of 1 jobs were interrupted and are started again" in capsys.readouterr().err
    with pytest.raises(MachineError, match=r"1 of 2 jobs were interrupted 4 times: .* resumes"):
        run_jobs(start("local"), [sh("exit 0"), sh(f"exit {code}")])
    with pytest.raises(MachineError, match="2 of 2 jobs were lost or interrupted 4 times"):
        run_jobs(start("local"), [sh("kill -9 $$"), sh(f"exit {code}")])


@pytest.mark.parametrize("name", ["local", pytest.param("submitit", marks=pytest.mark.slow)])
def test_jobs_are_stopped_when_their_launcher_is(name, tmp_path):
    program = f"""
from pathlib import Path
from ad.runtime import signals
from ad.sweeps.launchers.launch import new_launcher

signals.install()
folder = Path({str(tmp_path)!r})
launcher = new_launcher({name!r}, {ON_THIS_MACHINE[name]!r}, "test", folder / "jobs", 9)
launcher.run([["sh", "-c", "trap 'touch {tmp_path}/stopped; exit 143' TERM; "
    "touch {tmp_path}/started; while :; do sleep 0.05; done"]])
"""
    driver = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.DEVNULL)
    wait_for(tmp_path / "started")
    driver.terminate()
    assert driver.wait(60)
    wait_for(tmp_path / "stopped")


def wait_for(file: Path) -> None:
    """Wait until `file` exists, for a minute at most."""
    for _ in range(1200):
        if file.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{file} was not written")


def test_a_dry_run_prints_the_jobs_and_makes_nothing(tmp_path, capsys):
    board = SmallBoard(tmp_path)
    words = [*board.words, "--launcher", "local", "--dry", "true", "--retry", "true"]
    assert exit_code(VERBS["leaderboard"], words) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f"ad.cli leaderboard {' '.join(board.words)} --runs true --shard 1/2")
    assert second == first.replace("1/2", "2/2")
    assert not board.root.exists() and not board.records.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--launcher", "submitti"], "submitit"),
        (["--launcher", "local", "--launcher_settings", "{jobs: 0}"], "jobs"),
        (["--dry", "true"], "--launcher"),
    ],
)
def test_wrong_options_get_a_sentence(words, sentence, tmp_path, capsys):
    board = SmallBoard(tmp_path)
    assert exit_code(VERBS["leaderboard"], [*board.words, *words]) == 2
    said = capsys.readouterr()
    assert sentence in said.err and said.err.count("\n") == 1
    assert not board.root.exists()


def test_a_job_of_submitit_that_has_not_started_its_command_is_queued_again():
    assert Job(["true"]).checkpoint().function == Job(["true"])
