"""Every cut and every flipped bit in every kind of file of a run is detected or harmless.

A change is harmless if the content read is equal: white space in a manifest.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from fields import FIELDS
from hypothesis import given, settings
from hypothesis import strategies as st

from ad.data.schema import TransitionChunk
from ad.data.store import HistoryWriter, load_history
from ad.errors import CorruptError
from ad.evaluation import summary
from ad.exchange import release
from ad.runtime import snapshots as states
from ad.runtime.files import sha256, write_checked_json
from ad.training import checkpoints

FULL = pytest.mark.faults


@dataclass
class Files:
    """Files of one kind, and a function that raises CorruptError if they are damaged."""

    folder: Path
    read: Callable[[Path], object]

    @property
    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


def history(folder: Path) -> Callable:
    """Write a history of one actor and eight random transitions."""
    writer = HistoryWriter([folder], FIELDS, 1, 8)
    writer.append(random_chunk())
    writer.close([{"task": [0, 0]}])
    return load_history


def random_chunk() -> TransitionChunk:
    rng = np.random.default_rng(0)
    chunk = TransitionChunk.empty(FIELDS, 8, 1, 1)
    for array in chunk.arrays.values():
        array[:] = rng.integers(2, size=array.shape)
    chunk.statistics["entropy"] = [rng.random(1).astype(np.float32)]
    return chunk


def collection(folder: Path) -> Callable:
    """Write an interrupted collection of one history; it has a partial folder beside `folder`."""
    histories = [folder / "history"]
    writer = HistoryWriter(histories, FIELDS, 1, 8)
    writer.append(random_chunk())
    writer.flush()
    states.save_state(writer.partial, 8, {"histories": writer.state()}, {"tasks": [[0, 0]]})

    def resume(_: Path) -> None:
        state = states.load_state(writer.partial)
        HistoryWriter(histories, FIELDS, 1, 8, resume=True).restore(state["histories"])

    return resume


def checkpoint(folder: Path) -> Callable:
    checkpoints.save(folder, 3, {"model": {"weight": torch.arange(9.0)}})
    return lambda folder: checkpoints.load(folder / checkpoints.name(3))


def results(folder: Path) -> Callable:
    """Write the files of an evaluation with short content."""
    folder.mkdir()
    (folder / "results.csv").write_text("split,task\nheld_out,1-2\n")
    np.savez(folder / "trajectories.npz", episode=np.arange(3))
    hashes = {name: sha256(folder / name) for name in summary.HASHED}
    write_checked_json(folder / summary.SUMMARY, {"nauc": 0.5, "files": hashes})

    def read(folder: Path) -> None:
        if damaged := summary.damaged_results(folder):
            raise CorruptError("; ".join(damaged.values()))

    return read


def weights(folder: Path) -> Callable:
    """Write a release with text in its files: only their hashes are read here."""
    folder.mkdir()
    for name in release.FILES:
        (folder / name).write_text(f"content of {name}")
    sums = "".join(f"{sha256(folder / name)}  {name}\n" for name in release.FILES)
    (folder / release.SUMS).write_text(sums)
    return lambda folder: release.verify_sums(folder, release.FILES)


KINDS = {
    "a history": history,
    "a checkpoint": checkpoint,
    "an interrupted collection": collection,
    "results": results,
    "a release": weights,
}


@pytest.fixture(scope="module", params=KINDS)
def kept(request, tmp_path_factory) -> Files:
    folder = tmp_path_factory.mktemp("kept") / "folder"
    return Files(folder, KINDS[request.param](folder))


def is_detected(kept: Files, path: Path, content: bytes) -> bool:
    """Return whether the files are refused with `content` in place of one of them."""
    good = path.read_bytes()
    try:
        path.write_bytes(content)
        kept.read(kept.folder)
    except CorruptError:
        return True
    finally:
        path.write_bytes(good)
    return False


def is_harmless(path: Path, content: bytes) -> bool:
    """Return whether `content` differs from a file of JSON or hashes by white space only."""
    if path.name == release.SUMS:
        return content.split() == path.read_bytes().split()
    try:
        return path.suffix == ".json" and json.loads(content) == json.loads(path.read_bytes())
    except ValueError:
        return False


@pytest.mark.parametrize("every", [97, pytest.param(1, marks=FULL)])
def test_every_flipped_bit_is_detected(kept, ledger, request, every):
    kind = f"a flipped bit in {request.node.callspec.params['kept']}"
    for path in kept.files:
        good = path.read_bytes()
        for bit in range(0, 8 * len(good), every):
            content = bytearray(good)
            content[bit // 8] ^= 1 << bit % 8
            fine = is_detected(kept, path, content) or is_harmless(path, bytes(content))
            ledger.count(kind, None if fine else f"bit {bit} of {path.name}")
    assert not ledger.lost(kind)


@pytest.mark.parametrize("every", [29, pytest.param(1, marks=FULL)])
def test_every_cut_is_detected(kept, ledger, request, every):
    kind = f"a cut in {request.node.callspec.params['kept']}"
    for path in kept.files:
        good = path.read_bytes()
        for length in range(0, len(good), every):
            for tail in (b"", b"\0" * (len(good) - length)):  # cut off, or never written
                content = good[:length] + tail
                fine = content == good or is_detected(kept, path, content)
                fine = fine or is_harmless(path, content)
                ledger.count(kind, None if fine else f"{path.name} cut at {length}")
    assert not ledger.lost(kind)


@pytest.mark.parametrize("examples", [60, pytest.param(500, marks=FULL)])
def test_random_changes_are_detected(kept, ledger, request, examples):
    kind = f"random bytes in {request.node.callspec.params['kept']}"

    @settings(max_examples=examples, deadline=None, derandomize=True, database=None)
    @given(st.data())
    def change(data):
        path = data.draw(st.sampled_from(kept.files))
        good = path.read_bytes()
        start, stop = sorted(data.draw(st.tuples(*[st.integers(0, len(good))] * 2)))
        content = good[:start] + data.draw(st.binary(max_size=stop - start + 9)) + good[stop:]
        fine = content == good or is_detected(kept, path, content) or is_harmless(path, content)
        ledger.count(kind, None if fine else f"{path.name} with {content[start:stop]!r}")

    change()
    assert not ledger.lost(kind)
