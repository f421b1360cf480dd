"""Not finite: a bad batch is skipped, several in a row cost one roll-back, then exit 5."""

from collections.abc import Callable

import pytest
import torch
from training_run import assert_same_bits, checkpoint, finish, log

from ad.errors import NumericError
from ad.runtime.run import Run
from ad.training import trainer as trainer_module
from ad.training.nonfinite import NonFiniteGuard
from ad.training.trainer import Trainer

Fault = Callable[[Trainer], bool]


def faulty(config, fault: Fault) -> Trainer:
    """A trainer whose model gives NaN in training wherever `fault` says so."""
    trainer = Trainer(Run.open(config))

    def poison(module: torch.nn.Module, given, logits: torch.Tensor) -> torch.Tensor:
        return logits * torch.nan if module.training and fault(trainer) else logits

    trainer.model.register_forward_hook(poison)
    return trainer


def at(*steps: int) -> Fault:
    return lambda trainer: trainer.step in steps


def until_rolled_back(*steps: int) -> Fault:
    return lambda trainer: trainer.step in steps and not trainer.guard.roll_backs


@pytest.fixture
def config(experiment, monkeypatch):
    """An experiment in which one bad batch is skipped, and the second in a row is one too many."""
    monkeypatch.setattr(trainer_module, "MAX_BAD_BATCHES", 1)
    return experiment(training__precision="float32")


def warnings(capsys) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]


@pytest.mark.parametrize("step", [0, 4])
def test_a_bad_batch_changes_neither_weights_nor_optimizer(config, step):
    trainer = faulty(config, at(step))
    while trainer.step < step:
        trainer.train_step()
    before = [tensor.clone() for tensor in tensors(trainer)]
    trainer.train_step()
    if step == 0:  # before its first step the optimizer has no state
        before += [torch.zeros_like(tensor) for tensor in tensors(trainer)[len(before) :]]
    assert trainer.step == step + 1
    torch.testing.assert_close(tensors(trainer), before, rtol=0, atol=0)


def tensors(trainer: Trainer) -> list[torch.Tensor]:
    moments = [
        value for state in trainer.optimizer.adamw.state.values() for value in state.values()
    ]
    return [*trainer.model.state_dict().values(), *moments]


def test_bad_batches_are_warned_of_once_and_counted_and_cost_no_roll_back(config, capsys):
    trainer = faulty(config, at(2, 4))
    finish(trainer)
    assert trainer.step == 8
    (warning,) = warnings(capsys)
    assert "not finite at step 2: this batch is skipped" in warning
    counts = [line["train/skipped_batches"] for line in log(trainer.run) if len(line) == 4]
    assert counts == [1, 1, 2, 2, 2, 2]
    losses = [line["train/loss"] for line in log(trainer.run) if "train/loss" in line]
    assert [loss is None for loss in losses] == [step in (2, 4) for step in range(8)]
    kept = checkpoint(trainer.run)["nonfinite"]
    assert kept == {"skipped": 2, "consecutive": [], "roll_backs": []}


def test_without_bad_batches_the_log_says_nothing_of_them(whole):
    assert not any("train/skipped_batches" in line for line in log(whole))


def test_bad_batches_in_a_row_roll_training_back_to_other_batches(config, whole, capsys):
    trainer = faulty(config, until_rolled_back(4, 5))
    finish(trainer)
    assert trainer.step == 8
    assert "rolls back from step 6 to 3, to other batches" in warnings(capsys)[-1]
    assert log(trainer.run)[-2]["train/roll_backs"] == 1
    assert [line["step"] for line in log(trainer.run)] == [1, 2, 3, 4, 5, 6, 7, 8, 8]
    with pytest.raises(AssertionError, match="not equal"):
        assert_same_bits(whole, trainer.run)


def test_consecutive_bad_batches_before_the_first_checkpoint_goes_back_to_the_beginning(config):
    trainer = faulty(config, until_rolled_back(0, 1))
    finish(trainer)
    assert trainer.step == 8
    assert log(trainer.run)[0]["step"] == 1


def test_the_second_roll_back_ends_training_and_names_the_steps(config):
    with pytest.raises(NumericError, match=r"steps 4 to 5.*steps 4 to 5"):
        finish(faulty(config, at(4, 5)))


def test_a_good_batch_after_too_many_bad_ones_does_not_hide_them():
    guard = NonFiniteGuard(limit=5)  # a GPU counts several steps at a time
    for step in range(16):
        guard.count(step, bad=step < 10)
    assert guard.too_many and guard.reason().endswith("at steps 0 to 9")


def test_no_checkpoint_is_written_amid_bad_batches(experiment):
    trainer = faulty(experiment(training__precision="float32"), at(4, 5))
    finish(trainer)
    steps = {path.stem for path in (trainer.run.folder / "checkpoints").iterdir()}
    assert steps == {"step_0000003", "step_0000008"}


@pytest.mark.parametrize("step", [2, 6, 7])
def test_a_run_with_bad_batches_that_is_interrupted_comes_to_the_same_bits(
    config, experiment, step
):
    whole, other = config, experiment(training__precision="float32")
    finish(faulty(whole, until_rolled_back(4, 5)))
    trainer = faulty(other, until_rolled_back(4, 5))
    finish(trainer, lambda: trainer.step == step)
    finish(faulty(other, until_rolled_back(4, 5)))
    assert_same_bits(Run.open(whole), Run.open(other))
    assert log(Run.open(whole)) == log(Run.open(other))


def test_weights_that_explode_end_with_an_error_and_no_bad_checkpoint(experiment):
    config = experiment(training__learning_rate="1e30", training__warmup_steps="0")
    run = Run.open(config)
    with pytest.raises(NumericError, match=r"training\.learning_rate"):
        finish(Trainer(run))
    assert not list((run.folder / "checkpoints").glob("*.pt"))
