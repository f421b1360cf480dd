"""A training verifies the histories once, and again what has changed since."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ad.data import load
from ad.data.histories import HistoryStore
from ad.data.load import load_training_set
from ad.data.manifest import check_file
from ad.errors import CorruptError
from ad.runtime.run import Run


@pytest.fixture
def run(collected, tmp_path, monkeypatch) -> Run:
    """A run with its own copy of the histories, which are old enough to be recorded."""
    monkeypatch.setattr(load, "CLOCK_TICK", 0)
    config = collected("verified")
    folder = HistoryStore(config).path
    # Without the record that other tests may have made.
    own = tmp_path / "histories" / folder.name
    shutil.copytree(folder, own, ignore=shutil.ignore_patterns(load.VERIFIED))
    return Run(replace(config, root=str(tmp_path)))


@pytest.fixture
def read(monkeypatch) -> list[Path]:
    """The files of which every byte is read, in their order."""
    paths = []
    monkeypatch.setattr(
        load, "check_file", lambda path, entry: (paths.append(path), check_file(path, entry))
    )
    return paths


def files_of(run: Run) -> list[Path]:
    folders = HistoryStore(run.config).folders(run.split.train_tasks)
    return [path for folder in folders for path in folder.glob("*.npy")]


def test_a_second_start_reads_only_what_has_changed(run, read):
    load_training_set(run)
    assert sorted(read) == sorted(files_of(run))
    read.clear()
    load_training_set(run)
    assert read == []
    touched, copied, *_ = files_of(run)
    os.utime(touched)
    status, content = copied.stat(), copied.read_bytes()
    copied.unlink()
    copied.write_bytes(content)
    os.utime(copied, ns=(status.st_atime_ns, status.st_mtime_ns))
    load_training_set(run)
    assert sorted(read) == sorted([touched, copied])


@pytest.mark.parametrize("keeps_time", [False, True])
def test_a_changed_byte_is_found_although_the_file_was_verified(run, keeps_time):
    load_training_set(run)
    path = files_of(run)[3]
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    if keeps_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(CorruptError, match=f"{path.name} is not what was written"):
        load_training_set(run)


def test_other_processes_read_nothing_that_the_first_has_verified(run, read):
    def broadcast(function, *arguments):  # as it is in a process that is not the first
        if not read:
            load_training_set(Run(run.config))
        before.extend(read[len(before) :])

    before: list[Path] = []
    dataset = load_training_set(run, broadcast)
    assert read == before and sorted(read) == sorted(files_of(run))
    assert len(dataset.histories) == len(run.split.train_tasks)
