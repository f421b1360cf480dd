"""Entries: submit a release with the scores that it claims, and say whether they stand.

Unless its policy is a program, nothing in an entry is code. No class outside the suite is imported
for one. Members and settings are
checked as data in this process; the model is built and evaluated again in a child process with
limits of memory and time and without a network (`ad.runtime.isolated`). On the hardware and with
the versions of the claim all scores must be equal to the digit. Elsewhere one sampled action may
differ, and with it the rest of a rollout: there the claimed NAUC (the return, where the world has
no optimum) of both splits must lie in the 95 % interval over tasks of the new evaluation.

The fingerprint says which tasks the weights were trained on, and is a claim itself: whoever writes
it anew can hide that. So the model also plays what the verifier draws: tasks of another family seed
or tasks that the split leaves out, where the world has them. Otherwise it plays the held-out tasks
under other evaluation seeds, which cannot show that the weights were trained on them.

The policy of an entry may also be a program (`ad.rollout.program`), which is code: it runs only
where the verifier asks for it and the kernel gives its process a network without a connection. Its
scores need not be equal to the digit, and nobody knows what it was made from.
"""

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ad.config.schema import Experiment, dump, parse_dump
from ad.config.yaml_io import YamlFile
from ad.errors import ADError, ConfigError, CorruptError, printable
from ad.evaluation.scores import SCORES, columns
from ad.exchange.card import read_results
from ad.exchange.foreign import places
from ad.exchange.release import (
    CLAIM,
    EVALUATED,
    PROGRAM,
    SUMS,
    WEIGHTS,
    claim_of,
    outside_classes,
    pack,
    release,
    unpack,
    write_sums,
)
from ad.registry import SOURCES
from ad.reporting.tables import SPLIT_TITLES
from ad.runtime.console import info
from ad.runtime.files import sha256, write_json, write_text
from ad.runtime.isolated import call_isolated
from ad.runtime.run import Run
from envs import REGISTRY
from envs.presets import PRESETS
from envs.tasks import SPLITS

LEAST_TASKS = 10  # without so many, an interval over tasks says too little
MOST_SEED = 2**31 - 1
MINUTES = 5.0  # that an evaluation may take
PROGRAM_FILES = (PROGRAM, "config.yaml", "README.md", CLAIM)
PROGRAM_CARD = """\
# {name}

A program that plays {world}: code that nobody has checked.
"""


@dataclass(frozen=True)
class Verdict:
    """An entry's experiment and claim, its new evaluation, and what contradicts the claim.

    policy_sha256: the hash of the weights or the program, which is that of the entry's policy
    whatever the entry is called.
    """

    config: Experiment
    policy_sha256: str
    claim: dict
    again: dict
    problems: list[str]


def submit(run: Run, program: Path | None = None) -> Path:
    """Write the entry of an evaluated run, `entry.tar` in its folder, and return its path.

    With `program`, a Python file, that is the policy; it is evaluated as the run's model would be.
    Raises ConfigError if the run is not evaluated or the program fails, and the errors of
    `release`.
    """
    path = run.folder / "entry.tar"
    _check_components(run.folder, run.config, asdict(run.config))
    if program:
        _pack_program(run, program, path)
    elif read_results(run) is None:
        raise ConfigError(f"{run.folder} has no results of these settings: run `ad evaluate`")
    else:
        pack(release(run), (*EVALUATED, SUMS), path)
    info(f"entry: {path}; ad verify-entry {path} evaluates it again")
    return path


def verify_entry(bundle: Path, minutes: float = MINUTES, run_program: bool = False) -> Verdict:
    """Evaluate an entry again, print whether its claim stands, and return the verdict.

    Raises CorruptError if it does not or if the file is not what was written, ConfigError for
    settings that need a class outside the suite and for a program unless `run_program`,
    MachineError if the evaluation exceeds its limits, `minutes` among them.
    """
    verdict = verify(bundle, minutes, run_program)
    for line in _report(verdict):
        info(line)
    if verdict.problems:
        raise CorruptError(f"the claim of {bundle} does not stand: {'; '.join(verdict.problems)}")
    info(f"the claim of {bundle} stands")
    return verdict


def read_config(bundle: Path) -> Experiment:
    """Return the experiment of an entry without an evaluation. Raises as `verify_entry` does."""
    with tempfile.TemporaryDirectory() as name:
        unpack(bundle, Path(name), EVALUATED, PROGRAM_FILES)
        return _read(bundle, Path(name))[0]


def verify(
    bundle: Path, minutes: float = MINUTES, run_program: bool = False, seed: int | None = None
) -> Verdict:
    """Return what a new evaluation says about an entry. Raises as `verify_entry` does.

    `seed` decides what the model plays beside the tasks of its claim; None draws it.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        unpack(bundle, folder, EVALUATED, PROGRAM_FILES)
        config, claim = _read(bundle, folder)
        is_program = (folder / PROGRAM).exists()
        if is_program and not run_program:
            raise ConfigError(
                f"{bundle} holds a program, which is code that nobody has checked: "
                "--run-program true runs it, with your rights"
            )
        again = _evaluated(bundle, folder, _threads(claim), minutes, seed)
        policy = sha256(folder / (PROGRAM if is_program else WEIGHTS))
    return Verdict(config, policy, claim, again, list(_problems(claim, again)))


def _pack_program(run: Run, program: Path, path: Path) -> None:
    """Evaluate a program and write its entry."""
    if not program.is_file():
        raise ConfigError(f"there is no file {program}")
    with tempfile.TemporaryDirectory() as name:
        folder, threads = Path(name), run.config.threads or os.cpu_count() or 1
        shutil.copyfile(program, folder / PROGRAM)
        write_text(folder / "config.yaml", dump(replace(run.config, root=".")))
        card = PROGRAM_CARD.format(name=run.config.name, world=run.config.env.id)
        write_text(folder / "README.md", card)
        write_json(folder / CLAIM, {"split": run.split.hash})
        scores = _evaluated(program, folder, threads, MINUTES)
        write_json(folder / CLAIM, claim_of(run, scores))
        write_sums(folder, PROGRAM_FILES)
        pack(folder, (*PROGRAM_FILES, SUMS), path)


def _evaluated(
    what: Path, folder: Path, threads: int, minutes: float, seed: int | None = None
) -> dict:
    """Return what `evaluate_files` returns in a process of its own; `what` is in its errors."""
    seed = secrets.randbelow(MOST_SEED) if seed is None else seed
    arguments = {"folder": str(folder), "threads": threads, "seed": seed}
    try:
        return call_isolated("ad.entry_scores:evaluate_files", arguments, 60 * minutes)
    except ADError as error:
        raise type(error)(f"{what} cannot be evaluated: {error}") from error


def _read(bundle: Path, folder: Path) -> tuple[Experiment, dict]:
    """Return the experiment and the claim, as data: the experiment's values are not checked."""
    try:
        text = (folder / "config.yaml").read_text(encoding="utf-8")
        config, claim = parse_dump(text), json.loads((folder / CLAIM).read_bytes())
        data = YamlFile(text).data
        if not isinstance(claim, dict) or not isinstance(claim.get("splits"), dict):
            raise ValueError(f"{CLAIM} holds no scores")
    except (ValueError, TypeError, RecursionError) as error:
        raise CorruptError(f"{bundle} is no entry: {printable(str(error))[:300]}") from error
    _check_components(bundle, config, data)
    return config, claim


def _check_components(what: Path, config: Experiment, data: Any) -> None:
    """Raise ConfigError if `config` needs code or files of another machine.

    `data` is its content as plain data, `what` begins the sentence.
    """
    env, source = config.env.id, config.source.algorithm
    foreign = [*outside_classes(config), *places(data)]
    foreign += [] if env in REGISTRY or env in PRESETS else [env]
    foreign += [] if source in SOURCES else [source]
    if foreign:
        raise ConfigError(
            f"{what} names {foreign[0]!r:.80}, which is no component of this suite: an entry "
            "holds no code, and none is imported for it"
        )
    if source == "demonstrations":
        raise ConfigError(
            f"{what} has source.algorithm demonstrations, whose agents are files of the machine "
            "that made them: it cannot be evaluated elsewhere"
        )


def _threads(claim: dict) -> int:
    """Return the number of threads of the claim, as far as this machine has that many cores."""
    on = claim.get("evaluated_on")
    threads = on.get("threads") if isinstance(on, dict) else None
    return max(1, min(threads, os.cpu_count() or 1)) if type(threads) is int else 1


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
    """Return whether a model must give the same bits: on the same hardware, with all versions."""
    present = again["evaluated_on"], version("algorithm-distillation")
    return (claim.get("evaluated_on"), claim.get("version")) == present and not again["program"]


def _different_digits(split: str, theirs: dict, ours: dict) -> Iterator[str]:
    different = [score for score in columns("run") if theirs.get(score.name) != ours[score.name]]
    for score in different[:1]:
        yield (
            f"its {score.heading} on {SPLIT_TITLES[split]} is {theirs.get(score.name)!r:.30}, and "
            f"the evaluation on the same hardware gives {ours[score.name]}"
        )
    if not different and theirs != ours:
        yield f"its scores of single {SPLIT_TITLES[split]} are not those of the evaluation"


def _outside_interval(split: str, theirs: dict, ours: dict) -> Iterator[str]:
    name, (low, high) = _interval(ours)
    value = theirs.get(name)
    if not isinstance(value, float | int) or not low <= value <= high:
        yield (
            f"its {SCORES[name].heading} on {SPLIT_TITLES[split]} is {value!r:.30}, and the "
            f"evaluation gives {ours[name]:.3f} [{low:.3f}, {high:.3f}]"
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
    if again["program"]:
        yield "the policy is a program: unverified code, whose scores must lie in the interval"
    elif _is_same_machine(verdict.claim, again):
        yield "hardware and versions are those of the claim: scores must be equal to the digit"
    else:
        yield "hardware or versions are not those of the claim: scores must lie in the interval"
