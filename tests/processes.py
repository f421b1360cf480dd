"""Verbs in processes of their own, as a user starts them."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def start(verb: str, config_path: Path, root: Path, *words: str, **options) -> subprocess.Popen:
    """Start python -m scripts.<verb> on one thread; `env` adds variables to the environment."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    env = os.environ | ONE_THREAD | options.pop("env", {})
    command = [sys.executable, "-m", f"scripts.{verb}", "--config_path", str(config_path)]
    command += ["--root", str(root), "--device", "cpu", "--threads", "1", *words]
    return subprocess.Popen(command, cwd=ROOT, env=env, text=True, **options)


def run(verb: str, config_path: Path, root: Path, *words: str, **options) -> tuple[int, str]:
    """Run a verb to its end; return its exit code and its stderr."""
    process = start(verb, config_path, root, *words, **options)
    _, err = process.communicate(timeout=900)
    return process.returncode, err or ""


def jobs_of(file: Path) -> dict[str, int]:
    """Return the ids of the processes that make a shard of the runs in `file`, by the shard."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError, UnicodeDecodeError):  # it has ended
            words = path.read_bytes().decode().split("\0")
            if "ad.cli" in words and "--shard" in words and str(file) in words:
                found[words[words.index("--shard") + 1]] = int(path.parent.name)
    return found


def parent_of(process: int) -> int:
    """Return the id of the parent of a process."""
    text = Path(f"/proc/{process}/stat").read_text()
    return int(text.rpartition(")")[2].split()[1])
