"""Signals: the first one waits for the end of a step, the second one does not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
WORK = """
import time
from ad.cli import Verb, lock_files, run_and_exit
from ad.runtime.signals import defer_signals

def main(run):
    with defer_signals() as stop_requested:
        print("started", flush=True)
        while not stop_requested():
            time.sleep(0.01)
        print("saving", flush=True)
        time.sleep(SECONDS)
        print("saved", flush=True)
    print("never", flush=True)

if __name__ == "__main__":
    run_and_exit(Verb("wait", "__main__:main", "Wait.", takes=lock_files))
"""


@pytest.fixture
def begin(tmp_path):
    """begin(seconds): a process in a deferred section that takes `seconds` to save."""

    def start(seconds: float) -> subprocess.Popen:
        (tmp_path / "verb.py").write_text(WORK.replace("SECONDS", str(seconds)))
        process = subprocess.Popen(
            [sys.executable, "verb.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "started\n"
        return process

    return start


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_lets_a_section_finish_its_step_and_save(begin, number, code):
    process = begin(0.1)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "saving\nsaved\n")
    assert "a second signal stops at once" in err and "Traceback" not in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_stops_at_once(begin, number, code):
    process = begin(30)
    process.send_signal(number)
    assert process.stdout.readline() == "saving\n"
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (code, "") and "Traceback" not in err
    assert time.monotonic() - began < 10
