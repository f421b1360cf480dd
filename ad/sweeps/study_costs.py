"""How long the runs of a study will take, from those that are done.

A run takes as long as those that differ from it in seeds only. Where there are none its training
takes as long as its arithmetic does at the pace of the others, and without any at `PACE`.
"""

from collections.abc import Sequence

import numpy as np

from ad.config.schema import Experiment
from ad.sweeps.study import Trial, trainings
from ad.sweeps.study_rows import Row

PACE = 8e10  # multiplications a second of the quickstart's training, on two quiet cores
EVALUATION = 7.0  # seconds, of the quickstart's evaluation with two seeds
TOKENS = {"fused": 1, "separate": 3, "modal": 3}  # a transition


def estimate(trials: Sequence[Trial], rows: dict[str, Row]) -> dict[str, float]:
    """Seconds that each of `trials` will take, by key; a training counts where it is due first."""
    configs = {trial.key: trial.config for trial in trials}
    done = [rows[key] for key in configs if key in rows]
    paces = [work(configs[row["key"]]) / row["train_s"] for row in done if row["train_s"]]
    pace = _typical(paces) or PACE
    evaluation = _typical([row["evaluate_s"] for row in done]) or EVALUATION
    seconds = {trial.key: evaluation for trial in trials}
    for group in trainings(trials):
        first = next((trial for trial in group if trial.key not in rows), group[0])
        similar = [row for row in rows.values() if _similar(row, first)]
        training = _typical([row["train_s"] for row in similar]) or work(first.config) / pace
        seconds[first.key] += training
    return seconds


def work(config: Experiment) -> float:
    """Multiplications of a training: of its matrices, forward and backward (three times that)."""
    model, data, training = config.model, config.data, config.training
    tokens = data.context_length * TOKENS[model.layout]
    block = 4 * model.width**2 + 2 * model.width * model.feed_forward + 2 * tokens * model.width
    return 3.0 * training.steps * training.batch_size * tokens * model.layers * block


def _similar(row: Row, trial: Trial) -> bool:
    return (row["changed"], row["train_steps"]) == (trial.changed, trial.config.training.steps)


def _typical(values: list[float | None]) -> float | None:
    """The median, since a machine that was busy or asleep has made some of them far too long."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None
