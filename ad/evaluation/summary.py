"""What an evaluation amounts to: `results.json`, the scores of each split and of the references."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ad.config.schema import config_hash
from ad.data.episodes import episodes
from ad.data.histories import Histories
from ad.data.store import load_history
from ad.errors import ConfigError, CorruptError
from ad.evaluation import metrics
from ad.evaluation.references import Reference, random_return, references, source_references
from ad.evaluation.results import Evaluation, read_results
from ad.runtime.devices import choose_device
from ad.runtime.files import read_checked_json, sha256, write_checked_json
from ad.runtime.run import Run
from ad.training import checkpoints
from ad.training.provenance import hardware, read_sessions, resumed_with
from envs.tasks import task_name

HASHED, SUMMARY = ("results.csv", "trajectories.npz"), "results.json"
FILES = (*HASHED, SUMMARY)  # of an evaluation


@dataclass(frozen=True)
class Summary:
    """Evaluations by split, references by name and split, and the content of results.json."""

    evaluations: dict[str, Evaluation]
    lines: dict[str, dict[str, Reference]]
    results: dict


def write_summary(run: Run) -> None:
    """Write `results.json` from the results of the evaluation, with a hash of it and of them."""
    evaluations = read_results(run.folder / "results.csv")
    lines = reference_lines(run, evaluations)
    write_results_json(run.folder, compile_results(run, evaluations, lines))


def write_results_json(folder: Path, results: dict) -> None:
    """Write `results.json`, with a hash of itself and of the files of the evaluation."""
    hashes = {name: sha256(folder / name) for name in HASHED}
    write_checked_json(folder / SUMMARY, results | {"files": hashes})


def read_summary(run: Run) -> Summary:
    """What `write_summary` wrote. Raises ConfigError unless it is about the present settings.

    Raises CorruptError if a file of the evaluation is not what was written.
    """
    there = all((run.folder / name).exists() for name in FILES)
    if there and (damaged := damaged_results(run.folder)):
        raise CorruptError(f"{'; '.join(damaged.values())}; scripts.evaluate makes it again")
    if not is_evaluated(run):
        raise ConfigError(f"{run.folder} has no results of these settings: run scripts.evaluate")
    evaluations = read_results(run.folder / "results.csv")
    results = read_checked_json(run.folder / SUMMARY)
    return Summary(evaluations, reference_lines(run, evaluations), results)


def is_evaluated(run: Run) -> bool:
    """Whether results are there, whole, and about the present checkpoint and settings."""
    return matches(run.folder, identity(run))


def matches(folder: Path, wanted: dict) -> bool:
    """Whether results are there, whole, and what they say they are about is `wanted`."""
    if damaged_results(folder):
        return False
    results = read_checked_json(folder / SUMMARY)
    return {name: results.get(name) for name in wanted} == wanted


def damaged_results(folder: Path) -> dict[Path, str]:
    """The files of an evaluation that are missing or not what was written, and what is wrong."""
    try:
        hashes = dict(read_checked_json(folder / SUMMARY)["files"])
    except FileNotFoundError:
        return {folder / SUMMARY: f"{folder / SUMMARY} is missing"}
    except (ValueError, KeyError, TypeError):
        return {folder / SUMMARY: f"{folder / SUMMARY} is not what was written"}
    found = {}
    for path in (folder / name for name in HASHED):
        if not path.is_file():
            found[path] = f"{path} is missing"
        elif sha256(path) != hashes.get(path.name):
            found[path] = f"{path} is not what was written: its SHA-256 differs"
    return found


def identity(run: Run) -> dict[str, str | None]:
    """What results are about: hashes of the settings, the split and the trained model."""
    path = checkpoints.newest(run.folder / "checkpoints")
    return {
        "config_hash": config_hash(run.config),
        "split_hash": run.split.hash,
        "checkpoint": sha256(path) if path else None,
    }


def reference_lines(
    run: Run, evaluations: dict[str, Evaluation]
) -> dict[str, dict[str, Reference]]:
    """Every reference that can be computed: name -> split -> Reference."""
    source = source_lines(run, evaluations["held_out"].returns.shape[2])
    lines = world_lines(run.world, run.config.env.episode_length, evaluations)
    return lines | {n: {"train": line} for n, line in source.items()}


def world_lines(
    world, episode_length: int, evaluations: dict[str, Evaluation]
) -> dict[str, dict[str, Reference]]:
    """The references that follow from the world alone: name -> split -> Reference."""
    lines: dict[str, dict[str, Reference]] = {}
    for split, evaluation in evaluations.items():
        most = evaluation.returns.shape[2]
        for name, line in references(world, evaluation.tasks, episode_length, most).items():
            lines.setdefault(name, {})[split] = line
    return lines


def source_lines(run: Run, most: int) -> dict[str, Reference]:
    """The source agents' own first `most` and last ten episodes; nothing without histories.

    Agents that stopped learning are left out: a policy frozen half-way is no source algorithm.
    """
    histories = Histories(run.config)
    folders = [histories.folder(task) for task in run.split.train_tasks]
    if not all((folder / "unit.json").exists() for folder in folders):
        return {}
    returns = {}
    for k, folder in enumerate(folders):
        unit = load_history(folder, ("terminated", "truncated", "reward"))
        if unit.stopped_at is None:
            arrays = unit.arrays
            whole = episodes(arrays["terminated"] | arrays["truncated"], arrays["reward"])
            streams = range(len(arrays["reward"]))
            returns[k] = [whole.returns[whole.stream == j] for j in streams]
    lines = source_references(list(returns.values()), most, metrics.LAST) if returns else {}
    return {name: replace(line, tasks=np.array(list(returns))) for name, line in lines.items()}


def stopped_agents(run: Run) -> dict[str, int]:
    """Task name -> steps learned from, of the source agents whose numbers broke."""
    stopped, histories = {}, Histories(run.config)
    for task in run.split.train_tasks:
        folder = histories.folder(task)
        if (folder / "unit.json").exists():
            unit = load_history(folder, ())
            if unit.stopped_at is not None:
                stopped[task_name(task)] = unit.stopped_at
    return stopped


def compile_results(
    run: Run, evaluations: dict[str, Evaluation], lines: dict[str, dict[str, Reference]]
) -> dict:
    """The content of `results.json`, keys as in the design."""
    config, trained = run.config, read_sessions(run.folder)
    return {
        "name": config.name,
        **scores(run.world, config.env.episode_length, evaluations, lines),
        "stopped_agents": stopped_agents(run),
        "timing": run.timing(),
        "sessions": trained,
        "resumed_with": resumed_with(trained),
        "evaluated_on": hardware(config, choose_device(config)),
    } | identity(run)


def scores(
    world,
    episode_length: int,
    evaluations: dict[str, Evaluation],
    lines: dict[str, dict[str, Reference]],
) -> dict:
    """The entries `splits` and `references` of `results.json`, in `world`."""
    facts = {split: task_facts(world, episode_length, e.tasks) for split, e in evaluations.items()}
    optimal = {split: fact.optimal_return for split, fact in facts.items()}
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
    return {"splits": splits, "references": _summarize_references(lines, optimal)}


def _summarize_references(lines: dict[str, dict[str, Reference]], optimal: dict) -> dict:
    """name -> split -> scores; of the source's last episodes only those that are about the end."""
    summaries = {
        name: {
            split: metrics.summarize_reference(
                line.returns, line.successes, optimal[split][line.tasks]
            )
            for split, line in by_split.items()
        }
        for name, by_split in lines.items()
    }
    for summary in summaries.get("source_end", {}).values():
        summary |= {"nauc": None, "episodes_to_80pct": None}
    return summaries


def task_facts(world, episode_length: int, tasks: np.ndarray) -> metrics.TaskFacts:
    """What `world` knows of `tasks`."""
    return metrics.TaskFacts(
        world.optimal_return(tasks, episode_length),
        random_return(world, tasks, episode_length),
        world.shortest_episode(tasks),
        success_ends=getattr(world, "terminate_on_goal", False),
    )
