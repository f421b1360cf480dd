"""Over training: what analyses say of each checkpoint, and when in-context learning appears.

The arrays of an analysis get a new first axis, the train steps of the checkpoints. The analysis
`learning` adds the losses and the held-out returns of each checkpoint. In-context learning has
appeared at the first checkpoint from which on the interval of the gain lies above 0. The gain is
the mean return of the last ten episodes minus the mean of the first ten, or, of fewer than twenty
episodes, the second half minus the first.
"""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from ad.evaluation import metrics
from ad.evaluation.scores import UNKNOWN
from ad.evaluation.summary import task_facts
from ad.interpret.analysis import Analysis, Subject, correlation, estimate_text, estimated, texts
from ad.interpret.contexts import Environments
from ad.interpret.labeled import TRAIN_STEPS, Axes, LabeledArray, Results, intervals, stack
from ad.reporting.page import Table
from ad.runtime.metrics_log import value_at

MOST_ROWS = 10  # of a table of changes


class Learning(Analysis):
    """Losses and held-out returns of each checkpoint, by the rollouts of the evaluation."""

    reads_contexts: ClassVar[bool] = False
    arrays: ClassVar[Axes] = {
        "nauc": (),
        "gain": (),
        "loss": (),
        "held_out_loss": (),
        "curve": ("episode",),
    }

    @classmethod
    def check(cls, subject):
        """Pass: every model has returns."""

    def run(self, subject):
        """Return the losses, the NAUC, the gain within the context and the learning curve."""
        folder, step = subject.run.folder, subject.choice.step
        log_every = subject.run.config.training.log_every
        loss = value_at(folder, "train/loss", step, log_every)
        held_out = value_at(folder, "train/held_out_actor_loss", step)
        returns = _held_out_returns(subject)  # [K, S, E]
        world, length = subject.run.world, subject.run.config.env.episode_length
        facts = task_facts(world, length, subject.run.split.held_out_tasks)
        nauc = metrics.nauc(returns.mean(1), facts.optimal_return)
        first, last = _ends(returns.mean(1))
        end = _num_ends(returns.shape[2])
        episodes = {"episode": list(range(1, returns.shape[2] + 1))}
        return {
            **estimated("nauc", nauc, {}, "NAUC on held-out tasks"),
            **estimated("gain", last - first, {}, f"last {end} returns minus the first"),
            "loss": _number(loss, "loss on training batches, as last logged"),
            "held_out_loss": _number(held_out, "loss on held-out actors, where it was logged"),
            "curve": LabeledArray(returns.mean((0, 1)), episodes, "mean return on held-out tasks"),
        }

    def table(self, results):
        """Return a row for each checkpoint."""
        curve = results["curve"].values
        end = _num_ends(curve.shape[1])
        header = [TRAIN_STEPS, "loss", "held-out loss", "NAUC"]
        header += [f"first {end}", f"last {end}", "gain"]
        scores = [results[name].values for name in ("loss", "held_out_loss", "nauc")]
        gains = np.column_stack([results["gain"].values, results["gain_interval"].values])
        rows = [
            [
                str(step),
                *texts(
                    [*(float(values[n]) for values in scores), *map(float, _ends(curve[n]))], ".3f"
                ),
                estimate_text(*gains[n], "+.3f"),
            ]
            for n, step in enumerate(results["loss"].axes[TRAIN_STEPS])
        ]
        return Table(header, rows)


def over_training(analysis: Analysis, subjects: dict[int, Subject]) -> Results:
    """Return the arrays of `analysis` for each of `subjects`, which are given by train step."""
    return stack({step: analysis.run(each) for step, each in subjects.items()}, TRAIN_STEPS)


def appeared(learning: Results) -> int | None:
    """Return the train step at which in-context learning has appeared.

    None if it has not, or if the gain has no interval.
    """
    low = learning["gain_interval"].values[:, 0]
    return _first_lasting(low > 0, learning["gain"].axes[TRAIN_STEPS])


def describe(learning: Results) -> str:
    """Return in a sentence when in-context learning appears, and when the NAUC rises."""
    step, nauc = appeared(learning), learning["nauc"]
    if np.isnan(learning["gain_interval"].values).all():
        return "When in-context learning appears is unknown: a single task gives no interval."
    if step is None:
        return "In-context learning appears at none of these checkpoints."
    text = (
        f"In-context learning appears at train step {step}: from there on the 95 % interval of the "
        "gain, the return of the last episodes minus that of the first ones, lies above 0."
    )
    if not nauc.values[-1] > nauc.values[0]:
        return text
    halfway = _halfway(nauc.values, nauc.axes[TRAIN_STEPS])
    return f"{text} Half of the rise of the NAUC is made by {halfway}."


def changes_table(results: Results, learning: Results) -> Table:
    """Return the largest changes over training of one array of an analysis.

    It is the first array with an interval, else the first one by heads, else the first one.
    """
    by_head = [name for name, array in results.items() if "head" in array.axes]
    array = results[[*intervals(results), *by_head, *results][0]]
    steps, (_, *axes) = array.axes[TRAIN_STEPS], array.axes
    nauc = dict(zip(learning["nauc"].axes[TRAIN_STEPS], learning["nauc"].values, strict=True))
    nauc = np.array([nauc.get(step, np.nan) for step in steps])
    change = np.nan_to_num(array.values[-1] - array.values[0])
    order = np.argsort(-np.abs(change), axis=None, kind="stable")[:MOST_ROWS]
    rows = []
    for index in zip(*np.unravel_index(order, change.shape), strict=True):
        values = array.values[(slice(None), *index)]
        halfway = _halfway(values, steps)
        rows.append(
            [
                *(str(array.axes[axis][n]) for axis, n in zip(axes, index, strict=True)),
                *texts(values[[0, -1]], ".3f"),
                UNKNOWN if halfway is None else str(halfway),
                *texts([correlation(values, nauc)], ".3f"),
            ]
        )
    return Table([*axes, "first", "last", "half of it by step", "correlation with NAUC"], rows)


def _held_out_returns(subject: Subject) -> np.ndarray:
    """Return the returns of the evaluation's rollouts on the held-out tasks, [K, S, E]."""
    config, tasks = subject.run.config, subject.run.split.held_out_tasks
    seeds, episodes = range(config.evaluation.eval_seeds), config.evaluation.episodes
    envs = Environments([(seed, task) for seed in seeds for task in tasks], None, "task", episodes)
    played = envs.play(config, subject.method, subject.model)
    return played.returns.reshape(len(seeds), len(tasks), -1).swapaxes(0, 1).astype(float)


def _ends(returns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means over the first and over the last episodes, [..., E] -> [...] each."""
    count = _num_ends(returns.shape[-1])
    return returns[..., :count].mean(-1), returns[..., -count:].mean(-1)


def _num_ends(episodes: int) -> int:
    """Return the number of first and of last episodes: ten, or half of fewer than twenty."""
    return max(1, min(metrics.LAST, episodes // 2))


def _number(value: float | None, about: str) -> LabeledArray:
    return LabeledArray(np.array(np.nan if value is None else value), {}, about)


def _first_lasting(is_true: np.ndarray, steps: Sequence) -> int | None:
    """Return the first of `steps` from which on `is_true` [steps], None if the last is false."""
    count = int(np.logical_and.accumulate(is_true[::-1]).sum())
    return steps[len(steps) - count] if count else None


def _halfway(values: np.ndarray, steps: Sequence) -> int | None:
    """Return the first of `steps` from which on half of the change of `values` is made."""
    change = values[-1] - values[0]
    return _first_lasting((values - values[0]) / change >= 0.5, steps) if change else None
