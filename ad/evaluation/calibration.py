"""Calibration: the returns that a policy achieves against those that it is asked for.

Each asked return is played on the held-out tasks, with the evaluation's seeds and episodes, by
sampled and by greedy actions: these are two different curves. `calibration.csv` has a row for each
episode: action (sample or greedy), asked, task, eval_seed, episode (from 1), return.
"""

import csv
import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ad.config.schema import Experiment
from ad.errors import CorruptError
from ad.evaluation.scores import estimate
from ad.methods import build_method
from ad.models.sequence_model import SequenceModel
from ad.rollout.tasks import rollout_asked
from ad.runtime.files import atomic_write, remove
from ad.runtime.run import Run
from envs.tasks import Split, task_name

CALIBRATION = "calibration.csv"
COLUMNS = ("action", "asked", "task", "eval_seed", "episode", "return")
ACTIONS = {"sample": "sampled", "greedy": "greedy"}  # how actions are chosen -> its title


def write_calibration(folder: Path, config: Experiment, split: Split, model: SequenceModel) -> None:
    """Play the configured calibration of `model` and write `calibration.csv` into `folder`.

    Without a configured one, no file is left there.
    """
    if not config.evaluation.calibration:
        return remove(folder / CALIBRATION)
    with atomic_write(folder / CALIBRATION) as path, open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for action in ACTIONS:
            writer.writerows(_played(config, split, model, action))


def asked_return(config: Experiment, model: SequenceModel) -> float | None:
    """Return the return that evaluated episodes are conditioned on; None for other methods."""
    if "return_to_go" not in build_method(config.method).fields:
        return None
    asked = config.evaluation.policy.get("asked_return")
    return model.spec.reached_return if asked is None else asked


def summarize_calibration(run: Run) -> dict:
    """Return the entries of `results.json` of a calibration; {} if none is configured.

    `calibration` is that of `evaluation.action`, `calibration_by_action` has both. Raises
    CorruptError if `calibration.csv` is not complete.
    """
    if not run.config.evaluation.calibration:
        return {}
    by_action = read_calibration(run.folder / CALIBRATION)
    own = by_action[run.config.evaluation.action]
    return {"calibration": own, "calibration_by_action": by_action}


def read_calibration(path: Path) -> dict[str, list[dict]]:
    """Return, by action, the mean return for each asked one: asked, achieved, low, high, episodes.

    `low` to `high` is the 95 % interval of the mean over the tasks, by Student's t; with one task,
    over its episodes, None with one episode. Raises CorruptError if a row is missing or invalid.
    """
    returns: dict[tuple[str, float], list[tuple[str, float]]] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != COLUMNS:
            raise ValueError(f"its columns are {', '.join(header)}")
        for action, asked, task, _, _, achieved in rows:
            returns.setdefault((action, float(asked)), []).append((task, float(achieved)))
        if {action for action, _ in returns} != ACTIONS.keys():
            raise ValueError("it does not have both ways to act")
    except (OSError, ValueError) as error:
        raise CorruptError(f"{path} is not a complete file of a calibration: {error}") from error
    return {
        action: [_entry(asked, values) for (a, asked), values in returns.items() if a == action]
        for action in ACTIONS
    }


def _played(config: Experiment, split: Split, model: SequenceModel, action: str) -> Iterator[tuple]:
    """Yield the rows of all asked returns, whose environments are played in one rollout."""
    settings = config.evaluation
    envs = [(seed, task) for seed in range(settings.eval_seeds) for task in split.held_out_tasks]
    asked = list(dict.fromkeys(settings.calibration))
    changed = replace(config, evaluation=replace(settings, action=action))
    method, label = build_method(config.method), f"calibrate, {action}"
    played = rollout_asked(changed, method, model, asked, envs, settings.episodes, label)
    for returns, (value, (seed, task)) in zip(
        played.returns, itertools.product(asked, envs), strict=True
    ):
        for episode, achieved in enumerate(returns, start=1):
            yield action, value, task_name(task), seed, episode, f"{achieved:g}"


def _entry(asked: float, played: list[tuple[str, float]]) -> dict:
    tasks, returns = zip(*played, strict=True)
    own = estimate(returns, tasks)
    ends = {"achieved": own.mean, "low": own.low, "high": own.high}
    return {"asked": asked, **ends, "episodes": len(returns)}
