"""Say whether the claim of an entry stands, a bundle that `ad.exchange.release.submit` wrote.

Nothing in the bundle is code, and no class outside the suite is imported. Members and settings are
checked as data in this process; the model is built and evaluated again in a child process with
limits of memory and time and without a network (`ad.runtime.isolated`). On the hardware and with
the versions of the claim all scores must be equal to the digit. Elsewhere one sampled action may
differ, and with it the rest of a rollout: there the claimed NAUC (the return, where the world has
no optimum) of both splits must lie in the 95 % interval over tasks of the new evaluation.

The fingerprint says which tasks the weights were trained on, and is a claim itself: whoever writes
it anew can hide that. So the model also plays what the verifier draws: tasks of another family seed
or tasks that the split leaves out, where the world has them. Otherwise it plays the held-out tasks
under other evaluation seeds, which cannot show that the weights were trained on them.
"""

import json
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ad.config.parser import load_file
from ad.config.schema import Experiment, parse_dump
from ad.config.world import configured_world
from ad.config.yaml_io import YamlFile
from ad.errors import ADError, ConfigError, CorruptError
from ad.evaluation.results import Evaluation, read_results, write_results
from ad.evaluation.scores import SCORES, columns
from ad.evaluation.summary import split_entry, task_facts
from ad.exchange.release import CLAIM, EVALUATED, load_release, outside_classes, unpack
from ad.methods import build_method
from ad.methods.policy import Policy
from ad.registry import SOURCES
from ad.reporting.tables import SPLIT_TITLES
from ad.rollout.rollout import Rollout
from ad.rollout.tasks import policy_of, rollout_envs, rollout_tasks
from ad.runtime.console import info
from ad.runtime.devices import choose_device
from ad.runtime.isolated import call_isolated
from ad.runtime.run import Run
from ad.training.provenance import check_fingerprint, hardware
from envs import REGISTRY
from envs.presets import PRESETS
from envs.registry import PLACE
from envs.tasks import SPLITS

LEAST_TASKS, MOST_TASKS = 10, 100  # of those that a verifier draws
MOST_SEED = 2**31 - 1
NewPolicy = Callable[[int], Policy]


@dataclass(frozen=True)
class Verdict:
    """An entry's experiment and claim, its new evaluation, and what contradicts the claim."""

    config: Experiment
    claim: dict
    again: dict
    problems: list[str]


def verify_entry(bundle: Path, minutes: float) -> None:
    """Evaluate an entry again and print whether its claim stands.

    Raises CorruptError if it does not or if the file is not what was written, ConfigError for
    settings that need a class outside the suite, MachineError if the evaluation exceeds its limits,
    `minutes` among them.
    """
    verdict = verify(bundle, minutes)
    for line in _report(verdict):
        info(line)
    if verdict.problems:
        raise CorruptError(f"the claim of {bundle} does not stand: {'; '.join(verdict.problems)}")
    info(f"the claim of {bundle} stands")


def verify(bundle: Path, minutes: float, seed: int | None = None) -> Verdict:
    """Return what a new evaluation says about an entry. Raises as `verify_entry` does.

    `seed` decides what the model plays beside the tasks of its claim; None draws it.
    """
    seed = secrets.randbelow(MOST_SEED) if seed is None else seed
    with tempfile.TemporaryDirectory() as folder:
        unpack(bundle, Path(folder), EVALUATED)
        config, claim = _read(bundle, Path(folder))
        arguments = {"folder": folder, "threads": _threads(claim), "seed": seed}
        try:
            again = call_isolated("ad.entry:evaluate_files", arguments, 60 * minutes)
        except ADError as error:
            raise type(error)(f"{bundle} cannot be evaluated: {error}") from error
    return Verdict(config, claim, again, list(_problems(claim, again)))


def evaluate_files(folder: str, threads: int, seed: int) -> dict:
    """Return the scores of the entry whose files lie in `folder`; for a child process.

    splits: the entry `splits` of results.json. fresh: such an entry for what `seed` draws, and
    `about` says what that is. evaluated_on: the hardware. Raises CorruptError and ConfigError.
    """
    place = Path(folder)
    own = {"root": folder, "name": "entry", "device": "cpu", "threads": threads}
    run = Run(load_file(place / "config.yaml", **own))
    claim = json.loads((place / CLAIM).read_bytes())
    check_fingerprint(claim, run.config, run.split)
    if claim["split"] != run.split.hash:
        raise CorruptError("its list of tasks is not the one that the claim is about")
    device = choose_device(run.config)
    new_policy = policy_of(run.config, build_method(run.config.method), load_release(place).model)
    splits = _splits(run, new_policy, place / "again")
    about, fresh = _fresh(run, new_policy, seed)
    on = hardware(run.config, device)
    return {"splits": splits, "about": about, "fresh": fresh, "evaluated_on": on}


def _read(bundle: Path, folder: Path) -> tuple[Experiment, dict]:
    """Return the experiment and the claim, as data: the experiment's values are not checked."""
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        config, claim = parse_dump(text), json.loads((folder / CLAIM).read_bytes())
        foreign = [
            *_foreign_components(config),
            *filter(PLACE.fullmatch, _texts(YamlFile(text).data)),
        ]
        if not isinstance(claim, dict) or not isinstance(claim.get("splits"), dict):
            raise ValueError(f"{CLAIM} holds no scores")
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptError(f"{bundle} is no entry: {error}") from error
    if foreign:
        raise ConfigError(
            f"{bundle} names {foreign[0]}, which is no component of this suite: an entry holds no "
            "code, and none is imported for it"
        )
    return config, claim


def _foreign_components(config: Experiment) -> list[str]:
    """Return the names of components that are not in the tables of the suite."""
    env, source = config.env.id, config.source.algorithm
    foreign = outside_classes(config)
    foreign += [] if env in REGISTRY or env in PRESETS else [env]
    return foreign + ([] if source in SOURCES else [source])


def _texts(data: Any) -> Iterator[str]:
    """Yield every text in plain data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _texts(value)


def _threads(claim: dict) -> int:
    """Return the number of threads of the claim, as far as this machine has that many cores."""
    on = claim.get("evaluated_on")
    threads = on.get("threads") if isinstance(on, dict) else None
    return max(1, min(threads, os.cpu_count() or 1)) if type(threads) is int else 1


def _splits(run: Run, new_policy: NewPolicy, folder: Path) -> dict:
    """Return the scores of both splits by way of results.csv, as an evaluation does."""
    settings, split = run.config.evaluation, run.evaluated_split
    seeds = (settings.eval_seeds, settings.train_eval_seeds)
    played = rollout_tasks(
        run.config, split, new_policy, settings.episodes, seeds, True, True, settings.env_steps
    )
    write_results(folder, split, played)
    evaluations = read_results(folder / "results.csv")
    return {name: _scores(run.config, own) for name, own in evaluations.items()}


def _scores(config: Experiment, evaluation: Evaluation) -> dict:
    world, length = configured_world(config.env), config.env.episode_length
    return split_entry(evaluation, task_facts(world, length, evaluation.tasks))


def _fresh(run: Run, new_policy: NewPolicy, seed: int) -> tuple[str, dict]:
    """Return what `seed` draws, as text, and the scores there."""
    config, split, settings = run.config, run.split, run.config.evaluation
    used = np.concatenate([split.train_index, split.held_out_index])
    tasks = np.delete(split.all_tasks, used, axis=0)
    about = "tasks that are in neither part of the split"
    if hasattr(run.world, "family_seed"):
        kwargs = config.env.kwargs | {"family_seed": seed}
        config = replace(config, env=replace(config.env, kwargs=kwargs))
        tasks, about = configured_world(config.env).all_tasks(), f"tasks of family_seed {seed}"
    elif len(tasks) < LEAST_TASKS:
        tasks = split.held_out_tasks
        about = f"held-out tasks, evaluation seeds from {seed} on"
    tasks = np.random.default_rng(seed).permutation(tasks)[:MOST_TASKS]
    envs = [(seed + n, task) for n in range(settings.eval_seeds) for task in tasks]
    played = rollout_envs(
        config, envs, new_policy, settings.episodes, (), "fresh", settings.env_steps
    )
    return about, _scores(config, _evaluation(tasks, played))


def _evaluation(tasks: np.ndarray, played: Rollout) -> Evaluation:
    """Return the episodes that all rollouts [S * K, E] completed, seed by seed, as [K, S, E]."""

    def by_task(values: np.ndarray) -> np.ndarray:
        return values.reshape(-1, len(tasks), values.shape[1]).swapaxes(0, 1)

    common = np.isfinite(played.returns).sum(1).min()
    names = ("returns", "lengths", "successes", "reward_in_context")
    first = (by_task(getattr(played, name))[..., :common] for name in names)
    return Evaluation(tasks, *first, completed=by_task(played.returns))


def _problems(claim: dict, again: dict) -> Iterator[str]:
    """Yield what contradicts the claim, a sentence each."""
    for split in SPLITS:
        theirs, ours = claim["splits"].get(split), again["splits"][split]
        if not isinstance(theirs, dict):
            yield f"it claims nothing on {SPLIT_TITLES[split]}"
        elif _is_same_machine(claim, again):
            yield from _different_digits(split, theirs, ours)
        else:
            yield from _outside_interval(split, theirs, ours)
    name, (low, _), (_, high) = _interval(again["splits"]["held_out"], again["fresh"])
    if again["fresh"]["num_tasks"] >= LEAST_TASKS and high < low:
        yield (
            f"on {again['about']} its {SCORES[name].heading} is "
            f"{again['fresh'][name]:.3f}, below the interval of that on its held-out tasks"
        )


def _is_same_machine(claim: dict, again: dict) -> bool:
    """Return whether bits can be expected: the same hardware, threads and versions."""
    own = version("algorithm-distillation")
    return claim.get("evaluated_on") == again["evaluated_on"] and claim.get("version") == own


def _different_digits(split: str, theirs: dict, ours: dict) -> Iterator[str]:
    different = [score for score in columns("run") if theirs.get(score.name) != ours[score.name]]
    for score in different[:1]:
        yield (
            f"its {score.heading} on {SPLIT_TITLES[split]} is {theirs.get(score.name)}, and the "
            f"evaluation on the same hardware gives {ours[score.name]}"
        )
    if not different and theirs != ours:
        yield f"its scores of single {SPLIT_TITLES[split]} are not those of the evaluation"


def _outside_interval(split: str, theirs: dict, ours: dict) -> Iterator[str]:
    name, (low, high) = _interval(ours)
    value = theirs.get(name)
    if not isinstance(value, float | int) or not low <= value <= high:
        yield (
            f"its {SCORES[name].heading} on {SPLIT_TITLES[split]} is {value}, and the evaluation "
            f"gives {ours[name]:.3f} [{low:.3f}, {high:.3f}]"
        )


def _interval(*entries: dict) -> tuple:
    """Return the name of the score that is compared, and its interval in each of `entries`."""
    name = "nauc" if all(own["nauc"] is not None for own in entries) else "return_last10"
    return name, *(own["ci95"][name] for own in entries)


def _report(verdict: Verdict) -> Iterator[str]:
    """Yield the lines about an entry: its scores, the claimed ones, and how they are compared."""
    again, claimed = verdict.again, verdict.claim["splits"]
    shown = [(SPLIT_TITLES[name], again["splits"][name], claimed.get(name)) for name in SPLITS]
    for title, ours, theirs in [*shown, (again["about"], again["fresh"], None)]:
        name, (low, high) = _interval(ours)
        text = f"{title}: {SCORES[name].heading} {ours[name]:.3f} [{low:.3f}, {high:.3f}]"
        value = theirs.get(name) if isinstance(theirs, dict) else None
        yield f"{text}, claimed {value:.3f}" if isinstance(value, float) else text
    if _is_same_machine(verdict.claim, again):
        yield "hardware and versions are those of the claim: scores must be equal to the digit"
    else:
        yield "hardware or versions are not those of the claim: scores must lie in the interval"
