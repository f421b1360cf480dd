"""Files and names from an attacker: code in data, forged manifests, names that are paths."""

import copy
import io
import os
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fields import FIELDS

from ad.config.parser import load
from ad.data.store import load_history
from ad.errors import ADError, ConfigError, CorruptError
from ad.reporting import record as recording
from ad.runtime import snapshots as states
from ad.runtime.files import read_checked_json, sha256, write_checked_json
from ad.training import checkpoints

FULL = pytest.mark.faults
ARRAYS = [*(f"{name}.npy" for name in FIELDS), "curve.npy"]


def describe(history: Path, path: Path) -> None:
    """Write the true size and hash of the file `path` to the manifest of `history`."""
    manifest = read_checked_json(history / "manifest.json")
    manifest["files"][path.name] |= {"bytes": path.stat().st_size, "sha256": sha256(path)}
    write_checked_json(history / "manifest.json", manifest)


class Canary:
    """An object whose unpickling creates a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def in_an_array(folder: Path, canary: Canary, name: str) -> None:
    path = folder / "history" / name
    np.save(path, np.array([canary], dtype=object), allow_pickle=True)
    describe(path.parent, path)
    load_history(path.parent)


def bare_in_an_array(folder: Path, canary: Canary, name: str) -> None:
    path = folder / "history" / name
    path.write_bytes(pickle.dumps(canary))
    describe(path.parent, path)
    load_history(path.parent)


def in_a_checkpoint(folder: Path, canary: Canary, _: str) -> None:
    checkpoints.load(checkpoints.save(folder, 1, {"model": canary}))


def bare_in_a_checkpoint(folder: Path, canary: Canary, _: str) -> None:
    path = checkpoints.save(folder, 1, {"model": torch.ones(1)})
    path.write_bytes(pickle.dumps(canary))
    entry = {"bytes": path.stat().st_size, "sha256": sha256(path)}
    entry["format"] = checkpoints.FORMAT
    write_checked_json(path.with_suffix(".json"), entry)
    checkpoints.load(path)


def in_a_state(folder: Path, canary: Canary, _: str) -> None:
    states.save_state(folder, 1, {"moments": np.array([canary], dtype=object)}, {})
    states.load_state(folder)


def in_trajectories(folder: Path, canary: Canary, _: str) -> None:
    names = ("split", "task", "episode", "reward", "observation", "next_observation")
    with zipfile.ZipFile(folder / "trajectories.npz", "w") as file:
        for name in names:
            buffer = io.BytesIO()
            np.save(buffer, np.array([canary], dtype=object), allow_pickle=True)
            file.writestr(f"{name}.npy", buffer.getvalue())
    list(recording.rollout_episodes(folder / "trajectories.npz", 1))


def in_yaml(folder: Path, canary: Canary, tag: str) -> None:
    (folder / "run.yaml").write_text(f'name: !!python/{tag} ["{canary.folder}"]')
    load(["--config_path", str(folder / "run.yaml")])


PICKLES = [
    *((in_an_array, name) for name in ARRAYS),
    *((bare_in_an_array, name) for name in ARRAYS),
    (in_a_checkpoint, ""),
    (bare_in_a_checkpoint, ""),
    (in_a_state, ""),
    (in_trajectories, ""),
    *((in_yaml, tag) for tag in ("object/apply:os.mkdir", "object/new:os.mkdir", "name:os.mkdir")),
]


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=FULL)])
def test_no_code_in_any_file_is_run(original, tmp_path, ledger, full):
    kind = "code in data (pickles with a canary, YAML tags)"
    for number, (put, name) in enumerate(PICKLES):
        folder = tmp_path / str(number)
        shutil.copytree(original, folder / "history")
        refused, canary = False, Canary(folder / "code_was_run")
        try:
            put(folder, canary, name)
        except ADError:
            refused = True
        fine = refused and not canary.folder.exists()
        ledger.count(kind, None if fine else f"{put.__name__} {name}")
    assert not ledger.lost(kind)


WRONG_VALUES = [-1, 0, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, True, None, "", "0", "/etc/passwd"]
WRONG_VALUES += ["../x", "a\0b", "-x", [], [[]], [-4, 100], [4, 2**31], [2**40, 2**40], {}]
WRONG_VALUES += [{"..": {}}, "float64", "object", "|O", "~" * 70_000, "0" * 64]


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Return the path of every value in nested dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path] if path else []
    for key, part in inner:
        deeper = isinstance(part, (dict, list))
        found += places(part, (*path, key)) if deeper else [(*path, key)]
    return found


def forged(manifest: dict, rng: random.Random) -> dict:
    """Return the manifest with one to three values or keys replaced by wrong ones."""
    for _ in range(rng.randint(1, 3)):
        *way, last = rng.choice(places(manifest))
        part = manifest
        for key in way:
            part = part[key]
        if isinstance(part, dict) and rng.random() < 0.3:
            part[rng.choice(["/etc/passwd", "../history/action.npy", "x", ""])] = part.pop(last)
        else:
            part[last] = copy.deepcopy(rng.choice(WRONG_VALUES))
    return manifest


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=FULL)])
def test_a_forged_manifest_is_refused_or_changes_nothing(history, ledger, count):
    kind, rng = "forged manifests", random.Random(0)
    expected = {name: np.array(array) for name, array in load_history(history).arrays.items()}
    honest = (history / "manifest.json").read_bytes()
    for number in range(count):
        write_checked_json(
            history / "manifest.json", forged(read_checked_json(history / "manifest.json"), rng)
        )
        try:
            read = load_history(history)
            fine = all(np.array_equal(read.arrays[name], expected[name]) for name in FIELDS)
        except CorruptError:
            fine = True
        ledger.count(kind, None if fine else f"number {number}")
        (history / "manifest.json").write_bytes(honest)
    assert not ledger.lost(kind)


HEADERS = [
    "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 2147483648), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (2147483648, 2147483648), }",
    "{'descr': '|u1', 'fortran_order': True, 'shape': (4, 100), }",
    "{'descr': '<u2', 'fortran_order': False, 'shape': (4, 50), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (4, 100), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-4, -100), }",
    "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (4, 100), }",
    "__import__('os').mkdir('code_was_run')",
    "(" * 900,
    "",
]


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=FULL)])
def test_a_wrong_header_is_refused_although_size_and_hash_agree(
    history, tmp_path, ledger, monkeypatch, full
):
    kind = "wrong headers"
    monkeypatch.chdir(tmp_path)
    path = history / "action.npy"
    data = np.load(path).tobytes()
    for header in HEADERS:
        text = header.encode()
        path.write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + data)
        describe(history, path)
        with pytest.raises(CorruptError):
            load_history(history)
        ledger.count(kind, "code was run" if (tmp_path / "code_was_run").exists() else None)
    assert not ledger.lost(kind)


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=FULL)])
def test_a_link_pipe_or_folder_in_place_of_a_file_is_refused_without_waiting(
    original, tmp_path, ledger, full
):
    kind = "links, pipes and folders in place of a file"
    for name in [*ARRAYS, "manifest.json"]:
        for put in (os.mkfifo, os.mkdir, lambda path: path.symlink_to(original / path.name)):
            history = shutil.copytree(original, tmp_path / "history")
            (history / name).unlink()
            put(history / name)
            with pytest.raises(CorruptError):
                load_history(history)
            ledger.count(kind)
            shutil.rmtree(history)


NAMES = ["/", "/tmp/x", "a/b", "../x", "..", ".", "./x", "x/..", "a\\b", ".hidden"]
NAMES += ["-x", "--help", "-", "", " ", "a b", "a;b", "a\nb", "a\tb", "a\0b"]
NAMES += ["~", "~root", "$HOME", "*", "é", "x" * 101]


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=FULL)])
def test_a_run_name_that_is_a_path_is_refused_and_creates_nothing(tmp_path, ledger, full):
    kind = "names with /, .., a leading - and the like"
    for name in NAMES:
        with pytest.raises(ConfigError, match="name"):
            load(["--root", str(tmp_path), f"--name={name}"])
        ledger.count(kind, [*tmp_path.iterdir()])
    assert not ledger.lost(kind)
