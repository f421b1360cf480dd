"""Exact resume: after any interruption the same bits, log and results, and no leftovers."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from training_run import assert_same_bits, checkpoint, forget_last_checkpoint, log, train

from ad.errors import CorruptError
from ad.evaluation.evaluate import evaluate
from ad.registry import ENCODERS, MEMORIES
from ad.reporting.report import report
from ad.runtime.devices import torch_threads
from ad.runtime.run import Run
from ad.training.provenance import hardware, log_session, read_sessions
from ad.training.trainer import Trainer, checkpoints
from envs.spaces import Discrete

CPU = torch.device("cpu")


def after(steps: int) -> Callable[[], bool]:
    """Asks training to stop at the end of the `steps`-th step."""
    left = iter(range(steps - 1))
    return lambda: next(left, None) is None


def test_a_damaged_checkpoint_costs_its_steps_but_no_bit(whole, trained, capsys):
    path = checkpoints.newest(trained.folder / "checkpoints")
    path.write_bytes(path.read_bytes()[:-100])
    assert_same_bits(whole, train(trained.config))
    assert path.name in capsys.readouterr().err


def test_a_run_without_a_checkpoint_begins_again_as_if_it_had_not_been_there(whole, trained):
    shutil.rmtree(trained.folder / "checkpoints")
    assert_same_bits(whole, train(trained.config))
    assert log(trained) == log(whole)
    assert [session["from_step"] for session in read_sessions(trained.folder)] == [0]


def test_a_run_that_was_killed_while_it_wrote_a_line_logs_every_step_once(whole, trained):
    forget_last_checkpoint(trained)
    with open(trained.folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 9, "train/lo')
    assert_same_bits(whole, train(trained.config))
    assert log(trained) == log(whole)


@pytest.mark.parametrize("step", range(1, 8))
def test_an_interruption_after_any_step_costs_no_step_no_bit_and_no_line(whole, experiment, step):
    config = experiment(training__precision="float32")
    assert checkpoint(train(config, after(step)))["step"] == step
    run = train(config)
    assert_same_bits(whole, run)
    assert log(run) == log(whole)


RESUMED = [  # each with draws or a state of its own
    "--method.settings.action_dropout 0.5",
    "--method.name dpt --method.settings.contexts shuffled",
    "--method.name dpt --data.permute both --data.best_actors 0.5",
    *(f"--method.name in_context_q --method.settings.loss {loss}" for loss in ("cql", "iql")),
    *(
        f"--model.memory {memory} --training.precision {precision} --training.segments 2"
        f" --data.context_length 5 --model.attention_dropout {0.1 if memory == 'xl' else 0}"
        for memory in MEMORIES
        if MEMORIES.load(memory).carries
        for precision in ("float32", "bfloat16")
    ),
]


@pytest.mark.parametrize("words", RESUMED)
def test_a_training_of_each_kind_resumes_with_the_same_bits(experiment, words):
    one, other = (experiment("--training.precision", "float32", *words.split()) for _ in range(2))
    forget_last_checkpoint(train(other))
    one, other = train(one), train(other)
    assert_same_bits(one, other)
    assert log(one) == log(other)


def test_results_after_an_interruption_are_those_of_a_whole_run_byte_for_byte(trained, experiment):
    config = experiment(training__precision="float32")
    train(config, after(5))
    for run in (trained, train(config)):
        evaluate(run)
    files = [run.folder / "results.csv" for run in (trained, Run(config))]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_losses_that_were_not_logged_yet_survive_an_interruption(experiment):
    changes = {"training__log_every": "5", "training__precision": "float32"}
    whole, config = train(experiment(**changes)), experiment(**changes)
    train(config, after(3))
    assert log(train(config)) == log(whole)


def test_a_checkpoint_whose_manifest_was_not_written_yet_costs_no_bit(whole, trained, capsys):
    checkpoints.newest(trained.folder / "checkpoints").with_suffix(".json").unlink()
    assert_same_bits(whole, train(trained.config))
    assert "step_0000008.json is missing; the one before it is used" in capsys.readouterr().err


def test_a_damaged_last_checkpoint_is_not_evaluated_in_place_of_another(trained):
    path = checkpoints.newest(trained.folder / "checkpoints")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptError, match="`ad train` makes it again"):
        evaluate(trained)


CELLS = Discrete(9, (3, 3))
OF_CELLS = [name for name in ENCODERS if ENCODERS.load(name).supports(CELLS)]


@pytest.mark.parametrize("encoder", OF_CELLS)
def test_a_training_on_several_threads_resumes_with_the_same_bits(experiment, encoder):
    def config():
        changes = {"training__precision": "bfloat16", "model__encoder": encoder, "threads": "3"}
        return experiment(**changes)

    with torch_threads(3):
        one, other = train(config()), train(config(), after(4))
        assert checkpoint(other)["step"] == 4
        other = train(other.config)
    assert_same_bits(one, other)
    assert log(one) == log(other)


@pytest.fixture
def resumed_with_two_threads(trained) -> Run:
    """The run, its last two steps made by a process with another number of threads."""
    forget_last_checkpoint(trained)
    torch.set_num_threads(2)
    try:
        return train(replace(trained.config, threads=2))
    finally:
        torch.set_num_threads(1)


def test_another_number_of_threads_on_resume_is_a_warning_and_is_recorded_in_the_results(
    capsys, resumed_with_two_threads
):
    (said,) = capsys.readouterr().err.splitlines()
    assert "training resumes with threads 1 -> 2: the bits may differ from a whole run" in said
    evaluate(resumed_with_two_threads)
    content = json.loads((resumed_with_two_threads.folder / "results.json").read_text())
    assert content["resumed_with"] == ["step 6: threads 1 -> 2"]
    assert [session["threads"] for session in content["sessions"]] == [1, 2]
    assert content["sessions"][0]["torch"] == torch.__version__
    assert content["evaluated_on"] == hardware(resumed_with_two_threads.config, CPU)


def test_what_a_run_began_with_is_kept_and_shown_when_it_resumes_elsewhere(trained):
    path = trained.folder / "sessions.json"
    other = {"device": "cuda (H200)", "precision": "bfloat16", "torch": "2.12.0", "numpy": "1.0"}
    first = json.loads(path.read_text())["train"][0] | other
    path.write_text(json.dumps({"train": [first]}))
    forget_last_checkpoint(trained)
    evaluate(train(trained.config))
    now = hardware(trained.config, CPU)
    changes = {f"step 6: {name} {before} -> {now[name]}" for name, before in other.items()}
    resumed = json.loads((trained.folder / "results.json").read_text())["resumed_with"]
    assert {*resumed} == changes
    shown = report(trained).read_text().replace("&gt;", ">")
    assert f"Training was resumed with {'; '.join(resumed)}:" in shown


def test_a_third_process_on_the_hardware_of_the_second_gives_no_warning(
    resumed_with_two_threads, capsys
):
    folder = resumed_with_two_threads.folder
    capsys.readouterr()
    second = {k: v for k, v in read_sessions(folder)[-1].items() if k != "from_step"}
    log_session(folder, 8, second)
    assert capsys.readouterr().err == ""
    assert [session["from_step"] for session in read_sessions(folder)] == [0, 6, 8]


def test_the_seconds_of_a_training_add_up_over_its_sessions(trained, monkeypatch):
    forget_last_checkpoint(trained)
    before, step = trained.timing()["train_s"], Trainer.train_step

    def slow_step(trainer: Trainer) -> None:
        time.sleep(0.5)
        step(trainer)

    monkeypatch.setattr(Trainer, "train_step", slow_step)
    assert before > 0 and train(trained.config).timing()["train_s"] > before + 0.5
