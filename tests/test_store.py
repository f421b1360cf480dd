"""The store: one writer at a time, nothing left behind, room taken first, no lie believed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ad.cli import VERBS, exit_code
from ad.collection.collect import collect
from ad.data.histories import HistoryStore
from ad.errors import MachineError
from ad.runtime import arrays as array_files
from ad.runtime.locks import is_locked, locked, locked_files
from ad.runtime.run import Run

ROOT = Path(__file__).parent.parent
HOLD = """
import sys, time
from pathlib import Path
from ad.runtime.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder():
    """holder(folder): another process that holds the folder; killed after the test."""
    processes = []

    def hold(folder: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(folder)]
        processes.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True))
        assert processes[-1].stdout.readline() == "held\n"
        return processes[-1]

    yield hold
    for process in processes:
        process.kill()
        process.wait()


def test_a_folder_that_another_process_holds_is_refused_until_that_is_killed(holder, tmp_path):
    process = holder(tmp_path / "run")
    with pytest.raises(MachineError, match="another process is writing"), locked(tmp_path / "run"):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(tmp_path / "run"):
        pass


def test_what_a_dead_process_left_half_written_is_removed(tmp_path):
    below = tmp_path / "run" / "checkpoints"
    (below / ".history.12.tmp").mkdir(parents=True)
    (tmp_path / "run" / ".config.yaml.345.tmp").write_text("half")
    (below / ".hidden").write_text("kept")
    with locked(tmp_path / "run"):
        assert [path.name for path in below.iterdir()] == [".hidden"]
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["checkpoints"]


def test_the_lock_of_files_leaves_the_folders_of_other_processes_alone(tmp_path, monkeypatch):
    written = tmp_path / "runs" / ".step_5.pt.345.tmp"
    written.parent.mkdir()
    written.write_text("another process writes this")
    (tmp_path / ".records.csv.12.tmp").write_text("half")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, Path()):
        with locked_files(folder):
            assert sorted(os.listdir(tmp_path)) == [".files.lock", "runs"]
    assert os.listdir(tmp_path) == ["runs"] and written.exists()


def test_a_question_for_a_lock_leaves_nothing_behind(holder, tmp_path):
    (tmp_path / ".run.lock").touch()  # of a process that was killed
    assert not is_locked(tmp_path / "run") and os.listdir(tmp_path) == []
    holder(tmp_path / "run")
    assert is_locked(tmp_path / "run") and os.listdir(tmp_path) == [".run.lock"]


def test_a_second_process_on_a_run_ends_with_a_sentence_and_3(holder, tmp_path, capsys):
    holder(tmp_path / "logs" / "x")
    assert exit_code(VERBS["verify"], ["--root", str(tmp_path), "--name", "x"]) == 3
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "another process is writing" in said


def test_a_second_process_on_a_dataset_is_refused(holder, smoke, tmp_path):
    run = Run.open(smoke(tmp_path))
    holder(HistoryStore(run.config).path)
    with pytest.raises(MachineError, match="another process"):
        collect(run)


def test_a_file_that_is_made_has_its_room_on_the_disk_and_the_header_of_numpy(tmp_path):
    array = array_files.create_memmap(tmp_path / "a.npy", np.uint16, (3, 50_000))
    assert (tmp_path / "a.npy").stat().st_blocks * 512 >= array.nbytes
    np.save(tmp_path / "b.npy", array)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
