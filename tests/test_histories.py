"""The store of histories: what is written comes back whole or not at all; damage is noticed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fields import FIELDS
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ad.data.episodes import episodes
from ad.data.schema import TransitionChunk
from ad.data.store import HistoryWriter, is_complete, load_history
from ad.errors import CorruptError
from ad.runtime.files import read_checked_json, write_checked_json

TASKS, ENVS, LENGTHS = 2, 3, (5, 4, 8)  # histories, actors, and transitions of each chunk
STEPS = sum(LENGTHS)
FILES = [*(f"{name}.npy" for name in FIELDS), "curve.npy"]


def random_chunk(rng: np.random.Generator, steps: int) -> TransitionChunk:
    """Any transitions [T, K, E], and a statistic measured three times."""
    chunk = TransitionChunk.empty(FIELDS, steps, TASKS, ENVS)
    for array in chunk.arrays.values():
        array[:] = rng.integers(50 if array.dtype != bool else 2, size=array.shape)
    chunk.arrays["truncated"] &= ~chunk.arrays["terminated"]
    chunk.statistics["entropy"] = [rng.random(TASKS).astype(np.float32) for _ in range(3)]
    return chunk


def random_chunks(seed: int = 0) -> list[TransitionChunk]:
    rng = np.random.default_rng(seed)
    return [random_chunk(rng, steps) for steps in LENGTHS]


def open_writer(dataset: Path, chunks: list[TransitionChunk]) -> HistoryWriter:
    """A writer of two histories in `dataset` with all `chunks` appended, not yet closed."""
    writer = HistoryWriter([dataset / f"unit_{k}" for k in range(TASKS)], FIELDS, ENVS, STEPS)
    for chunk in chunks:
        writer.append(chunk)
    return writer


def write(dataset: Path, chunks: list[TransitionChunk]) -> list[Path]:
    """Two published histories; their folders."""
    writer = open_writer(dataset, chunks)
    writer.close([{"task": [k, 7]} for k in range(TASKS)])
    return writer.folders


@pytest.fixture(scope="module")
def shared_history(tmp_path_factory) -> Path:
    """The folder of a published history; only to be read."""
    return write(tmp_path_factory.mktemp("shared"), random_chunks())[1]


@pytest.fixture
def history(shared_history, tmp_path) -> Path:
    """A copy of it, to be damaged."""
    return shutil.copytree(shared_history, tmp_path / "history")


def test_a_history_comes_back_as_it_was_written(tmp_path):
    chunks = random_chunks()
    for k, folder in enumerate(write(tmp_path, chunks)):
        read = load_history(folder).arrays
        for name, field in FIELDS.items():
            expected = np.concatenate([chunk.arrays[name][:, k] for chunk in chunks]).T
            np.testing.assert_array_equal(read[name], expected)
            assert (read[name].dtype, read[name].shape) == (field.dtype, (ENVS, STEPS))


def test_what_is_read_cannot_be_changed(history):
    with pytest.raises(ValueError, match="read-only"):
        load_history(history).arrays["action"][0, 0] = 1


def test_nothing_is_visible_before_a_history_is_closed(tmp_path):
    writer = open_writer(tmp_path, random_chunks())
    assert not any(folder.exists() or is_complete(folder) for folder in writer.folders)
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())


def test_closing_leaves_the_histories_and_nothing_else(tmp_path):
    folders = write(tmp_path, random_chunks())
    assert sorted(tmp_path.iterdir()) == folders
    assert all(is_complete(folder) for folder in folders)


def test_a_history_that_is_written_again_replaces_the_old_one(tmp_path):
    write(tmp_path, random_chunks(0))
    new = random_chunks(1)
    folder = write(tmp_path, new)[0]
    expected = np.concatenate([chunk.arrays["action"][:, 0] for chunk in new]).T
    np.testing.assert_array_equal(load_history(folder).arrays["action"], expected)
    assert len(list(tmp_path.iterdir())) == TASKS


def test_the_same_transitions_are_the_same_bytes(tmp_path):
    one, other = (write(tmp_path / name, random_chunks())[0] for name in "ab")
    assert {path.name for path in one.iterdir()} == {*FILES, "manifest.json"}
    for path in one.iterdir():
        assert path.read_bytes() == (other / path.name).read_bytes()


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_missing_file_is_noticed(history, name):
    (history / name).unlink()
    with pytest.raises(CorruptError):
        load_history(history)
    assert not is_complete(history)


FORMS = ["[]", "3", "null", "{}", '{"files": []}', '{"files": {}}', "[" * 100_000, " " * (2 << 20)]


@pytest.mark.parametrize("text", FORMS, ids=range(len(FORMS)))
def test_a_manifest_of_another_form_is_noticed(history, text):
    (history / "manifest.json").write_text(text)
    with pytest.raises(CorruptError):
        load_history(history)
    assert not is_complete(history)


@pytest.mark.parametrize("columns", [None, ["env_steps"]])
def test_a_manifest_with_other_columns_is_noticed(history, columns):
    manifest = read_checked_json(history / "manifest.json") | {"curve_columns": columns}
    write_checked_json(history / "manifest.json", manifest)
    with pytest.raises(CorruptError):
        load_history(history)


def slow_episodes(done: np.ndarray, reward: np.ndarray) -> list[tuple[int, int, int, float]]:
    """(actor, start, stop, return) of every whole episode, one step after the other."""
    found = []
    for actor in range(len(done)):
        start, total = 0, 0.0
        for t in range(done.shape[1]):
            total += float(reward[actor, t])
            if done[actor, t]:
                found.append((actor, start, t + 1, total))
                start, total = t + 1, 0.0
    return found


@st.composite
def actors(draw):
    """done and reward [actors, T], also without any episode or any step."""
    shape = draw(st.tuples(st.integers(0, 4), st.integers(0, 12)))
    reward = arrays.arrays(np.float32, shape, elements=st.integers(-3, 3).map(float))
    return draw(arrays.arrays(bool, shape)), draw(reward)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(actors())
def test_the_episodes_are_those_that_a_plain_loop_finds(case):
    found = episodes(*case)
    columns = (found.actor, found.start, found.stop, found.returns)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == slow_episodes(*case)


def test_the_curve_has_the_numbers_of_a_plain_loop(tmp_path):
    chunks = random_chunks()
    for k, folder in enumerate(write(tmp_path, chunks)):
        history = load_history(folder)
        data = history.arrays
        whole = slow_episodes(data["terminated"] | data["truncated"], data["reward"])
        assert list(history.curve) == ["env_steps", "return", "length", "entropy"]
        start = 0
        for row, chunk in enumerate(chunks):
            stop = start + len(chunk)
            inside = [episode for episode in whole if start < episode[2] <= stop]
            expected = [
                stop * ENVS,
                np.mean([total for *_, total in inside]),
                np.mean([last - first for _, first, last, _ in inside]),
                np.mean([values[k] for values in chunk.statistics["entropy"]]),
            ]
            measured = [values[row] for values in history.curve.values()]
            np.testing.assert_allclose(measured, expected, rtol=1e-6)
            start = stop


def test_the_curve_is_nan_where_no_episode_ended(tmp_path):
    chunks = random_chunks()
    for name in ("terminated", "truncated"):
        chunks[1].arrays[name][:] = False
    curve = load_history(write(tmp_path, chunks)[0]).curve
    for column in ("return", "length"):
        np.testing.assert_array_equal(np.isnan(curve[column]), [False, True, False])
