"""The base class of all measures, which is itself the measure `evaluation`.

`evaluation` trains a model and keeps its scores; `analysis` (`ad.sweeps.analyses`) trains a model
and keeps values of analyses.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ad.config.schema import Experiment, config_hash
from ad.errors import ConfigError
from ad.evaluation.calibration import ACTIONS
from ad.evaluation.metrics import json_number
from ad.evaluation.results import read_results
from ad.evaluation.scores import CURVE_EPISODES
from ad.evaluation.summary import SUMMARY
from ad.methods import train_steps
from ad.runtime.devices import choose_device
from ad.runtime.files import read_checked_json
from ad.runtime.metrics_log import value_at
from ad.runtime.run import Run, world_folder, world_title
from ad.sweeps.plan import PlannedRun, Sweep
from ad.sweeps.records import Record, new_record

ACCURACY = "train/held_out_actor_accuracy"  # its name in metrics.jsonl
HARDWARE = ("device", "threads", "precision", "python", "torch", "numpy")
KEPT = (  # scores of results.json
    *("nauc", "success_last10", "return_last10", "share_of_optimum_last10"),
    *("normalized_return_last10", "path_ratio_last10", "found_by_1", "found_by_5", "found_by_10"),
    *("found_by_25", "first_success", "success_seen", "episodes_to_80pct", "tasks_solved"),
    *("return_completed", "return_last", "falls", "num_tasks", "optimal_return"),
    *("regret", "share_before_change", "share_after_change", "recovered", "recovery_episodes"),
    *("length_last10", "optimal_length"),
)
KEPT_REFERENCES = (
    *("random", "random_then_optimal", "explorer", "ceiling"),
    *("tabular_learner", "restarted_learner"),
)


class Measure:
    """The evaluation of trained models, and the defaults of every other measure of `sweep`."""

    def __init__(self, sweep: Sweep):
        self.sweep = sweep

    def bundles(self, runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
        """Return `runs` in groups that are made together: here those that share a training."""
        groups: dict[str, list[PlannedRun]] = {}
        for run in runs:
            groups.setdefault(run.config.name, []).append(run)
        return list(groups.values())

    def is_done(self, run: PlannedRun, record: Record | None) -> bool:
        """Return whether `record` has all that is measured of `run`; a failure has."""
        if record is None or record.failure:
            return record is not None
        worlds = map(world_title, run.config.evaluation.worlds)  # which the run's key leaves out
        return record.values.keys() >= {"", *worlds}

    def check(self, runs: Iterable[PlannedRun]) -> None:
        """Raise ConfigError for what is wrong with the measure, before any of `runs` is made."""

    def make(self, runs: Sequence[PlannedRun], root: Path) -> Iterator[Record]:
        """Make `runs`, a bundle, under `root`, whose folder the caller has locked.

        Yields the record of each once it is there. Raises NumericError if a run cannot be made.
        """
        from ad.pipeline import evaluate

        for run in runs:
            trained = train(run, root)
            evaluate(trained)
            yield _evaluated(run, trained)


def train(run: PlannedRun, root: Path) -> Run:
    """Return the trained run of a planned one, with its files under `root`."""
    from ad import pipeline  # a list of runs and a page need no training

    opened = Run.open(run.in_root(root))
    pipeline.collect(opened, wait=True)  # another process may make runs on the same histories
    pipeline.train(opened)
    return opened


def made_with(run: Run) -> dict[str, Any]:
    """Return the versions and the hardware that a run is made with now."""
    from ad.training.provenance import hardware

    own = hardware(run.config, choose_device(run.config))
    return {"version": version("algorithm-distillation"), **{name: own[name] for name in HARDWARE}}


def _evaluated(planned: PlannedRun, run: Run) -> Record:
    """Return the record of an evaluated run, with its own world and those of its evaluation."""
    own = read_checked_json(run.folder / SUMMARY)
    values = {"": _values(run.folder, own)}
    for kwargs in run.config.evaluation.worlds:
        folder = world_folder(run.folder, kwargs)
        values[world_title(kwargs)] = _values(folder, read_checked_json(folder / SUMMARY))
    step = train_steps(run.config)
    if (accuracy := value_at(run.folder, ACCURACY, step, within=step)) is not None:
        for entry in values.values():
            entry["scores"]["held_out_accuracy"] = accuracy
    resumed = "; ".join(own["resumed_with"])
    return new_record(
        planned,
        values=values,
        seconds=own["timing"],
        made_with=made_with(run) | ({"resumed_with": resumed} if resumed else {}),
    )


def _values(folder: Path, results: dict) -> dict[str, Any]:
    """Return what is kept of a `results.json`, whose `results.csv` is in `folder`.

    scores: on held-out tasks. intervals: 95 % over tasks. curve: the mean share of the optimal
    return in some episodes. per_task: that of the last ten episodes by task. calibration: the
    returns that are achieved for each asked one, by action. references: NAUC by name.
    """
    held_out, train = (results["splits"][split] for split in ("held_out", "train"))
    evaluation = read_results(folder / "results.csv")["held_out"]
    fifths = np.array_split(evaluation.successes, 5, axis=2)  # of [K, S, E]
    references, by_action = results["references"], results.get("calibration_by_action", {})
    source = references.get("source_end", {}).get("train", {})
    random = references.get("random", {}).get("held_out", {})
    scores = {name: held_out.get(name) for name in KEPT} | {
        **{
            f"success_fifth_{k}": json_number(part.mean()) if part.size else None
            for k, part in enumerate(fifths, start=1)
        },
        "train_nauc": train["nauc"],
        "train_success_last10": train["success_last10"],
        "source_return": source.get("return_last10"),
        "source_share": source.get("share_of_optimum_last10"),
        "random_return": random.get("return_last10"),
    }
    naucs = {
        name: references.get(name, {}).get("held_out", {}).get("nauc") for name in KEPT_REFERENCES
    }
    per_task = {task["task"]: task["share_of_optimum_last10"] for task in held_out["per_task"]}
    return {
        "scores": {name: score for name, score in scores.items() if score is not None},
        "intervals": {
            name: ends for name, ends in held_out["ci95"].items() if name in KEPT and ends
        },
        "curve": _curve(evaluation.returns, held_out["per_task"]),
        "per_task": {name: share for name, share in per_task.items() if share is not None},
        "calibration": {
            action: {repr(own["asked"]): own["achieved"] for own in by_action.get(action, ())}
            for action in ACTIONS
        },
        "references": {name: nauc for name, nauc in naucs.items() if nauc is not None},
    }


def _curve(returns: np.ndarray, per_task: Sequence[dict]) -> dict[str, float]:
    """Return shares of the optimal return by episode, of returns [K, S, E].

    Returns {} unless all optimal returns are above 0. Where tasks change, a return is compared with
    the mean of the optimal returns of the rollout's tasks.
    """
    optimal = [task["optimal_return"] for task in per_task]
    if not all(optimum is not None and optimum > 0 for optimum in optimal):
        return {}
    shares = (returns.mean(1) / np.array(optimal)[:, None]).mean(0)  # [E]
    kept = [episode for episode in CURVE_EPISODES if episode <= len(shares)]
    return {str(episode): float(shares[episode - 1]) for episode in kept}


def same_protocol(sweep: Sweep, config: Experiment) -> PlannedRun:
    """Return a run of `sweep` with the world, the split and the evaluation of an entry's `config`.

    Raises ConfigError if there is none.
    """

    def protocol(own: Experiment) -> tuple:
        played = own.evaluation.episodes, own.evaluation.env_steps, own.evaluation.eval_seeds
        return config_hash(own.env), config_hash(own.split), *played

    def fits(run: PlannedRun) -> bool:
        in_own_world = not (sweep.groups[run.group].world and run.config.evaluation.worlds)
        return in_own_world and protocol(run.config) == protocol(config)

    planned = next(filter(fits, sweep.planned_runs()), None)
    if planned is None:
        raise ConfigError(
            f"no run of the board {sweep.name} has the world, the split and the evaluation of "
            f"{config.name}: configure it by the file of a world in the board"
        )
    return planned


def entry_record(planned: PlannedRun, name: str, again: dict, key: str) -> Record:
    """Return the record of an entry from outside, of what its evaluation here gave (`ad.entry`).

    `planned` is the run whose cell it has, `name` its row, and `key` the SHA-256 of its policy, so
    that a copy under another name is no further run.
    """
    held_out = again["splits"]["held_out"]
    shares = {own["task"]: own["share_of_optimum_last10"] for own in held_out["per_task"]}
    values = {
        "scores": {name: held_out[name] for name in KEPT if held_out.get(name) is not None},
        "intervals": {name: ends for name, ends in held_out["ci95"].items() if ends},
        "per_task": {name: share for name, share in shares.items() if share is not None},
        **{"curve": {}, "calibration": {}, "references": {}},
    }
    on = again["evaluated_on"]
    made = {name: on[name] for name in HARDWARE} | {"version": version("algorithm-distillation")}
    made |= {"program": again["program"]}
    record = new_record(planned, values={"": values}, made_with=made)
    own = f"{key} {record.group} {record.split_seed}"  # a program may enter several cells
    return replace(record, key=hashlib.sha256(own.encode()).hexdigest()[:16], row=name)
