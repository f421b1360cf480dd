"""Any file of a run damaged in any way: every verb repairs it, starts again, or refuses it.

If all verbs exit with 0, the results are those of the undamaged run.
"""

import itertools
import random
import shutil
from pathlib import Path

import pytest
from conftest import SMOKE

from ad.cli import VERBS as ALL_VERBS
from ad.cli import exit_code

FULL = pytest.mark.faults
VERBS = ("collect", "train", "evaluate", "report", "release", "verify")
WORDS = ["--config_path", str(SMOKE), "--device", "cpu", "--threads", "1"]
WORDS += ["--source.algorithm", "noise_distillation", "--source.env_steps", "800"]


def replace_by(content: bytes):
    return lambda path: path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


DAMAGES = {
    "removed": Path.unlink,
    "cut": cut,
    "emptied": replace_by(b""),
    "garbage": replace_by(bytes(range(256)) * 3),
    "a list": replace_by(b"[]"),
    "an object": replace_by(b"{}"),
    "deeply nested": replace_by(b"[" * 100_000),
    "a folder": replace_by_folder,
    "a dangling link": replace_by_dangling_link,
}


def run(verb: str, root: Path) -> int | str:
    """Return the exit code of a verb, or the exception of a bug as text."""
    try:
        return exit_code(ALL_VERBS[verb], [*WORDS, "--root", str(root)])
    except Exception as error:
        return repr(error)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A root in which all verbs have run; tests only copy it."""
    root = tmp_path_factory.mktemp("whole")
    assert [run(verb, root) for verb in VERBS] == [0] * len(VERBS)
    return root


def files(root: Path) -> list[Path]:
    """Return the files under `root`, of all histories those of the first."""
    unit = sorted(root.glob("histories/*/task_*"))[0]
    splits_and_logs = [*root.glob("histories/*/*.json"), *sorted((root / "logs").rglob("*"))]
    found = [path for path in [*sorted(unit.iterdir()), *splits_and_logs] if path.is_file()]
    return [path.relative_to(root) for path in found if "tfevents" not in path.name]


@pytest.mark.parametrize("every", [79, pytest.param(1, marks=FULL)])
def test_a_damaged_file_is_written_again_or_refused(whole, tmp_path, ledger, every):
    kind = "a damaged file of a run, under all verbs"
    for path, damage in itertools.islice(itertools.product(files(whole), DAMAGES), 0, None, every):
        root = Path(shutil.copytree(whole, tmp_path / "root"))
        DAMAGES[damage](root / path)
        if found := wrong(whole, root):
            found = f"{path} {damage}: {found}"
        ledger.count(kind, found)
        shutil.rmtree(root)
    assert not ledger.lost(kind)


@pytest.mark.parametrize("trials", [1, pytest.param(30, marks=FULL)])
def test_a_folder_copied_by_half_is_completed_or_refused(whole, tmp_path, ledger, trials):
    kind, rng = "a folder copied by half, under all verbs", random.Random(0)
    there = [path for path in sorted(whole.rglob("*")) if path.is_file()]
    for _ in range(trials):
        root = tmp_path / "root"
        for path in rng.sample(there, len(there) // 2):
            (root / path.relative_to(whole)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path.relative_to(whole))
        ledger.count(kind, wrong(whole, root))
        shutil.rmtree(root)
    assert not ledger.lost(kind)


def wrong(whole: Path, root: Path) -> str:
    """Run all verbs in `root`; return a description of what is wrong, '' if nothing is."""
    codes = [run(verb, root) for verb in VERBS]
    results = [there / "logs/smoke/results.csv" for there in (whole, root)]
    if not set(codes) <= {0, 2, 3, 4}:
        return f"exit codes {codes}"
    if not any(codes) and results[0].read_bytes() != results[1].read_bytes():
        return "other results"
    return ""
