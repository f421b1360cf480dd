"""Jobs in a Ray cluster of two workers on this machine."""

import json
import os
import signal
import time

import pytest
from processes import jobs_of, parent_of
from small_board import SmallBoard, start_board

pytestmark = pytest.mark.ray


def test_a_worker_that_is_killed_is_replaced_and_its_run_resumes_and_is_recorded_once(tmp_path):
    board, plain = (SmallBoard(tmp_path / name, steps=400) for name in ("ray", "plain"))
    assert start_board(plain).wait(900) == 0
    driver = start_board(board, "--launcher", "ray", "--keep", "true")
    while not (found := list(board.root.glob("logs/*/checkpoints/step_*.pt"))):
        assert driver.poll() is None
        time.sleep(0.02)
    trained = found[0].parent.parent.name
    # The worker of Ray and its verb, as if their machine had died.
    job = jobs_of(board.plan)[board.shard_of(trained)]
    for process in (parent_of(job), job):
        os.kill(process, signal.SIGKILL)
    assert driver.wait(900) == 0
    text = (board.root / "logs" / trained / "sessions.json").read_text()
    steps = [session["from_step"] for session in json.loads(text)["train"]]
    assert len(steps) == 2 and steps[1] > 0
    assert board.scores() == plain.scores() and board.page() == plain.page()
