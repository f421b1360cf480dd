"""Write and read `results.json`: the scores of each split and of the references."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ad.config.schema import config_hash
from ad.data.episodes import known
from ad.data.histories import HistoryStore
from ad.data.manifest import MANIFEST
from ad.data.store import load_history
from ad.errors import ConfigError, CorruptError
from ad.evaluation import metrics
from ad.evaluation.calibration import CALIBRATION, summarize_calibration
from ad.evaluation.references import References, all_references
from ad.evaluation.results import Evaluation, read_results
from ad.methods import build_method
from ad.runtime.devices import choose_device
from ad.runtime.files import read_checked_json, sha256, write_checked_json
from ad.runtime.run import Run
from ad.training import checkpoints
from ad.training.provenance import hardware, read_sessions, resumed_with
from envs.oracle import TaskOracle
from envs.tasks import task_name

HASHED, SUMMARY = ("results.csv", "trajectories.npz"), "results.json"
FILES = (*HASHED, CALIBRATION, SUMMARY)  # of which the calibration is not always there


@dataclass(frozen=True)
class Summary:
    """Evaluations by split, references by name and split, and the content of results.json."""

    evaluations: dict[str, Evaluation]
    references: References
    results: dict


def write_summary(run: Run) -> None:
    """Write `results.json` from the `results.csv` of `run`."""
    evaluations = read_results(run.folder / "results.csv")
    references = all_references(run, evaluations)
    write_results_json(run.folder, compile_results(run, evaluations, references))


def write_results_json(folder: Path, results: dict) -> None:
    """Write `results.json` with a hash of its content and those of the other result files."""
    names = [*HASHED, *([CALIBRATION] if (folder / CALIBRATION).exists() else [])]
    hashes = {name: sha256(folder / name) for name in names}
    write_checked_json(folder / SUMMARY, results | {"files": hashes})


def read_summary(run: Run) -> Summary:
    """Read the result files of `run` and compute its references.

    Raises ConfigError unless they are those of the present settings, CorruptError if a file is
    damaged.
    """
    complete = all((run.folder / name).exists() for name in (*HASHED, SUMMARY))
    if complete and (damaged := damaged_results(run.folder)):
        raise CorruptError(f"{'; '.join(damaged.values())}; scripts.evaluate makes it again")
    if not is_evaluated(run):
        raise ConfigError(f"{run.folder} has no results of these settings: run scripts.evaluate")
    evaluations = read_results(run.folder / "results.csv")
    results = read_checked_json(run.folder / SUMMARY)
    return Summary(evaluations, all_references(run, evaluations), results)


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


def identity(run: Run) -> dict[str, str | None]:
    """Return hashes of the settings, the split and the checkpoint that results depend on."""
    path = checkpoints.newest(run.folder / "checkpoints")
    return {
        "config_hash": config_hash(run.config),
        "split_hash": run.split.hash,
        "checkpoint": sha256(path) if path else None,
    }


def stopped_agents(run: Run) -> dict[str, int]:
    """Return the step at which source agents with a non-finite loss stopped, by task name."""
    stopped, histories = {}, HistoryStore(run.config)
    for task in () if run.learns_online else run.split.train_tasks:
        folder = histories.folder(task)
        if (folder / MANIFEST).exists():
            history = load_history(folder, ())
            if history.stopped_at is not None:
                stopped[task_name(task)] = history.stopped_at
    return stopped


def compile_results(run: Run, evaluations: dict[str, Evaluation], references: References) -> dict:
    """Return the content of `results.json`."""
    config, trained = run.config, read_sessions(run.folder)
    return {
        "name": config.name,
        **scores(run.world, config.env.episode_length, evaluations, references),
        **summarize_calibration(run),
        "transitions": build_method(config.method).transitions(config),
        "stopped_agents": stopped_agents(run),
        "timing": run.timing(),
        "sessions": trained,
        "resumed_with": resumed_with(trained),
        "evaluated_on": hardware(config, choose_device(config)),
    } | identity(run)


def scores(
    world: TaskOracle,
    episode_length: int,
    evaluations: dict[str, Evaluation],
    references: References,
) -> dict:
    """Return the entries `splits` and `references` of `results.json`, in `world`."""
    facts = {split: task_facts(world, episode_length, e.tasks) for split, e in evaluations.items()}
    optimal_returns = {split: fact.optimal_return for split, fact in facts.items()}
    splits = {
        split: metrics.summarize(
            evaluation.returns,
            evaluation.lengths,
            evaluation.successes,
            facts[split],
            [task_name(task) for task in evaluation.tasks],
            evaluation.reward_in_context,
        )
        for split, evaluation in evaluations.items()
    }
    return {"splits": splits, "references": _summarize_references(references, optimal_returns)}


def _summarize_references(
    references: References, optimal_returns: dict[str, np.ndarray]
) -> dict[str, dict[str, dict]]:
    """Return the scores of each reference by name and split.

    Scores of a whole curve are None for source_end, which has the last episodes only.
    """
    summaries = {
        name: {
            split: metrics.summarize_reference(curve, optimal_returns[split][curve.tasks])
            for split, curve in by_split.items()
        }
        for name, by_split in references.items()
    }
    for summary in summaries.get("source_end", {}).values():
        summary |= dict.fromkeys(("nauc", "episodes_to_80pct", *metrics.SEARCH_SCORES))
    return summaries


def task_facts(world: TaskOracle, episode_length: int, tasks: np.ndarray) -> metrics.TaskFacts:
    """Return what `world` can tell about `tasks` (int [K, D]); NaN for what it cannot."""
    facts = (
        world.optimal_return(tasks, episode_length),
        world.random_return(tasks, episode_length),
        world.shortest_episode(tasks),
    )
    return metrics.TaskFacts(*(known(fact, len(tasks)) for fact in facts), world.success_ends)
