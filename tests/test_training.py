"""Training: what its bits depend on, the log, the schedule, the refusal of what does not belong."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from training_run import assert_same_bits, forget_last_checkpoint, logged, train

from ad.config.schema import MethodConfig, TrainingConfig
from ad.errors import ConfigError
from ad.evaluation.evaluate import evaluate
from ad.runtime.run import Run
from ad.training import checkpoints, precision
from ad.training.optimizer import learning_rate


def test_the_same_configuration_gives_the_same_bits(whole, experiment):
    assert_same_bits(whole, train(experiment(training__precision="float32")))


def test_how_often_a_run_is_validated_saved_and_logged_changes_no_weight(whole, experiment):
    often = {"eval_every": "2", "checkpoint_every": "8", "log_every": "5", "precision": "float32"}
    changes = {f"training__{name}": value for name, value in often.items()}
    assert_same_bits(whole, train(experiment(**changes)))


def test_checkpoints_that_are_kept_change_no_weight_and_are_there_after_a_resume(whole, experiment):
    config = experiment(training__keep_every="2", training__precision="float32")
    for forget in (False, True):
        if forget:
            forget_last_checkpoint(Run(config))
        run = train(config)
        assert_same_bits(whole, run)
        assert checkpoints.steps(run.folder / "checkpoints") == [0, 2, 4, 6, 8]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("training__train_seed", "1"),
        ("method__settings__label_smoothing", "0.1"),
        ("training__weight_decay", "0.5"),
        ("training__gradient_norm", "0.01"),
        ("method__settings__action_dropout", "0.5"),
        ("model__dropout", "0.2"),
        ("model__attention_dropout", "0.2"),
        ("data__windows_from_start", "0.9"),
        ("data__history_stride", "2"),
        ("data__env_steps", "600"),
    ],
)
def test_a_setting_that_binds_changes_the_weights(whole, experiment, path, value):
    other = train(experiment(**{"training__precision": "float32", path: value}))
    with pytest.raises(AssertionError, match="not equal"):
        assert_same_bits(whole, other)


SCHEDULE = replace(
    TrainingConfig(), steps=10, warmup_steps=4, learning_rate=1.0, final_learning_rate=0.2
)


WITHOUT_DRAWS = {
    "training__precision": "float32",
    "model__dropout": "0",
    "model__attention_dropout": "0",
}


@pytest.mark.parametrize("count", ["3"])
def test_accumulated_gradients_of_micro_batches_train_on_the_same_losses(experiment, count):
    losses = [
        logged(train(experiment(**WITHOUT_DRAWS, training__micro_batches=n)), "train/loss")
        for n in ("1", count)
    ]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def test_activation_checkpointing_changes_no_bit(experiment):
    changes = WITHOUT_DRAWS | {"model__dropout": "0.2", "model__attention_dropout": "0.2"}
    runs = [
        train(experiment(**changes, training__activation_checkpointing=word))
        for word in ("false", "true")
    ]
    assert_same_bits(*runs)


def test_the_learning_rate_warms_up_in_equal_steps_to_its_height():
    assert [learning_rate(step, SCHEDULE) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]


def test_the_learning_rate_has_its_final_value_at_the_last_step():
    assert learning_rate(9, SCHEDULE) == pytest.approx(0.2)


def test_a_training_that_stops_early_keeps_the_rates_of_the_whole_schedule():
    short = replace(SCHEDULE, steps=5, schedule_steps=SCHEDULE.steps)
    whole = [learning_rate(step, SCHEDULE) for step in range(5)]
    assert [learning_rate(step, short) for step in range(5)] == whole


def test_the_logged_learning_rate_is_the_one_of_the_schedule(whole):
    expected = [learning_rate(step, whole.config.training) for step in range(8)]
    assert logged(whole, "train/learning_rate") == expected


def test_an_unfinished_training_is_not_evaluated(trained):
    forget_last_checkpoint(trained)
    with pytest.raises(ConfigError, match="`ad train`"):
        evaluate(trained)


@pytest.mark.parametrize(
    ("flags", "setting", "expected"),
    [
        ({"avx2", "avx512_bf16"}, "auto", True),
        ({"avx2", "amx_bf16"}, "auto", True),
        ({"avx2"}, "auto", False),
        ({"avx2"}, "bfloat16", True),
        ({"avx2", "avx512_bf16"}, "float32", False),
    ],
)
def test_auto_is_bfloat16_where_the_processor_is_fast_at_it(
    flags, setting, expected, experiment, monkeypatch
):
    monkeypatch.setattr(precision, "_cpu_features", lambda: flags)
    config = experiment(training__precision=setting)
    assert precision.uses_bfloat16(config, torch.device("cpu")) == expected
    learner = replace(config, method=MethodConfig("rl2"))  # which is float32
    assert not precision.uses_bfloat16(learner, torch.device("cpu"))
