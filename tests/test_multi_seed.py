"""Several training seeds in one process against each alone: in turns, and stacked in one pass."""

import itertools
import time
from dataclasses import replace

import pytest
import torch
from test_nonfinite import at, faulty
from training_run import assert_same_bits, checkpoint, log, states, train, train_seeds

from ad.errors import NumericError
from ad.runtime.run import Run
from ad.training import trainer as trainer_module
from ad.training.loop import new_trainers
from ad.training.multi_seed import StackedModels, draws_random_numbers
from ad.training.trainer import Trainer

# PyTorch has no batched attention on a CPU, where nothing is stacked but here.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")

EXACT = {
    "training__precision": "float32",
    "model__dropout": "0",
    "model__attention_dropout": "0",
}
SEEDS = 3, 5, 8


def seeds(experiment, **changes: str) -> list[Run]:
    """Runs that differ in their training seeds."""
    configs = [experiment(**changes) for _ in SEEDS]
    return [
        Run.open(replace(config, training=replace(config.training, train_seed=seed)))
        for config, seed in zip(configs, SEEDS, strict=True)
    ]


def copies(experiment, runs: list[Run]) -> list[Run]:
    """The same configurations under names of their own."""
    return [Run.open(replace(run.config, name=experiment().name)) for run in runs]


def together(runs: list[Run], stacked: bool | None = None, stop=lambda: False) -> None:
    try:
        train_seeds(new_trainers(runs), stop, stacked)
    finally:
        for run in runs:
            run.log.close()


def alone(experiment, runs: list[Run]) -> list[Run]:
    return [train(copy.config) for copy in copies(experiment, runs)]


def assert_near(one: Run, other: Run) -> None:
    for mine, its in zip(states(one), states(other), strict=True):
        torch.testing.assert_close(mine, its, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method__settings__action_dropout": "0.4"},
        {"method__settings__label_smoothing": "0.1", "model__position": "window"},
        {"model__encoder": "table", "model__tokenizer": "separate", "model__position": "rotary"},
        {"model__tokenizer": "modal", "model__position": "history", "model__reward": "projection"},
        {"model__next_observation": "false", "model__position": "none"},
        {"method__name": "in_context_planning"},
    ],
)
def test_the_gradients_of_a_stack_are_those_of_each_alone(experiment, changes):
    trainers = new_trainers(seeds(experiment, **EXACT, **changes))
    expected = [trainer.loss_and_grad(trainer.model) for trainer in trainers]
    found = StackedModels(trainers).losses_and_grads()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    losses = [float(metrics["loss"]) for metrics, _ in found]
    assert len(set(losses)) == len(SEEDS)  # each has weights and batches of its own


def test_seeds_that_train_stacked_come_out_as_those_that_train_alone(experiment):
    runs = seeds(experiment, **EXACT)
    together(runs, stacked=True)
    for run, other in zip(runs, alone(experiment, runs), strict=True):
        assert_near(run, other)
        assert [line["step"] for line in log(run)] == [line["step"] for line in log(other)]
        assert log(run)[-1].keys() == log(other)[-1].keys()


def test_seeds_that_take_turns_have_the_bits_of_those_that_train_alone(experiment):
    runs = seeds(experiment)  # with dropout, in bfloat16 where that pays
    together(runs)
    for run, other in zip(runs, alone(experiment, runs), strict=True):
        assert_same_bits(run, other)
        assert log(run) == log(other)


@pytest.mark.parametrize("stacked", [False, True])
def test_one_that_is_behind_catches_up(experiment, stacked):
    runs = seeds(experiment, **EXACT)
    first = Trainer(runs[0])
    train_seeds([first], lambda: first.step == 3)
    count = iter(range(100))
    together(runs, stacked, lambda: next(count) == 4)  # all of them are interrupted once more
    assert [checkpoint(run)["step"] for run in runs] == [5, 5, 5]
    together(runs, stacked)
    for run, other in zip(runs, alone(experiment, runs), strict=True):
        assert_near(run, other)


def test_a_roll_back_of_one_is_nothing_to_the_others(experiment, monkeypatch):
    runs = seeds(experiment, **EXACT, training__max_bad_batches="0")
    trainers, update = new_trainers(runs), Trainer.update

    def poisoned(self, metrics, gradient):
        if self is trainers[1] and self.step == 4 and not self.guard.roll_backs:
            metrics = {"loss": metrics["loss"] * torch.nan}
        update(self, metrics, gradient)

    monkeypatch.setattr(Trainer, "update", poisoned)
    train_seeds(trainers, stacked=True)
    assert [len(trainer.guard.roll_backs) for trainer in trainers] == [0, 1, 0]
    assert [trainer.step for trainer in trainers] == [8, 8, 8]
    monkeypatch.undo()
    others = alone(experiment, runs)
    for number in (0, 2):
        assert_near(runs[number], others[number])


def test_numbers_gone_wrong_in_one_do_not_stop_the_others(experiment, capsys):
    runs = seeds(experiment, **EXACT, training__max_bad_batches="0")
    trainers = [Trainer(runs[0]), faulty(runs[1].config, at(*range(8))), Trainer(runs[2])]
    with pytest.raises(NumericError, match=f"1 of 3 trainings failed: {runs[1].config.name}"):
        train_seeds(trainers)
    assert f"{runs[1].config.name}: training left the finite numbers" in capsys.readouterr().err
    assert [trainer.step for trainer in trainers] == [8, trainers[1].step, 8]
    assert trainers[1].step < 8


@pytest.mark.parametrize("stacked", [False, True])
def test_a_run_has_its_share_of_the_time(experiment, stacked, monkeypatch):
    runs = seeds(experiment, **EXACT)
    first = Trainer(runs[0])
    train_seeds([first], lambda: first.step == 3)
    before = runs[0].timing()["train_s"]
    trainers, ticks = new_trainers(runs), itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    train_seeds(trainers, stacked=stacked)
    spent = [run.timing()["train_s"] for run in runs]
    assert min(spent[1:]) > spent[0] - before > 0  # which had three steps less to make
    assert sum(spent) - before <= next(ticks)


def test_a_stop_is_heard_although_one_has_failed(experiment):
    runs = seeds(experiment, **EXACT, training__max_bad_batches="0")
    trainers = [Trainer(runs[0]), faulty(runs[1].config, at(*range(8))), Trainer(runs[2])]
    train_seeds(trainers, lambda: trainers[0].step == 6)
    assert [trainer.step for trainer in trainers][::2] == [6, 6]


def test_one_that_is_done_is_left_alone(experiment):
    runs = seeds(experiment, **EXACT)
    train(runs[0].config)
    trainers = new_trainers(runs)
    train_seeds(trainers, stacked=True)
    assert [trainer.train_steps_left for trainer in trainers] == [0, 0, 0]


@pytest.mark.parametrize(
    ("changes", "drawn"),
    [
        ({}, False),
        ({"model__dropout": "0.1"}, True),
        ({"model__attention_dropout": "0.1"}, True),
        ({"model__encoder": "offsets"}, True),
    ],
)
def test_what_draws_random_numbers_is_not_stacked(experiment, changes, drawn, monkeypatch):
    trainer = Trainer(Run.open(experiment(**EXACT | changes)))
    assert draws_random_numbers(trainer.config, trainer.model) == drawn
    trainer.model.train()
    monkeypatch.setattr(trainer_module, "seed_torch", lambda *_: None)
    state = torch.get_rng_state()
    trainer.loss_and_grad(trainer.model)
    assert (not torch.equal(torch.get_rng_state(), state)) == drawn
