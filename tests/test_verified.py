"""A training verifies the histories once, and again what has changed since."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ad.data import verified
from ad.data.histories import Histories
from ad.data.load import load_dataset
from ad.data.manifest import check_file
from ad.errors import CorruptError
from ad.runtime.run import Run


@pytest.fixture
def run(collected, tmp_path, monkeypatch) -> Run:
    """A run with its own copy of the histories, which are old enough to be recorded."""
    monkeypatch.setattr(verified, "CLOCK_TICK", 0)
    config = collected("verified")
    shutil.copytree(Histories(config).path, tmp_path / "histories" / Histories(config).path.name)
    return Run(replace(config, root=str(tmp_path)))


@pytest.fixture
def read(monkeypatch) -> list[Path]:
    """The files of which every byte is read, in their order."""
    paths = []
    monkeypatch.setattr(
        verified, "check_file", lambda path, entry: (paths.append(path), check_file(path, entry))
    )
    return paths


def files_of(run: Run) -> list[Path]:
    folders = Histories(run.config).folders(run.split.train_tasks)
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


def test_another_manifest_is_another_hash_to_verify(run, read):
    load_dataset(run)
    first, second, *_ = Histories(run.config).folders(run.split.train_tasks)
    shutil.copy(second / "unit.json", first / "unit.json")
    with pytest.raises(CorruptError, match="SHA-256 differs"):
        load_dataset(run)


@pytest.mark.parametrize("content", ["{", '{"task/action.npy": "1 2 3"}', "[]"])
def test_a_damaged_record_is_made_again(run, read, content):
    load_dataset(run)
    record = Histories(run.config).path / verified.VERIFIED
    good = record.read_text()
    record.write_text(content)
    read.clear()
    load_dataset(run)
    assert sorted(read) == sorted(files_of(run)) and record.read_text() == good


def test_a_file_that_was_written_just_now_is_not_recorded(run, read, monkeypatch):
    monkeypatch.setattr(verified, "CLOCK_TICK", 10**15)
    load_dataset(run)
    load_dataset(run)
    assert len(read) == 2 * len(files_of(run))


def test_a_dataset_that_cannot_be_written_to_is_read_every_time(run, read, monkeypatch):
    def refuse(*arguments):
        raise PermissionError

    monkeypatch.setattr(verified, "write_checked_json", refuse)
    load_dataset(run)
    load_dataset(run)
    assert len(read) == 2 * len(files_of(run))
