"""Any file of a run damaged in any way: every verb repairs, begins again or refuses, in a sentence.

Where all verbs end with 0, the results are those of the run that nobody touched.
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


def replaced_by(content: bytes):
    return lambda path: path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def made_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def made_a_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("/nowhere/at/all")


DAMAGES = {
    "removed": Path.unlink,
    "cut": cut,
    "emptied": replaced_by(b""),
    "garbage": replaced_by(bytes(range(256)) * 3),
    "a list": replaced_by(b"[]"),
    "an object": replaced_by(b"{}"),
    "nested without end": replaced_by(b"[" * 100_000),
    "a folder": made_a_folder,
    "a dangling link": made_a_dangling_link,
}


def run(verb: str, root: Path) -> int | str:
    """The exit code of a verb; of a bug, what it raises."""
    try:
        return exit_code(ALL_VERBS[verb], [*WORDS, "--root", str(root)])
    except Exception as error:
        return repr(error)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A root in which all verbs are through; only to be copied."""
    root = tmp_path_factory.mktemp("whole")
    assert [run(verb, root) for verb in VERBS] == [0] * len(VERBS)
    return root


def files(root: Path) -> list[Path]:
    """Its files, of all histories those of one."""
    unit = sorted(root.glob("histories/*/task_*"))[0]
    splits_and_logs = [*root.glob("histories/*/*.json"), *sorted((root / "logs").rglob("*"))]
    found = [path for path in [*sorted(unit.iterdir()), *splits_and_logs] if path.is_file()]
    return [path.relative_to(root) for path in found if "tfevents" not in path.name]


@pytest.mark.parametrize("every", [79, pytest.param(1, marks=FULL)])
def test_a_damaged_file_of_a_run_is_made_again_or_refused(whole, tmp_path, ledger, every):
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
def test_a_folder_of_which_half_was_copied_is_made_whole_or_refused(
    whole, tmp_path, ledger, trials
):
    kind, rng = "a folder of which half was copied, under all verbs", random.Random(0)
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
    """What the verbs did wrong in `root`; empty if nothing."""
    codes = [run(verb, root) for verb in VERBS]
    results = [there / "logs/smoke/results.csv" for there in (whole, root)]
    if not set(codes) <= {0, 2, 3, 4}:
        return f"exit codes {codes}"
    if not any(codes) and results[0].read_bytes() != results[1].read_bytes():
        return "other results"
    return ""
