"""Launchers: the same records by every one, and jobs that fail, are lost or reach a time limit."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import ROOT
from small_board import SmallBoard

from ad.cli import VERBS, exit_code
from ad.collection.collect import collect
from ad.config.help import launcher_help
from ad.data.histories import HistoryStore
from ad.errors import ConfigError, CorruptError, MachineError, NumericError
from ad.registry import LAUNCHERS
from ad.runtime.locks import is_locked, locked
from ad.runtime.run import Run
from ad.runtime.signals import Terminated
from ad.sweeps.failures import failures_file
from ad.sweeps.launchers.base import LOST, SHARD
from ad.sweeps.launchers.launch import new_launcher, run_jobs
from ad.sweeps.launchers.submitit import Job
from ad.sweeps.planned import shard
from ad.sweeps.records import add_records, merge_records, read_records
from ad.sweeps.runs import list_runs, run_missing

ON_THIS_MACHINE = {"local": "", "submitit": "{cluster: local}"}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> SmallBoard:
    """A board whose runs this process has made; tests only read it."""
    board = SmallBoard(tmp_path_factory.mktemp("made"))
    assert exit_code(VERBS["leaderboard"], board.words) == 0
    return board


@pytest.fixture
def start(tmp_path):
    """start(name) returns a launcher that starts processes on this machine."""
    return lambda name: new_launcher(name, ON_THIS_MACHINE[name], "test", tmp_path / "jobs", 9)


def sh(text: str) -> list[str]:
    """Return the command of a job that runs a shell script."""
    return ["sh", "-c", text]


def test_two_shards_make_the_records_of_one_process(made, tmp_path):
    board = SmallBoard(tmp_path)
    for number in (2, 1):
        run_missing(board.records, shard(board.runs, number, 2), board.root)
        assert len(read_records(board.records)) == 4 / number
    assert board.scores() == made.scores() and len(made.scores()) == 4


@pytest.fixture(scope="module")
def of_one_seed(made, tmp_path_factory) -> SmallBoard:
    """A board with the records of the first seed of `made`, and their page; tests only read it."""
    board, records = (
        SmallBoard(tmp_path_factory.mktemp("first"), seeds=[0]),
        read_records(made.records),
    )
    add_records(board.records, [records[run.key] for run in board.runs])
    assert exit_code(VERBS["leaderboard"], [*board.words, "--table", "true"]) == 0
    return board


@pytest.mark.parametrize("name", ["submitit", pytest.param("local", marks=pytest.mark.slow)])
def test_jobs_make_the_records_and_the_page_of_one_process(
    of_one_seed, tmp_path, name, monkeypatch
):
    monkeypatch.chdir(ROOT)
    board, settings = SmallBoard(tmp_path, seeds=[0]), ON_THIS_MACHINE[name]
    words = [*board.words, "--launcher", name, "--launcher_settings", settings]
    assert exit_code(VERBS["leaderboard"], words) == 0
    assert board.scores() == of_one_seed.scores() and len(board.scores()) == 2
    assert board.page() == of_one_seed.page()
    assert not list((board.root / "logs").iterdir())


@pytest.mark.parametrize("name", ON_THIS_MACHINE)
def test_exit_codes_come_back_in_the_order_of_the_jobs(start, name):
    assert start(name).run([sh("exit 5"), sh("sleep 0.1"), sh("kill -9 $$")]) == [5, 0, -9]


@pytest.mark.slow  # submitit waits for its result
def test_a_worker_of_submitit_that_is_killed_is_a_lost_job(start):
    assert start("submitit").run([sh("kill -9 $PPID; sleep 0.2")]) == [LOST]


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


@pytest.mark.parametrize("code", [130, 143])
def test_a_job_that_is_told_to_stop_has_not_failed_and_is_started_again(
    start, tmp_path, capsys, code
):
    preempted = sh(f"echo x >> {tmp_path}/starts; mkdir {tmp_path}/saved && exit {code}; exit 0")
    run_jobs(start("local"), [preempted])
    assert (tmp_path / "starts").read_text() == 2 * "x\n"
    assert "1 of 1 jobs were interrupted and are started again" in capsys.readouterr().err
    with pytest.raises(MachineError, match=r"1 of 2 jobs were interrupted 4 times: .* resumes"):
        run_jobs(start("local"), [sh("exit 0"), sh(f"exit {code}")])
    with pytest.raises(MachineError, match="2 of 2 jobs were lost or interrupted 4 times"):
        run_jobs(start("local"), [sh("kill -9 $$"), sh(f"exit {code}")])


def test_a_run_that_is_told_to_stop_has_not_failed(tmp_path, monkeypatch, capsys):
    def stop(configs):
        raise Terminated

    board = SmallBoard(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("ad.pipeline.collect_and_train", stop)
        assert exit_code(VERBS["leaderboard"], board.words) == 143
    assert "terminated; run the same command to resume" in capsys.readouterr().err
    assert not failures_file(board.records).exists()
    list_runs(board.records, board.runs, board.root)
    assert "leaderboard: 4 of 4 runs are missing" in capsys.readouterr().out


def test_a_job_in_the_debug_executor_of_submitit_runs_in_this_process(tmp_path, capfd):
    launcher = new_launcher("submitit", "{cluster: debug}", "test", tmp_path / "jobs", 9)
    assert launcher.run([sh("echo $PPID; exit 3")]) == [3]
    assert str(os.getpid()) in capfd.readouterr().out.split()


def test_a_job_at_its_time_limit_stops_its_verb_and_is_queued_again(start, tmp_path):
    # As a verb: on SIGTERM it saves its state and ends with 143; the same command resumes.
    # SLURM sends the signal of the time limit to all processes of a job, also to the verb.
    job = f"""
if [ -e {tmp_path}/state ]; then echo resumed >> {tmp_path}/said; exit 0; fi
kill -USR2 $$
trap 'echo saved >> {tmp_path}/said; touch {tmp_path}/state; exit 143' TERM
echo $PPID > {tmp_path}/.worker; mv {tmp_path}/.worker {tmp_path}/worker
while :; do sleep 0.05; done
"""
    limit = threading.Thread(target=signal_worker, args=(tmp_path / "worker",))
    limit.start()
    assert start("submitit").run([sh(job)]) == [0]
    limit.join()
    assert (tmp_path / "said").read_text() == "saved\nresumed\n"


def signal_worker(file: Path) -> None:
    """Send the signal of a time limit to the process that writes its id to `file`."""
    while not file.exists():
        time.sleep(0.05)
    os.kill(int(file.read_text()), signal.SIGUSR2)


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


def test_the_script_for_sbatch_runs_a_shard_and_is_queued_again_when_it_is_told_to_stop(tmp_path):
    settings = "{jobs: 3, parallel: 2, partition: cpu, minutes: 30, options: {account: lab}}"
    launcher = new_launcher("submitit", settings, "study", tmp_path / "jobs", 9)
    script = launcher.script(["sh", "-c", f"echo {SHARD}; exit 143"])
    options = ("array=1-3%2", "partition=cpu", "time=30", "account=lab", "signal=TERM@90")
    assert all(f"#SBATCH --{option}\n" in script for option in options)
    assert "#SBATCH --requeue\n" in script and "gpus" not in script
    for name in ("srun", "scontrol"):
        (tmp_path / name).write_text(
            f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\nexec "$@"\n'
        )
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_JOB_ID": "77"}
    env = os.environ | slurm | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    ended = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (143, "2/3\n")
    assert (tmp_path / "calls").read_text().splitlines()[-1] == "scontrol requeue 77_2"


def test_a_dry_run_prints_the_jobs_and_makes_nothing(tmp_path, capsys):
    board = SmallBoard(tmp_path)
    words = [*board.words, "--launcher", "local", "--dry", "true", "--retry", "true"]
    assert exit_code(VERBS["leaderboard"], words) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith(f"ad.cli leaderboard {' '.join(board.words)} --runs true --shard 1/2")
    assert second == first.replace("1/2", "2/2")
    assert not board.root.exists() and not board.records.exists()


def test_more_jobs_than_runs_to_share_are_not_started(tmp_path, capsys):
    board = SmallBoard(tmp_path)
    words = ["--launcher", "local", "--launcher_settings", "{jobs: 30}", "--dry", "true"]
    assert exit_code(VERBS["leaderboard"], [*board.words, *words]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


@pytest.mark.parametrize("verb", ["tune", "seeds"])
def test_verbs_of_one_experiment_start_jobs_too(verb, tmp_path, capsys):
    words = ["--config_path", str(ROOT / "configs/smoke.yaml"), "--root", str(tmp_path)]
    words += ["--seeds", "3,4,5"] if verb == "seeds" else ["--tune.grid.learning_rate", "[1, 2]"]
    launch = ["--launcher", "local", "--launcher_settings", "{jobs: 5}", "--dry", "true"]
    assert exit_code(VERBS[verb], [*words, *launch]) == 0
    jobs = capsys.readouterr().out.splitlines()
    assert len(jobs) == (3 if verb == "seeds" else 1)
    assert all(f"ad.cli {verb} --config_path" in job for job in jobs)
    assert exit_code(VERBS[verb], [*words, *launch, "--fresh", "true"]) == 2
    assert "--fresh true cannot be given to a --launcher" in capsys.readouterr().err
    assert exit_code(VERBS[verb], [*words, *launch, "--shard", "1/2"]) == 2
    assert "--shard is " in capsys.readouterr().err
    assert exit_code(VERBS[verb], [*words, "--retry", "true"]) == 2  # they keep no failures
    assert "--retry is not an option" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--launcher", "submitti"], "not submitti; did you mean submitit?"),
        (["--launcher", "local", "--launcher_settings", "{job: 2}"], "did you mean jobs?"),
        (["--launcher", "local", "--launcher_settings", "{jobs: 0}"], "jobs must be at least 1"),
        (["--launcher", "local", "--launcher_settings", "{"], "--launcher_settings"),
        (["--launcher", "local", "--shard", "1/2"], "--shard is what --launcher gives"),
        (["--dry", "true"], "need --launcher"),
        (["--launcher", "no.such:Launcher"], "no.such cannot be imported"),
    ],
)
def test_wrong_options_get_a_sentence(words, sentence, tmp_path, capsys):
    board = SmallBoard(tmp_path)
    assert exit_code(VERBS["leaderboard"], [*board.words, *words]) == 2
    said = capsys.readouterr()
    assert sentence in said.err and said.err.count("\n") == 1
    assert not board.root.exists()


@pytest.mark.parametrize("name", ["submitit", "ray"])
def test_an_extra_that_is_missing_gets_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.setattr("ad.config.checks.find_spec", lambda package: None)
    with pytest.raises(ConfigError, match=rf'--launcher {name} needs .* -e "\.\[{name}\]"'):
        new_launcher(name, "", "test", tmp_path, 9)


def test_jobs_that_slurm_does_not_take_get_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # without sbatch and srun
    launcher = new_launcher("submitit", "{cluster: slurm}", "test", tmp_path / "jobs", 9)
    with pytest.raises(MachineError, match='submitit cannot submit the jobs: Could not detect "'):
        launcher.run([sh("exit 0")])


def test_a_cluster_of_ray_that_cannot_be_reached_gets_a_sentence(tmp_path, monkeypatch):
    def refuse(*_, **options):
        raise ConnectionError("no cluster\nanswers")

    monkeypatch.setattr("ad.config.checks.find_spec", lambda package: "installed")
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=refuse))
    launcher = new_launcher("ray", "{address: here}", "test", tmp_path, 9)
    with pytest.raises(MachineError, match="ray cannot reach here: no cluster answers"):
        launcher.run([sh("exit 0")])


def test_a_job_of_submitit_that_has_not_started_its_command_is_queued_again():
    assert Job(["true"]).checkpoint().function == Job(["true"])


def test_the_help_names_every_setting_of_every_launcher():
    text = launcher_help()
    for name in LAUNCHERS:
        own = text.split(f"--launcher is {name}")[1].split("--launcher is")[0]
        for setting in vars(LAUNCHERS.load(name).Settings()):
            assert f"\n  {setting} " in own


def test_a_run_whose_folder_is_locked_is_running_and_comes_last(made, tmp_path, capsys):
    board = SmallBoard(tmp_path)
    first, *others = board.runs
    folder = board.root / "logs" / first.config.name
    with locked(folder):
        list_runs(board.records, board.runs, board.root)
        states = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert states[:4] == ["running", "missing", "missing", "missing"]
        process = threading.Thread(
            target=run_missing, args=(board.records, board.runs, board.root), daemon=True
        )
        process.start()
        while len(read_records(board.records)) < len(others):
            time.sleep(0.05)
        # The other process is done.
        add_records(board.records, [read_records(made.records)[first.key]])
    process.join(60)
    assert not process.is_alive() and board.scores() == made.scores()
    assert "train: already done" not in capsys.readouterr().out and not folder.exists()


def test_a_run_waits_for_a_process_that_collects_its_histories(made, tmp_path):
    board = SmallBoard(tmp_path)
    first = board.runs[0]
    histories = HistoryStore(replace(first.config, root=str(board.root))).path
    written = histories.with_name("other") / ".history.345.tmp"
    written.mkdir(parents=True)  # by a process that collects other histories
    process = threading.Thread(
        target=run_missing, args=(board.records, [first], board.root), daemon=True
    )
    with locked(histories):
        process.start()
        while not is_locked(board.root / "logs" / first.config.name):
            time.sleep(0.05)
        time.sleep(0.5)  # long enough to ask for the histories
    process.join(60)
    assert board.scores() == {first.key: made.scores()[first.key]} and written.exists()


def test_all_that_a_collection_writes_is_written_under_its_lock(tmp_path, monkeypatch):
    board, held = SmallBoard(tmp_path), []
    config = replace(board.runs[0].config, root=str(board.root))

    def write(path, value):
        held.append(is_locked(path.parent))

    monkeypatch.setattr("ad.collection.collect.write_json", write)
    collect(Run(config))
    assert held == [True]


def test_records_of_other_machines_are_merged_once(made, tmp_path, capsys):
    whole, path = read_records(made.records), tmp_path / "records.csv"
    lines = made.records.read_text().splitlines(keepends=True)
    halves = [tmp_path / "a.csv", tmp_path / "b.csv"]
    halves[0].write_text("".join(lines[:4]))
    halves[1].write_text("".join([lines[0], *lines[2:]]))
    for _ in range(2):
        merge_records(path, halves)
        assert path.read_bytes() == made.records.read_bytes()
    assert "a.csv: 3 of 3 records are new" in capsys.readouterr().out
    key, record = next(iter(whole.items()))
    other = tmp_path / "c.csv"
    add_records(other, [record | {"torch": "1.0", "nauc": 0.0, "train_s": 9.0}])
    merge_records(path, [other])
    assert f"torch 1.0 in place of {record['torch']}; the record of {path} stays" in (
        capsys.readouterr().err
    )
    add_records(other, [record | {"train_s": 9.0}])
    merge_records(path, [other])
    assert not capsys.readouterr().err and read_records(path)[key] == record
    add_records(other, [record | {"nauc": 0.0}])
    merge_records(path, [other])
    assert "other scores of the same versions" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"there is no file .*none\.csv"):
        merge_records(path, [tmp_path / "none.csv"])
    other.write_bytes(b"\xff\x00")
    with pytest.raises(CorruptError, match=r"c\.csv is not a whole file of records"):
        merge_records(path, [other])


def test_records_of_other_versions_count_as_done_and_are_told(made, tmp_path, capsys):
    path, found = tmp_path / "records.csv", list(read_records(made.records).values())
    add_records(path, [found[0] | {"torch": "1.0"}, *found[1:]])
    list_runs(path, made.runs, tmp_path)
    *states, told, total = capsys.readouterr().out.splitlines()
    assert all(line.startswith("done") for line in states) and len(states) == 4
    assert told == (
        "1 of 4 records were made with other versions than this machine's (torch 1.0) and count "
        "as done"
    )
    assert total == "records: 0 of 4 runs are missing"


def test_a_sweep_is_run_by_the_front_end_of_its_file(made, tmp_path, monkeypatch, capsys):
    words = [*made.words, "--status", "true"]
    assert exit_code(VERBS["sweep"], words) == 0
    assert capsys.readouterr().out.endswith("leaderboard: 0 of 4 runs are missing\n")
    findings = ["--file", str(ROOT / "configs/interpret/findings.yaml"), "--status", "true"]
    monkeypatch.chdir(ROOT)
    assert exit_code(VERBS["sweep"], [*findings, "--records", str(tmp_path / "none.csv")]) == 0
    assert "tables missing" in capsys.readouterr().out
    (tmp_path / "other.yaml").write_text("x: 1\n")
    for argv, sentence in [
        (
            ["--file", str(tmp_path / "other.yaml")],
            "is no sweep: it has no models, tables or boards",
        ),
        (["--shard", "1/2"], "--file is missing: only --status true is for all sweeps"),
    ]:
        assert exit_code(VERBS["sweep"], argv) == 2
        assert sentence in capsys.readouterr().err


def test_the_status_of_all_sweeps_is_that_of_the_files_in_configs(
    made, tmp_path, monkeypatch, capsys
):
    plan = tmp_path / "configs/leaderboard/leaderboard.yaml"
    plan.parent.mkdir(parents=True)
    plan.write_text(made.plan.read_text())
    monkeypatch.chdir(tmp_path)
    assert exit_code(VERBS["sweep"], ["--status", "true"]) == 0
    *runs, total = capsys.readouterr().out.splitlines()
    assert len(runs) == 4 and all(line.startswith("missing  split 0  seed ") for line in runs)
    assert total == "leaderboard: 4 of 4 runs are missing"


@pytest.mark.slow
def test_the_status_of_the_committed_sweeps_names_each(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert exit_code(VERBS["sweep"], ["--status", "true"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = {line.split(":")[0] for line in lines if "runs are missing" in line}
    assert names == {"study", "study_obstacles", "results", "minigrid", "leaderboard"}
