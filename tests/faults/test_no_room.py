"""A full disk and a limit on the size of files: one sentence, exit code 3, and no bit lost."""

import re
import resource
import shutil
from pathlib import Path

import pytest
from conftest import SMOKE
from fields import FIELDS
from processes import run

from ad.data.store import HistoryWriter

FULL = pytest.mark.faults
KIB = 1024
QUICK = ["--source.algorithm", "noise_distillation", "--source.env_steps", "4000"]


def said(verb: str, root: Path, *words: str, limit: int | None = None) -> tuple[int, str]:
    """Return the exit code and stderr of a verb whose files may not exceed `limit` bytes."""

    def restrict() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    options = {"preexec_fn": restrict} if limit else {}
    return run(verb, SMOKE, root, *QUICK, *words, **options)


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """A root in which all verbs have run; tests only copy it."""
    root = tmp_path_factory.mktemp("done")
    for verb in ("collect", "train", "evaluate"):
        code, err = said(verb, root)
        assert code == 0, err
    return root


def results(root: Path) -> bytes:
    return (root / "logs/smoke/results.csv").read_bytes()


def is_a_sentence(code: int, err: str, about: str) -> bool:
    return code == 3 and about in err and "Traceback" not in err


@pytest.mark.parametrize("full", [False, pytest.param(True, marks=FULL)])
def test_a_disk_of_256_kib_is_refused_with_the_bytes_needed_and_free(
    small_disk, tmp_path, ledger, full
):
    root = small_disk(tmp_path / "disk")
    code, err = said("collect", root, "--source.env_steps", "80000")
    fine = is_a_sentence(code, err, "MB, but the disk of") and re.search(r"0\.\d MB free", err)
    kept = list(root.glob("histories/*/*"))
    ledger.count("a disk of 256 KiB", None if fine and not kept else err)
    assert fine and not kept


def test_a_disk_that_fills_up_while_a_history_is_created_keeps_no_file(small_disk, tmp_path):
    disk = small_disk(tmp_path / "disk")
    (disk / "other").write_bytes(b"x" * 200 * KIB)
    with pytest.raises(OSError, match="No space left"):
        HistoryWriter([disk / "dataset" / "history"], FIELDS, 10, 10_000)
    assert list((disk / "dataset").iterdir()) == []


def before(verb: str, done: Path, root: Path) -> Path:
    """Copy the files that `verb` needs to `root`; leave little space there for evaluation."""
    shutil.copytree(done / "histories", root / "histories")
    if verb == "evaluate":
        views = shutil.ignore_patterns("tensorboard", "source", "results*", "step_0000010*")
        shutil.copytree(done / "logs", root / "logs", ignore=views, dirs_exist_ok=True)
        free = shutil.disk_usage(root / "logs").free
        (root / "logs" / "other").write_bytes(b"x" * (free - 2 * KIB))
    return root


@FULL
@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_disk_that_fills_up_costs_no_bit(done, small_disk, tmp_path, ledger, verb):
    small_disk(tmp_path / "small" / "logs")
    root, every = before(verb, done, tmp_path / "small"), ["--training.checkpoint_every", "4"]
    code, err = said(verb, root, *every)
    large = shutil.copytree(root, tmp_path / "large")
    again = [said(verb, large, *every)[0] for verb in ("train", "evaluate")]
    fine = is_a_sentence(code, err, "No space left on device") and again == [0, 0]
    fine = fine and results(large) == results(done)
    ledger.count("a disk of 256 KiB", None if fine else f"{verb} {code} {again}: {err}")
    assert fine


@FULL
@pytest.mark.parametrize(("verb", "limit"), [("collect", 10 * KIB), ("train", 10 * KIB)])
def test_a_limit_on_the_size_of_files_costs_no_bit(done, tmp_path, ledger, verb, limit):
    root = tmp_path / "root"
    root.mkdir()
    if verb == "train":
        shutil.copytree(done / "histories", root / "histories")
    code, err = said(verb, root, limit=limit)
    half = [*root.glob("histories/*/.partial*"), *root.glob("logs/smoke/checkpoints/*")]
    again = [said(verb, root)[0] for verb in ("collect", "train", "evaluate")]
    fine = is_a_sentence(code, err, "File too large") and not half and again == [0, 0, 0]
    fine = fine and results(root) == results(done)
    ledger.count("a limit on the size of files", None if fine else f"{verb} {code} {half}: {err}")
    assert fine
