"""Faults of the store, driven to the end: kills at random moments, every cut, every bit, no room.

What runs by default is a short version; `pytest -m faults tests/faults` runs the full one. Both
print how many faults were tried, survived and lost (`-s` shows it).
"""

import hashlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ad.errors import CorruptError
from ad.histories import HistoryWriter, load_unit
from ad.transitions import FIELDS, Block

ROOT = Path(__file__).parent.parent.parent
COLLECT = [sys.executable, "-m", "scripts.collect", "--config_path", "configs/smoke.yaml"]
LONG = ["--source.env_steps", "80000", "--split.num_train_tasks", "2"]
LONG += ["--source.algorithm", "noise_distillation", "--source.state_every", "0"]
PATIENCE = 300  # seconds; a collection takes two on an idle core
FULL = pytest.mark.faults


def collect(root: Path, *words: str, limit: int | None = None) -> subprocess.Popen:
    """A process that collects under `root`; no file of it may be larger than `limit` bytes."""

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [*COLLECT, "--root", str(root), *LONG, *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=restrict if limit else None,
    )


def hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every file of the histories under `root`."""
    files = [path for path in sorted((root / "histories").rglob("*")) if path.is_file()]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, str]:
    """The hashes of a collection that nothing disturbed."""
    root = tmp_path_factory.mktemp("whole")
    process = collect(root)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    return hashes(root)


@pytest.mark.parametrize("kills", [2, pytest.param(25, marks=FULL)])
def test_histories_survive_kills_at_random_moments(tmp_path, whole, kills):
    rng, tried = random.Random(0), 0
    while tried < kills:
        process = collect(tmp_path)
        begun = wait_for(lambda: list(tmp_path.glob("histories/*/.partial-*")), process)
        time.sleep(rng.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        tried += begun
        if process.returncode == 0:  # it was through: the next one begins anew
            assert hashes(tmp_path) == whole
            shutil.rmtree(tmp_path / "histories")
    process = collect(tmp_path)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "Traceback" not in said
    lost = len(whole.items() - hashes(tmp_path).items())
    print(f"\nkill -9 in collect: {tried} tried, {tried} survived, {lost} files lost")
    assert lost == 0 and hashes(tmp_path) == whole


def wait_for(condition, process: subprocess.Popen) -> bool:
    """Wait until `condition()`; whether it came true before the process ended."""
    while process.poll() is None:
        if condition():
            return True
        time.sleep(0.01)
    return False


def small_unit(dataset: Path) -> Path:
    """A published unit of one stream of eight random transitions."""
    rng = np.random.default_rng(0)
    writer = HistoryWriter([dataset / "unit"], 1, 8)
    block = Block.empty(8, 1, 1)
    for array in block.arrays.values():
        array[:] = rng.integers(2, size=array.shape)
    block.statistics["entropy"] = [rng.random(1).astype(np.float32)]
    writer.append(block)
    writer.close([{"task": [0, 0]}])
    return dataset / "unit"


@pytest.fixture(scope="module")
def unit(tmp_path_factory) -> Path:
    return small_unit(tmp_path_factory.mktemp("unit"))


FILES = [*(f"{name}.npy" for name in FIELDS), "curve.npy", "unit.json"]


def is_noticed(path: Path, content: bytes) -> bool:
    """Whether the unit is refused, and nothing else happens, with other bytes in one file."""
    good = path.read_bytes()
    try:
        path.write_bytes(content)
        load_unit(path.parent)
    except CorruptError:
        return True
    finally:
        path.write_bytes(good)
    return False


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_every_cut_of_a_file_is_noticed(unit, name, data):
    good = (unit / name).read_bytes()
    kept = data.draw(st.integers(0, len(good) - 1))
    tail = data.draw(st.sampled_from([b"", b"\0" * (len(good) - kept)]))
    # A manifest may lose its last line break: nothing in it is changed by that.
    harmless = good[:kept] + tail == good or (name == "unit.json" and good[:kept] == good.rstrip())
    assert harmless or is_noticed(unit / name, good[:kept] + tail)


def flipped(good: bytes, bit: int) -> bytes:
    content = bytearray(good)
    content[bit // 8] ^= 1 << bit % 8
    return bytes(content)


@pytest.mark.parametrize("every", [61, pytest.param(1, marks=FULL)])
def test_every_single_bit_flip_of_a_unit_is_noticed(unit, every):
    tried = harmless = 0
    for name in FILES:
        good = (unit / name).read_bytes()
        for bit in range(0, 8 * len(good), every):
            tried += 1
            if not is_noticed(unit / name, flipped(good, bit)):
                # White space between the words of the manifest says nothing.
                assert name == "unit.json" and chr(good[bit // 8]).isspace(), (name, bit)
                harmless += 1
    print(f"\nbit flips: {tried} tried, {tried - harmless} noticed, {harmless} in white space")


def test_a_limit_on_the_size_of_files_is_a_sentence_and_leaves_no_half_history(tmp_path):
    process = collect(tmp_path, limit=256 * 1024)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3 and "Traceback" not in said
    assert "File too large" in said
    assert not list((tmp_path / "histories").glob("*/*"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_of_256_kib_is_a_sentence_with_both_numbers(small_disk):
    process = collect(small_disk)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3 and "Traceback" not in said
    assert "MB, but the disk of" in said and re.search(r"0\.\d MB free", said)


def test_a_disk_that_fills_up_while_a_unit_is_made_leaves_nothing(small_disk):
    (small_disk / "other").write_bytes(b"x" * 200 * 1024)
    with pytest.raises(OSError, match="No space left"):
        HistoryWriter([small_disk / "dataset" / "unit"], 10, 10_000)
    assert list((small_disk / "dataset").iterdir()) == []
