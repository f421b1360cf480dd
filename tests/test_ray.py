"""Jobs in a Ray cluster of two workers on this machine."""

import json
import os
import signal
import time

import pytest
from processes import jobs_of, parent_of
from small_board import SmallBoard, start_board

pytestmark = pytest.mark.ray


@pytest.mark.parametrize("victim", ["worker", "driver"])
def test_a_run_whose_worker_or_driver_is_killed_resumes_and_is_recorded_once(
    tmp_path, ledger, victim
):
    board, plain = (SmallBoard(tmp_path / name, steps=400) for name in ("ray", "plain"))
    assert start_board(plain).wait(900) == 0
    words = ["--launcher", "ray", "--keep", "true"]
    driver = start_board(board, *words)
    while not (found := list(board.root.glob("logs/*/checkpoints/step_*.pt"))):
        assert driver.poll() is None
        time.sleep(0.02)
    trained = found[0].parent.parent.name
    job = jobs_of(board.plan)[board.shard_of(trained)]
    if victim == "worker":  # of Ray, and its verb, as if their machine had died
        for process in (parent_of(job), job):
            os.kill(process, signal.SIGKILL)
    else:
        driver.kill()
        assert driver.wait(60) == -signal.SIGKILL
        driver = start_board(board, *words)
    assert driver.wait(900) == 0
    text = (board.root / "logs" / trained / "sessions.json").read_text()
    steps = [session["from_step"] for session in json.loads(text)["train"]]
    assert steps[0] == 0 and 0 not in steps[1:]
    assert len(steps) == 2 or victim == "driver"  # whose verbs may go on
    ledger.count(f"--launcher ray, {victim}", board.scores() != plain.scores())
    assert board.scores() == plain.scores() and board.page() == plain.page()
