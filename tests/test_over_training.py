"""Analyses over training: of which checkpoints they are, and what they say of their changes."""

import json

import numpy as np
import pytest
from training_run import train

from ad.evaluation.evaluate import evaluate
from ad.interpret.inspect import ALL, inspect_run
from ad.interpret.labeled import LabeledArray, load
from ad.interpret.over_training import Learning, appeared, describe
from ad.runtime.run import Run


@pytest.fixture(scope="module")
def kept(experiment) -> Run:
    """A trained run with the checkpoints of steps 0, 4, 6 and 8; tests only read it."""
    words = {"precision": "float32", "keep_every": "4", "checkpoint_every": "6"}
    return train(experiment(**{f"training__{name}": value for name, value in words.items()}))


@pytest.fixture(scope="module")
def inspected(kept) -> Run:
    """The same run with one analysis over training and at its end."""
    inspect_run(kept, ["attention"])
    inspect_run(kept, ["attention"], steps=ALL)
    return kept


def over_training(run: Run, name: str) -> dict[str, LabeledArray]:
    return load(run.folder / "inspect" / "over_training" / name)


def test_the_arrays_of_an_analysis_get_the_train_steps_as_an_axis(inspected):
    results, last = (
        over_training(inspected, "attention"),
        load(inspected.folder / "inspect/attention"),
    )
    assert results.keys() == last.keys()
    for name, array in results.items():
        assert array.axes == {"train steps": [0, 4, 6, 8], **last[name].axes}
        np.testing.assert_array_equal(array.at(**{"train steps": 8}), last[name].values)
        assert not np.array_equal(array.values[0], array.values[-1], equal_nan=True)


def test_the_scores_of_the_last_checkpoint_are_those_of_the_evaluation(inspected):
    learning = over_training(inspected, "learning")
    evaluate(inspected)
    held_out = json.loads((inspected.folder / "results.json").read_text())["splits"]["held_out"]
    assert learning["nauc"].values[-1] == pytest.approx(held_out["nauc"])
    assert learning["nauc_interval"].values[-1] == pytest.approx(held_out["ci95"]["nauc"])
    curve = learning["curve"].values
    end = min(10, curve.shape[1] // 2)
    assert Learning().table(learning).header[4:6] == [f"first {end}", f"last {end}"]
    gain = curve[:, -end:].mean(1) - curve[:, :end].mean(1)
    np.testing.assert_allclose(learning["gain"].values, gain, atol=1e-6)
    assert curve[-1, -10:].mean() == pytest.approx(held_out["return_last10"])
    losses = [json.loads(line) for line in (inspected.folder / "metrics.jsonl").open()]
    logged = {line["step"]: line["train/loss"] for line in losses if "train/loss" in line}
    expected = [np.nan, logged[4], logged[6], logged[8]]
    np.testing.assert_array_equal(learning["loss"].values, expected)
    assert np.isfinite(learning["held_out_loss"].values).tolist() == [False, False, False, True]


def learned(low: list[float], nauc: list[float]) -> dict[str, LabeledArray]:
    """What is measured at train steps 0, 1, 2, ...: the lower bound of the gain, and the NAUC."""
    steps = {"train steps": list(range(len(low)))}
    interval = np.stack([low, np.array(low) + 1], axis=1)
    return {
        "gain": LabeledArray(np.array(low) + 0.5, steps, "gain"),
        "gain_interval": LabeledArray(interval, {**steps, "bound": ["low", "high"]}, "interval"),
        "nauc": LabeledArray(np.array(nauc), steps, "NAUC"),
    }


def test_in_context_learning_has_appeared_from_where_on_the_gain_is_above_0():
    nauc = [0.1, 0.2, 0.8, 0.3, 0.9]
    learning = learned([-0.1, 0.2, -0.1, 0.1, 0.3], nauc)
    assert appeared(learning) == 3
    assert "appears at train step 3" in describe(learning)
    assert describe(learning).endswith("Half of the rise of the NAUC is made by 4.")
    assert appeared(learned([0.1, 0.2, 0.1, 0.3, 0.0], nauc)) is None
    assert appeared(learned([0.1, 0.2, 0.1, 0.3, 0.1], nauc)) == 0
    assert describe(learned([0.1, 0.2], [0.5, 0.4])).endswith("lies above 0.")


def test_the_same_checkpoints_are_not_analyzed_again(inspected, monkeypatch, capsys):
    monkeypatch.setattr("ad.interpret.analyses.attention.Attention.run", None)
    inspect_run(inspected, ["attention"], steps=[0, 4, 6, 8])
    assert capsys.readouterr().out.count("(already done)") == 2
