"""What is beside the result fails softly: one warning, and the result is there all the same."""

import contextlib
import json
import resource
import subprocess
import sys

from processes import ROOT
from training_run import assert_same_bits, train

from ad.runtime.metrics_log import MetricsLog
from ad.runtime.run import Run


@contextlib.contextmanager
def no_file_larger_than(size: int):
    """Writing beyond `size` bytes fails with "File too large", as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("warning")]


def test_a_tensorboard_that_fails_costs_one_warning_and_no_bit(
    whole, experiment, monkeypatch, capsys
):
    def fail(*arguments):
        raise ConnectionError("no network")

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", fail)
    run = train(experiment(training__precision="float32"))
    assert_same_bits(whole, run)
    text = capsys.readouterr().err
    assert len([w for w in warnings(text) if "tensorboard cannot be written" in w]) == 1


def test_a_log_that_cannot_be_written_costs_one_warning_and_no_bit(whole, experiment, capsys):
    config = experiment(training__precision="float32")
    path = Run.open(config).folder / "metrics.jsonl"
    path.write_text((json.dumps({"step": 0, "x": "long" * 20}) + "\n") * 10_000)
    with no_file_larger_than(path.stat().st_size):
        run = train(config)
    assert_same_bits(whole, run)
    assert [w for w in warnings(capsys.readouterr().err) if "metrics.jsonl" in w][1:] == []
    assert path.read_text().count('"step": 0') == 10_000


def test_lines_after_one_that_was_cut_off_are_still_lines(tmp_path):
    log = MetricsLog(tmp_path)
    log.write(1, {"a": 1.0})
    with no_file_larger_than(log.path.stat().st_size + 5):
        log.write(2, {"a": 1.0})
    log.write(3, {"a": 1.0})
    log.truncate_after(3)
    steps = [json.loads(line)["step"] for line in log.path.read_text().splitlines()]
    assert steps == [1, 3]


def test_a_stdout_that_takes_nothing_costs_one_warning():
    code = "from ad.runtime.console import *; [info('x' * 9) for _ in range(3)]"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 0
    said = done.stderr.decode().splitlines()
    assert len(said) == 1 and said == warnings("\n".join(said))
