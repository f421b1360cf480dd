"""A training verifies the histories once, and again what has changed since."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ad.data import load
from ad.data.histories import HistoryStore
from ad.data.load import load_dataset
from ad.data.manifest import check_file
from ad.data.store import load_history
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
    load_dataset(run)
    assert sorted(read) == sorted(files_of(run))
    read.clear()
    load_dataset(run)
    assert read == []
    touched, copied, *_ = files_of(run)
    os.utime(touched)
    status, content = copied.stat(), copied.read_bytes()
    copied.unlink()
    copied.write_bytes(content)
    os.utime(copied, ns=(status.st_atime_ns, status.st_mtime_ns))
    load_dataset(run)
    assert sorted(read) == sorted([touched, copied])


@pytest.mark.parametrize("keeps_time", [False, True])
def test_a_changed_byte_is_found_although_the_file_was_verified(run, keeps_time):
    load_dataset(run)
    path = files_of(run)[3]
    status = path.stat()
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    if keeps_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(CorruptError, match=f"{path.name} is not what was written"):
        load_dataset(run)


@pytest.mark.parametrize("content", ["{", '{"task/action.npy": "1 2 3"}', "[]"])
def test_a_damaged_record_is_made_again(run, read, content):
    load_dataset(run)
    record = HistoryStore(run.config).path / load.VERIFIED
    good = record.read_text()
    record.write_text(content)
    read.clear()
    load_dataset(run)
    assert sorted(read) == sorted(files_of(run)) and record.read_text() == good


def test_a_file_that_was_written_just_now_is_not_recorded(run, read, monkeypatch):
    monkeypatch.setattr(load, "CLOCK_TICK", 10**15)
    load_dataset(run)
    load_dataset(run)
    assert len(read) == 2 * len(files_of(run))


def test_a_dataset_that_cannot_be_written_to_is_read_every_time(run, read, monkeypatch):
    def refuse(*arguments):
        raise PermissionError

    monkeypatch.setattr(load, "write_checked_json", refuse)
    load_dataset(run)
    load_dataset(run)
    assert len(read) == 2 * len(files_of(run))


def test_an_interrupted_start_keeps_what_it_has_verified(run, read, monkeypatch):
    def interrupt(folder, **options):
        if folder == HistoryStore(run.config).folder(run.split.train_tasks[2]):
            raise KeyboardInterrupt
        return load_history(folder, **options)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(load, "load_history", interrupt)
        load_dataset(run)
    before = set(read)
    assert 0 < len(before) < len(files_of(run))
    load_dataset(run)
    assert sorted(read) == sorted(files_of(run))


def test_a_file_that_changes_while_it_is_read_is_not_recorded(run, monkeypatch):
    touched = files_of(run)[0]

    def check(path, entry):
        check_file(path, entry)
        if path == touched:
            os.utime(path)

    with monkeypatch.context() as patched:
        patched.setattr(load, "check_file", check)
        load_dataset(run)
    record = (touched.parent.parent / load.VERIFIED).read_text()
    names = [f"{path.parent.name}/{path.name}" for path in files_of(run)]
    assert [name for name in names if f'"{name}"' not in record] == names[:1]


def test_other_processes_read_nothing_that_the_first_has_verified(run, read):
    def broadcast(function, *arguments):  # as it is in a process that is not the first
        if not read:
            load_dataset(Run(run.config))
        before.extend(read[len(before) :])

    before: list[Path] = []
    dataset = load_dataset(run, broadcast)
    assert read == before and sorted(read) == sorted(files_of(run))
    assert len(dataset.histories) == len(run.split.train_tasks)
