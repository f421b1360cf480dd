"""An interrupted collection is resumed; its histories are those of an uninterrupted one."""

import hashlib
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from processes import ROOT, start
from recorded import assert_a_restored_source_has_the_same_bits
from source_words import SOURCE_WORDS

from ad.collection.collect import collect
from ad.collection.job import CollectionJob, new_source
from ad.data.histories import HistoryStore
from ad.data.store import PARTIAL
from ad.registry import SOURCES
from ad.runtime.files import read_checked_json, write_checked_json
from ad.runtime.run import Run
from ad.runtime.snapshots import METADATA
from ad.sources.actors import CHUNK_STEPS

SMOKE = ROOT / "configs/smoke.yaml"
TASKS = np.array([[0, 0], [2, 2]])
LONG = ["--source.env_steps", "8800", "--source.state_every", "0"]  # five chunks of four actors
ICE = ["--env.id", "FrozenLake-v1", "--env.kwargs", "{}", "--split.num_train_tasks", "1"]
ICE += ["--env.tasks", "[{is_slippery: true}, {is_slippery: false}]"]


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below `folder`, by its path."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


# Agents of Stable-Baselines3 learn slowly: tests/test_stable_baselines3.py interrupts one.
@pytest.fixture(scope="module", params=[name for name in SOURCES if name != "stable_baselines3"])
def source(request) -> str:
    """The name of each registered source."""
    return request.param


@pytest.fixture(scope="module")
def whole(smoke, source, tmp_path_factory) -> Run:
    """A run of the source with five chunks of histories; tests only read it."""
    return whole_run(smoke, source, tmp_path_factory)


# What a collection does about its files does not depend on the source.
@pytest.fixture(scope="module", params=["a2c", "q_learning"])
def whole_of_two(smoke, request, tmp_path_factory) -> Run:
    """A run of a neural source and one of a tabular source; tests only read them."""
    return whole_run(smoke, request.param, tmp_path_factory)


def whole_run(smoke, source: str, tmp_path_factory) -> Run:
    """Collect the histories of the source without an interruption."""
    root = tmp_path_factory.mktemp(source)
    run = Run.open(smoke(root, *SOURCE_WORDS[source], *LONG))
    collect(run)
    return run


def other_run(whole: Run, root: Path) -> Run:
    """Return a run of the same configuration in another folder, without histories."""
    return Run.open(replace(whole.config, root=str(root)))


def cut(run: Run, chunks: int) -> None:
    """Collect until `chunks` chunks are appended, and stop there."""
    job = CollectionJob(HistoryStore(run.config), run.split.train_tasks)
    for count, chunk in enumerate(job.source.run(job.steps), 1):
        job.writer.append(chunk)
        if count == chunks:
            return
        job.save()


@pytest.mark.parametrize("chunks", [2, 5])
def test_histories_that_were_cut_off_come_out_with_the_same_bytes(whole, tmp_path, chunks, capsys):
    other = other_run(whole, tmp_path)
    cut(other, chunks)
    assert collect(other) == 5
    said = capsys.readouterr().err
    assert f"at step {(chunks - 1) * CHUNK_STEPS} of 2200" in said
    assert hashes(HistoryStore(other.config).path) == hashes(HistoryStore(whole.config).path)


def written_behind_the_state(folder: Path) -> None:
    for path in folder.glob("*/action.npy"):
        np.load(path, mmap_mode="r+")[:, 2 * CHUNK_STEPS :] = 3


def damaged_state(folder: Path) -> None:
    (path,) = folder.glob("state_*.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_array(folder: Path) -> None:
    path = next(folder.glob("*/reward.npy"))
    path.write_bytes(path.read_bytes()[:-1])


def lost_history(folder: Path) -> None:
    shutil.rmtree(next(folder.glob("task_*")))


def of_other_code(folder: Path) -> None:
    entry = read_checked_json(folder / METADATA)
    write_checked_json(folder / METADATA, entry | {"code": {"mine.py": "0" * 64}})


@pytest.mark.parametrize(
    ("chunks", "damage", "message"),
    [
        (1, lambda _: None, "starts again: it left no snapshot"),
        (3, written_behind_the_state, "resuming"),
        (3, damaged_state, "starts again: the state in"),
        (3, cut_array, "starts again"),
        (3, lost_history, "starts again"),
        (3, of_other_code, "starts again: the files of its classes have changed"),
    ],
)
def test_partial_histories_that_cannot_be_resumed_are_made_again(
    whole_of_two, tmp_path, capsys, chunks, damage, message
):
    other = other_run(whole_of_two, tmp_path)
    cut(other, chunks)
    (folder,) = HistoryStore(other.config).path.glob(f"{PARTIAL}*")
    damage(folder)
    collect(other)
    assert message in capsys.readouterr().err
    assert hashes(HistoryStore(other.config).path) == hashes(HistoryStore(whole_of_two.config).path)


def test_histories_that_are_published_are_not_computed_again(whole_of_two, tmp_path):
    other = other_run(whole_of_two, tmp_path)
    job = CollectionJob(HistoryStore(other.config), other.split.train_tasks)
    for chunk in job.source.run(job.steps):
        job.writer.append(chunk)
    job.save()
    histories = [HistoryStore(other.config).folder(task) for task in other.split.train_tasks]
    published = {histories[0]: None, histories[1]: None}
    for source, folder in zip(job.writer.temporary[:2], histories, strict=False):
        made = HistoryStore(whole_of_two.config).folder(
            other.split.train_tasks[histories.index(folder)]
        )
        for path in made.iterdir():  # as `close` leaves it, before it comes to the third history
            (source / path.name).write_bytes(path.read_bytes())
        os.replace(source, folder)
        published[folder] = folder.stat().st_mtime_ns
    collect(other)
    assert {folder: folder.stat().st_mtime_ns for folder in published} == published
    assert hashes(HistoryStore(other.config).path) == hashes(HistoryStore(whole_of_two.config).path)


def test_a_batch_of_other_tasks_is_left_for_its_own_configuration(smoke, tmp_path):
    run = Run.open(smoke(tmp_path, *LONG))
    cut(run, 3)
    fewer = Run.open(smoke(tmp_path, "--name", "b", *LONG, "--split.num_train_tasks", "1"))
    collect(fewer)
    assert len(list(HistoryStore(run.config).path.glob(f"{PARTIAL}*"))) == 1


def test_a_foreign_world_starts_its_batch_again_and_says_so(smoke, tmp_path, capsys):
    run = Run.open(smoke(tmp_path, *ICE, "--source.algorithm", "a2c", *LONG))
    job = CollectionJob(HistoryStore(run.config), run.split.train_tasks)
    assert not job.can_be_saved
    job.save()
    assert collect(run) == 1
    assert "starts again: it left no snapshot" in capsys.readouterr().err


ROOMS = [{}, {"terminate": "false"}, {"start": "random"}, {"reward": "once", "terminate": "false"}]


@pytest.mark.parametrize("room", ROOMS, ids=str)
def test_a_restored_source_continues_with_the_same_bits_in_each_kind_of_room(smoke, tmp_path, room):
    pairs = [(f"--env.kwargs.{name}", value) for name, value in room.items()]
    words = [*SOURCE_WORDS["q_learning"], *LONG]
    config = smoke(tmp_path, *words, *(word for pair in pairs for word in pair))
    assert_a_restored_source_has_the_same_bits(*(new_source(config, TASKS) for _ in range(2)))


# tests/test_cli.py has the exit codes of both signals.
def test_a_signal_saves_and_the_same_command_goes_on(smoke, tmp_path):
    words = ["--source.env_steps", "4000000", "--source.state_every", "0.2"]
    process, run = start("collect", SMOKE, tmp_path, *words), smoke(tmp_path, *words)
    while not list(HistoryStore(run).path.glob(f"{PARTIAL}*/state.json")):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in err
    again = start("collect", SMOKE, tmp_path, *words)
    while "resuming" not in (line := again.stderr.readline()):
        assert line
    again.kill()
    again.communicate()
