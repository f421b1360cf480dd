"""Write and read `results.json`: the scores of each split and of the references."""

from pathlib import Path
from typing import Any

import numpy as np

from ad.config.schema import config_hash
from ad.data.episodes import nan_if_none, ratio
from ad.data.histories import HistoryStore
from ad.data.manifest import MANIFEST
from ad.data.store import load_history
from ad.errors import ConfigError, CorruptError
from ad.evaluation import metrics
from ad.evaluation.calibration import CALIBRATION, summarize_calibration
from ad.evaluation.metrics import Episodes, TaskFacts, json_number
from ad.evaluation.references import References, all_references
from ad.evaluation.results import Evaluation, read_results
from ad.evaluation.scores import SCORES, columns
from ad.methods import build_method
from ad.runtime.devices import choose_device
from ad.runtime.files import read_checked_json, sha256, write_checked_json
from ad.runtime.run import Run
from ad.training import checkpoints
from ad.training.provenance import (
    evaluation_hardware,
    fingerprint,
    read_sessions,
    resumed_with,
)
from envs.oracle import Reference, TaskOracle
from envs.tasks import task_name

HASHED, SUMMARY = ("results.csv", "trajectories.npz"), "results.json"
FILES = (*HASHED, CALIBRATION, SUMMARY)  # a calibration only if it is configured


def write_summary(run: Run, asked_return: float | None = None) -> None:
    """Write `results.json` from the `results.csv` of `run`.

    asked_return: the return that the evaluated episodes were conditioned on, if they were.
    """
    config, trained = run.config, read_sessions(run.folder)
    evaluations = read_results(run.folder / "results.csv")
    references = all_references(run, evaluations)
    results = {
        "name": config.name,
        **scores(run.world, config.env.episode_length, evaluations, references),
        **summarize_calibration(run),
        "transitions": build_method(config.method).transitions(config),
        "asked_before_reward": config.evaluation.policy.get("asked_before_reward"),
        "stopped_agents": stopped_agents(run),
        "timing": run.timing(),
        "sessions": trained,
        "resumed_with": resumed_with(trained),
        "evaluated_on": evaluation_hardware(config, choose_device(config)),
    }
    write_results_json(run.folder, results | identity(run) | {"asked_return": asked_return})


def write_results_json(folder: Path, results: dict) -> None:
    """Write `results.json` with hashes of its content and of the other result files."""
    names = [*HASHED, *([CALIBRATION] if (folder / CALIBRATION).exists() else [])]
    hashes = {name: sha256(folder / name) for name in names}
    write_checked_json(folder / SUMMARY, results | {"files": hashes})


def read_summary(run: Run) -> dict:
    """Read the `results.json` of `run`.

    Raises ConfigError unless it was made with the present settings, CorruptError if a result file
    is damaged.
    """
    complete = all((run.folder / name).exists() for name in (*HASHED, SUMMARY))
    if complete and (damaged := damaged_results(run.folder)):
        raise CorruptError(f"{'; '.join(damaged.values())}; `ad evaluate` makes it again")
    if not is_evaluated(run):
        raise ConfigError(f"{run.folder} has no results of these settings: run `ad evaluate`")
    return read_checked_json(run.folder / SUMMARY)


def is_evaluated(run: Run) -> bool:
    """Return whether `run` has undamaged results of the present checkpoint and settings."""
    return matches(run.folder, identity(run))


def matches(folder: Path, expected: dict) -> bool:
    """Return whether the files in `folder` are undamaged and `results.json` has `expected`."""
    if damaged_results(folder):
        return False
    results = read_checked_json(folder / SUMMARY)
    return {name: results.get(name) for name in expected} == expected


def damaged_results(folder: Path) -> dict[Path, str]:
    """Return the result files in `folder` that are missing or damaged, each with a sentence."""
    try:
        hashes = dict(read_checked_json(folder / SUMMARY)["files"])
    except FileNotFoundError:
        return {folder / SUMMARY: f"{folder / SUMMARY} is missing"}
    except (ValueError, KeyError, TypeError):
        return {folder / SUMMARY: f"{folder / SUMMARY} is not what was written"}
    damaged = {}
    for path in (folder / name for name in dict.fromkeys([*HASHED, *hashes])):
        if not path.is_file():
            damaged[path] = f"{path} is missing"
        elif sha256(path) != hashes.get(path.name):
            damaged[path] = f"{path} is not what was written: its SHA-256 differs"
    return damaged


def identity(run: Run) -> dict[str, Any]:
    """Return hashes of the settings, the split, the checkpoint and the code that results depend on.

    `code` has the hashes of the files of the user's classes, and is None if there are none.
    """
    path = checkpoints.newest(run.folder / "checkpoints")
    return {
        "code": fingerprint(run.config, run.split)["code"] or None,
        "config_hash": config_hash(run.config),
        "split_hash": run.split.hash,
        "checkpoint": sha256(path) if path else None,
    }


def stopped_agents(run: Run) -> dict[str, int]:
    """Return the step at which source agents with a non-finite loss stopped, by task name."""
    stopped, histories = {}, HistoryStore(run.config)
    for task in run.history_tasks:
        folder = histories.folder(task)
        if (folder / MANIFEST).exists():
            history = load_history(folder, ())
            if history.stopped_at is not None:
                stopped[task_name(task)] = history.stopped_at
    return stopped


def scores(
    world: TaskOracle,
    episode_length: int,
    evaluations: dict[str, Evaluation],
    references: References,
) -> dict:
    """Return the entries `splits` and `references` of `results.json`, in `world`."""
    facts = {split: task_facts(world, episode_length, e.tasks) for split, e in evaluations.items()}
    return {
        "splits": {split: split_entry(e, facts[split]) for split, e in evaluations.items()},
        "references": {
            name: {
                split: reference_entry(name, r, facts[split], evaluations[split].present)
                for split, r in by_split.items()
            }
            for name, by_split in references.items()
        },
    }


def split_entry(evaluation: Evaluation, facts: TaskFacts) -> dict:
    """Return a split's entry in `results.json`: means over tasks, 95 % intervals, `per_task`."""
    p_success = np.maximum.accumulate(evaluation.successes, axis=2).mean(1)
    episodes = Episodes(
        evaluation.returns,
        evaluation.lengths,
        evaluation.successes,
        p_success,
        evaluation.reward_in_context,
        evaluation.completed,
        facts,
    )
    per_task, facts = _per_task(episodes, evaluation.present)
    columns = {"optimal_return": facts.optimal_return, "optimal_length": facts.shortest}
    tasks, curve = evaluation.tasks, evaluation.returns.mean((0, 1))
    low, high = metrics.bootstrap(np.stack(list(per_task.values()), axis=1))
    intervals = zip(per_task, low.tolist(), high.tolist(), strict=True)
    kinds = "tasks" if evaluation.present is None else "first tasks of rollouts"
    method = (
        f"percentile bootstrap over {len(tasks)} {kinds} of one trained model, "
        f"{metrics.RESAMPLES:,} resamples (low = high where all tasks score the same)"
    )
    return {
        **{name: json_number(metrics.mean(values)) for name, values in per_task.items()},
        **{name: json_number(column.mean()) for name, column in columns.items()},
        "return_first10": json_number(curve[: metrics.LAST].mean()),
        "episodes_to_80pct": metrics.episodes_to_80pct(curve, facts.optimal_return),
        "tasks_solved": metrics.solved(per_task["success_last10"]),
        "num_tasks": len(tasks),
        "num_seeds": evaluation.returns.shape[1],
        "num_episodes": evaluation.returns.shape[2],
        "ci95": {name: None if np.isnan(a) else [a, b] for name, a, b in intervals},
        "ci95_method": method if len(tasks) > 1 else "one task: no interval, low = high",
        "per_task": [
            {"task": task_name(task)}
            | {name: json_number(values[k]) for name, values in (per_task | columns).items()}
            for k, task in enumerate(tasks)
        ],
    }


def reference_entry(
    name: str, reference: Reference, facts: TaskFacts, present: np.ndarray | None = None
) -> dict:
    """Return a reference's entry in `results.json`; `curve` is its mean return in each episode.

    Scores of a whole curve are None for source_end, which has the last episodes only. `present` is
    that of `Evaluation`; with it, a reference has returns [K, S, E].
    """
    returns, successes = (
        values if present is not None else values[:, None]
        for values in (reference.returns, reference.successes)
    )
    unknown, own = np.full_like(returns, np.nan), reference.tasks
    p_success = unknown[:, 0] if reference.p_success is None else reference.p_success
    own_facts = (values[own] for values in (facts.optimal_return, facts.random_return))
    facts = TaskFacts(*own_facts, facts.shortest[own], facts.success_ends)
    episodes = Episodes(returns, unknown, successes, p_success, unknown, unknown, facts)
    curve, (per_task, facts) = returns.mean((0, 1)), _per_task(episodes, present)
    entry = {
        **{score: json_number(metrics.mean(v)) for score, v in per_task.items()},
        "episodes_to_80pct": metrics.episodes_to_80pct(curve, facts.optimal_return),
        "num_episodes": len(curve),
        "curve": [json_number(value) for value in curve],
    }
    if name == "source_end":
        entry |= dict.fromkeys(("nauc", "episodes_to_80pct", *(s.name for s in columns("search"))))
    return entry


def _per_task(
    episodes: Episodes, present: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], TaskFacts]:
    """Return the scores of each task, float [K], NaN for unknown, and the facts about it.

    Where tasks change (`present`, as in `Evaluation`), a return is compared with the facts of its
    episode's task, and there are scores of changes. Scores and facts are means over the episodes of
    the rollouts that began in a task.
    """
    scores = {one.name: one.per_task(episodes) for one in SCORES.values() if one.per_task}
    if present is None:
        return scores, episodes.facts
    names = ("optimal_return", "random_return", "shortest")
    now = {name: getattr(episodes.facts, name)[present] for name in names}  # [K, S, E]
    best = now["optimal_return"]
    shares = ratio(episodes.returns, np.where(best > 0, best, np.nan))
    between = metrics.normalized(episodes.returns, now["random_return"], best)
    scores |= {
        "nauc": metrics.mean_of_known(shares, (1, 2)),
        "share_of_optimum_last10": metrics.mean_of_known(shares[..., -metrics.LAST :], (1, 2)),
        "normalized_return_last10": metrics.mean_of_known(between[..., -metrics.LAST :], (1, 2)),
        "path_ratio_last10": np.full(len(shares), np.nan),
        "regret": metrics.regret(episodes.returns, best),
        **metrics.at_changes(shares, present),
    }
    means = (own.mean((1, 2)) for own in now.values())
    return scores, TaskFacts(*means, episodes.facts.success_ends)


def task_facts(world: TaskOracle, episode_length: int, tasks: np.ndarray) -> TaskFacts:
    """Return the facts that `world` has about `tasks` (int [K, D]); NaN for unknown ones."""
    facts = (
        world.optimal_return(tasks, episode_length),
        world.random_return(tasks, episode_length),
        world.shortest_episode(tasks),
    )
    return TaskFacts(*(nan_if_none(fact, len(tasks)) for fact in facts), world.success_ends)
