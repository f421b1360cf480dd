"""What is beside the result fails softly: one warning, and the result is there all the same."""

import contextlib
import json
import resource
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
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


class FakeWandb(ModuleType):
    """The calls of the package wandb, of which one may fail."""

    def __init__(self, fails_in: str | None):
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None)
        self.fails_in, self.logged = fails_in, []
        self.Settings = dict

    def init(self, **arguments) -> "FakeWandb":
        self._fail("init")
        self.arguments = arguments
        return self

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "train_step")

    def log(self, values: dict) -> None:
        self._fail("log")
        self.logged.append(values)

    def finish(self) -> None:
        self._fail("finish")

    def _fail(self, call: str) -> None:
        if call == self.fails_in:
            raise ConnectionError("no network")


def warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("warning")]


@pytest.mark.parametrize("fails_in", [None, "log"])
def test_weights_and_biases_have_every_line_and_cannot_stop_a_training(
    whole, experiment, monkeypatch, capsys, fails_in
):
    wandb = FakeWandb(fails_in)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    config = experiment(training__precision="float32", training__wandb_project="rooms")
    run = train(config)
    assert_same_bits(whole, run)
    text = [line for line in warnings(capsys.readouterr().err) if "wandb cannot be written" in line]
    assert len(text) == (fails_in is not None)
    if fails_in is None:
        lines = (run.folder / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(line)["step"] for line in lines]
        assert [values["train_step"] for values in wandb.logged] == steps
        assert wandb.arguments["project"] == "rooms" and wandb.arguments["mode"] == "offline"
        assert wandb.arguments["dir"] == config.root and "id" not in wandb.arguments
        assert wandb.arguments["config"]["training"]["steps"] == config.training.steps


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


@pytest.fixture(scope="module")
def done(smoke, tmp_path_factory) -> Path:
    """A folder in which the smoke experiment is collected."""
    from ad import pipeline

    root = tmp_path_factory.mktemp("done")
    pipeline.collect(Run.open(smoke(root, "--training.compile", "true")))
    return root
