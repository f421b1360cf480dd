"""Data-parallel training: real processes on one machine against one process alone."""

import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
import ranks
import torch
from conftest import SMOKE
from processes import ROOT
from training_run import (
    SHORT,
    checkpoint,
    forget_last_checkpoint,
    log,
    logged,
    states,
    train,
    words_of,
)

from ad.config.schema import Experiment, MethodConfig
from ad.errors import ConfigError
from ad.runtime.run import Run
from ad.training.data_parallel import ALONE, ManyProcesses, check_processes, joined

EXACT = SHORT | {
    "training.precision": "float32",
    "model.dropout": "0",
    "model.attention_dropout": "0",
}
ENDLESS = EXACT | {
    "training.steps": "1000000",
    "training.eval_every": "1000000",
    "training.checkpoint_every": "1000000",
    "training.keep_every": "3",
}
LOST = "another of the 2 processes has ended: run the same command to resume"


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Let the server that forks processes import this checkout."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))


@pytest.fixture
def command(collected):
    """command(name, settings) returns the run of an experiment and its command line."""

    def build(name: str, settings: dict[str, str]) -> tuple[Run, list[str]]:
        config = collected(name, *words_of(settings))
        source = config.source
        fixed = {
            "config_path": SMOKE,
            "root": config.root,
            "device": "cpu",
            "threads": 1,
            "name": name,
            "source.algorithm": source.algorithm,
            "source.env_steps": source.env_steps,
        }
        return Run(config), words_of(fixed | settings)

    return build


@pytest.fixture
def together(command, tmp_path):
    """together(settings, size) trains in `size` processes and returns the run and the output."""

    def build(name: str, settings: dict[str, str], size: int = 2) -> tuple[Run, str]:
        run, words = command(name, settings)
        codes, output = ranks.start(words, tmp_path / f"{name}.txt", size).end()
        assert codes == [0] * size, output
        return run, output

    return build


@pytest.fixture
def begun(command, tmp_path):
    """begun() starts two processes that train on and on, and waits for their first steps."""

    def start(name: str, after: int = 3, **changes: str) -> tuple[Run, ranks.Ranks]:
        run, words = command(name, ENDLESS | changes)
        processes = ranks.start(words, tmp_path / f"{name}-{after}.txt")
        processes.wait_for(run.folder / "checkpoints" / f"step_{after:07d}.json")
        return run, processes

    return start


def assert_near(one: Run, other: Run) -> None:
    np.testing.assert_allclose(logged(other, "train/loss"), logged(one, "train/loss"), rtol=1e-4)
    both = [states(run) for run in (other, one)]
    for weights, _ in both:
        # The bias of keys shifts all scores of a query alike: its gradient is rounding error, and
        # Adam takes steps of the learning rate along its sign.
        for name in [name for name in weights if name.endswith("qkv.bias")]:
            weights[name].chunk(3)[1].zero_()
    torch.testing.assert_close(*both, rtol=1e-3, atol=2e-4)


@pytest.fixture(scope="module")
def alone(collected) -> Run:
    """The run of one process; tests only read it."""
    return train(collected("alone", *words_of(EXACT)))


def test_two_processes_train_as_one_does_and_the_first_alone_writes(alone, together):
    run, output = together("two", EXACT)
    assert_near(alone, run)
    assert [line["step"] for line in log(run)] == [line["step"] for line in log(alone)]
    assert output.splitlines() == [f"train: 8 steps, {run.folder}/checkpoints/step_0000008.pt"]
    assert not list(run.folder.parent.glob(".*.lock"))
    assert json.loads((run.folder / "sessions.json").read_text())["train"][0]["processes"] == 2

    forget_last_checkpoint(run)  # one process goes on where two were interrupted
    assert_near(alone, train(run.config))
    assert checkpoint(run)["step"] == 8


def test_two_processes_go_on_where_one_was_interrupted(alone, command, together):
    run, _ = command("one-then-two", EXACT)
    shutil.copytree(alone.folder, Run.open(run.config).folder, dirs_exist_ok=True)
    Run.open(run.config)
    forget_last_checkpoint(run)
    _, output = together("one-then-two", EXACT)
    assert_near(alone, run)
    assert output.count("warning: training resumes with processes 1 -> 2") == 1


def test_processes_draw_dropout_as_one_process_with_as_many_micro_batches(collected, together):
    draws = EXACT | {"model.dropout": "0.2", "method.settings.action_dropout": "0.3"}
    whole = train(collected("draws", *words_of(draws | {"training.micro_batches": "2"})))
    assert_near(whole, together("two-draws", draws)[0])


def test_a_killed_process_ends_the_other_with_a_sentence_and_the_same_command_resumes(begun):
    run, processes = begun("lost")
    processes.signal(signal.SIGKILL, 1)
    codes, output = processes.end()
    assert (codes, output.splitlines()) == ([3, -signal.SIGKILL], [LOST])

    step = checkpoint(run)["step"]
    _, processes = begun("lost", after=step + 3)
    for _ in range(3):  # torchrun passes on what the terminal has sent
        processes.signal(signal.SIGTERM, 0, 1)
    codes, output = processes.end()
    sentences = ["", "stopping after this step", "terminated; run the same command to resume"]
    assert (codes, output.splitlines()) == ([143, 143], sentences)
    steps = [line["step"] for line in log(run)]
    assert steps == list(range(1, checkpoint(run)["step"] + 1))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_one_process_lets_all_save_and_stop(begun, number, code):
    run, processes = begun(f"stopped-{code}")
    processes.signal(number, 1)
    codes, output = processes.end()
    assert codes == [code, code] and "Traceback" not in output
    assert checkpoint(run)["step"] == log(run)[-1]["step"]


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_given_up(begun):
    _, processes = begun("stuck", **{"training.process_timeout": "10"})
    processes.signal(signal.SIGSTOP, 1)
    processes.processes[0].join(ranks.DEADLINE)
    processes.signal(signal.SIGKILL, 1)
    codes, output = processes.end()
    assert codes == [3, -signal.SIGKILL]
    assert "another of the 2 processes does not answer within 10 s" in output


def test_a_process_that_cannot_be_reached_is_a_sentence(command, tmp_path):
    _, words = command("unreached", EXACT | {"training.process_timeout": "1"})
    codes, output = ranks.start(words, tmp_path / "output.txt", started=1).end()
    assert codes == [3]
    assert "the process of rank 0 cannot reach the others of 2 at 127.0.0.1:" in output
    assert output.endswith(" within 1 s (training.process_timeout)\n")
    assert "Traceback" not in output


def test_a_training_that_leaves_the_finite_numbers_rolls_back_and_fails_in_all(command, tmp_path):
    endless = {"training.learning_rate": "1e30"}
    _, words = command("diverges", EXACT | endless)
    codes, output = ranks.start(words, tmp_path / "output.txt").end()
    assert codes == [5, 5]
    assert output.count("training rolls back from step") == 1
    assert output.count("training left the finite numbers") == 1


def test_what_several_processes_cannot_train_is_refused():
    with pytest.raises(ConfigError, match="must not be rl2, which learns in the worlds"):
        check_processes(replace(Experiment(), method=MethodConfig("rl2")), "2")
    for word in ("", "two", "0"):
        with pytest.raises(ConfigError, match="WORLD_SIZE must be a whole number"):
            check_processes(Experiment(), word)


def test_processes_that_torchrun_has_not_started_are_refused(monkeypatch):
    for name in ("RANK", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    sentence = "WORLD_SIZE is set, but not RANK, MASTER_PORT: start the processes with torchrun"
    with pytest.raises(ConfigError, match=sentence), joined(Experiment()):
        pass


def test_the_parts_of_a_batch_are_all_windows_once():
    for size in (2, 4):
        parts = [ManyProcesses(None, rank, size, 1.0).batch_slice(16) for rank in range(size)]
        assert [n for part in parts for n in range(16)[part]] == list(range(16))
    assert range(16)[ALONE.batch_slice(16)] == range(16)
