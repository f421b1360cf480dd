"""The entries of demonstrations: which policy plays, how it acts, and in which share of the actors.

An entry is a dict, for YAML:

    {checkpoint: path/to/checkpoint_200000.zip, act: greedy, share: 0.5}
    {dataset: histories/<dataset>, source_seed: 1, at: 0.5, act: {temperature: 5}, share: 0.25}
    {run: logs/<run>, act: {top_k: 2}, share: 0.1}
    {experiment: configs/<experiment>.yaml, at: 0.1, share: 0.05}
    {policy: optimal, share: 0.05}
    {act: random, share: 0.05}

`dataset` names the histories of another source, `run` those of a run's experiment, `experiment`
the histories of an experiment's file: each task is played by the agent that learned it, at
the checkpoint nearest to the fraction `at` of its history (default 1, the last one). The histories
of `experiment` have the root and the source seed of the demonstrations, and are collected first.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ad.config.fields import as_yaml
from ad.config.parser import load_file, read_text
from ad.config.schema import Experiment, parse_dump
from ad.config.yaml_io import YamlFile
from ad.data.checkpoints import checkpoint_at
from ad.data.histories import HistoryStore
from ad.data.manifest import read_manifest
from ad.errors import ConfigError, SettingError
from envs.tasks import task_name

ENTRIES = "source.settings.entries"
# The origins of a policy, of which an entry has at most one.
ORIGINS = ("checkpoint", "dataset", "run", "experiment", "policy")
KEYS = (*ORIGINS, "at", "source_seed", "act", "share")
WAYS = ("sampled", "greedy", "random")
NUMBERED = {"temperature": (int, float), "top_k": int, "bottom_k": int}


@dataclass(frozen=True)
class Entry:
    """A valid entry: `way` is one of `WAYS` or `NUMBERED`, which has a `number`."""

    origin: str | None  # None: random actions need no policy
    place: str
    at: float
    source_seed: int
    way: str
    number: float
    share: float

    @property
    def has_checkpoint(self) -> bool:
        """Whether the policy is read from a file."""
        return self.origin not in ("policy", None)

    def checkpoint(self, task: np.ndarray) -> Path:
        """Return the path of the checkpoint that plays `task`.

        Raises ValueError if there is none.
        """
        place = Path(self.place)
        if self.origin == "experiment":
            raise ValueError(f"the agents of {place} can only play where histories are collected")
        if self.origin == "checkpoint":
            if not place.is_file():
                raise ValueError(f"there is no file {place}")
            return place
        try:
            if self.origin == "run":
                config = parse_dump((place / "config.yaml").read_text())
                folder = HistoryStore(config).folder(task)
            else:
                folder = place / f"task_{task_name(task)}_seed_{self.source_seed}"
            return checkpoint_at(folder, read_manifest(folder), self.at)
        except OSError:
            raise ValueError(f"{place} has no history of the task {task_name(task)}") from None

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return the probabilities of the actions by their `logits`, float64 [N, A]."""
        if self.way == "random":
            return np.full(logits.shape, 1 / logits.shape[1])
        if self.way == "greedy":
            return np.eye(logits.shape[1])[logits.argmax(1)]
        if self.way == "temperature":
            logits = logits / self.number
        elif self.way in ("top_k", "bottom_k"):
            rank = np.argsort(np.argsort(-logits, 1, kind="stable"), 1)
            best = self.way == "top_k"
            kept = rank < self.number if best else rank >= logits.shape[1] - self.number
            logits = np.where(kept, logits, -np.inf)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        return weights / weights.sum(1, keepdims=True)


def parse_entries(entries: Sequence[dict]) -> list[Entry]:
    """Return the valid entries. Raises SettingError if one is not, or the shares do not fit."""
    parsed = []
    for number, plain in enumerate(entries, 1):
        try:
            parsed.append(_parse(plain))
        except ValueError as error:
            raise SettingError(ENTRIES, f"cannot have entry {number}: {error}") from None
    total = sum(entry.share for entry in parsed)
    if abs(total - 1) > 1e-6:
        raise SettingError(ENTRIES, f"must have shares that add up to 1, not to {total:g}")
    return parsed


def resolve_entries(
    entries: Sequence[dict], config: Experiment
) -> tuple[list[dict], list[Experiment]]:
    """Return the entries with a dataset in place of each experiment, and these experiments.

    `config` is the experiment of the demonstrations. Raises SettingError.
    """
    resolved, experiments = [], {}
    for number, (entry, plain) in enumerate(zip(parse_entries(entries), entries, strict=True), 1):
        if entry.origin == "experiment":
            try:
                if entry.place not in experiments:
                    experiments[entry.place] = _experiment_of_agents(entry.place, config)
            except (ConfigError, ValueError) as error:
                text = " ".join(str(error).split())
                raise SettingError(ENTRIES, f"cannot have entry {number}: {text}") from None
            folder = HistoryStore(experiments[entry.place]).path
            origin = {"dataset": str(folder), "source_seed": config.source.source_seed}
            plain = {key: value for key, value in plain.items() if key != "experiment"} | origin
        resolved.append(plain)
    return resolved, list(experiments.values())


def check_actors(entries: Sequence[Entry], num_envs: int) -> None:
    """Raise SettingError unless each entry gets an actor."""
    if idle := set(range(len(entries))) - set(assign(entries, num_envs).tolist()):
        number = min(idle) + 1
        raise SettingError(
            ENTRIES,
            f"must give entry {number} an actor: its share of source.num_envs ({num_envs}) is "
            f"{entries[number - 1].share * num_envs:g}",
        )


def assign(entries: Sequence[Entry], num_envs: int) -> np.ndarray:
    """Return the index of the entry that each actor plays for its whole sequence, int [N].

    The number of actors of an entry is its share of all, rounded. Entries alternate, so that any
    first actors, e.g. those that are trained on, have nearly the same shares.
    """
    shares, counts = np.array([entry.share for entry in entries]), np.zeros(len(entries))
    chosen = np.zeros(num_envs, np.int64)
    for n in range(num_envs):
        chosen[n] = np.round(shares * (n + 1) - counts, 9).argmax()
        counts[chosen[n]] += 1
    return chosen


def _parse(plain: dict) -> Entry:
    if unknown := [key for key in plain if key not in KEYS]:
        raise ValueError(f"{unknown[0]} is not one of {', '.join(KEYS)}")
    origins = [key for key in ORIGINS if key in plain]
    way, number = _way(plain.get("act", "sampled"))
    if len(origins) > 1 or not (origins or way == "random"):
        raise ValueError(f"it needs one of {', '.join(ORIGINS)}, or act: random")
    origin = origins[0] if origins else None
    place = plain[origin] if origin else ""
    if type(place) is not str or (origin == "policy" and place != "optimal"):
        wanted = "optimal" if origin == "policy" else "a path"
        raise ValueError(f"{origin} must be {wanted}, not {as_yaml(place)}")
    at, share, seed = plain.get("at", 1.0), plain.get("share"), plain.get("source_seed", 0)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(f"share must be above 0 and at most 1, not {as_yaml(share)}")
    if type(at) not in (int, float) or not 0 <= at <= 1:
        raise ValueError(f"at must be from 0 to 1, not {as_yaml(at)}")
    if type(seed) is not int or seed < 0:
        raise ValueError(f"source_seed must be a whole number, not {as_yaml(seed)}")
    if origin == "experiment" and "source_seed" in plain:
        raise ValueError(
            "source_seed is not for an experiment, which has the source seed of the demonstrations"
        )
    return Entry(origin, place, float(at), seed, way, number, float(share))


def _experiment_of_agents(path: str, config: Experiment) -> Experiment:
    """Return the experiment of the file `path`, with the root and the source seed of `config`.

    Raises ConfigError or ValueError unless it is valid and its policies can play for `config`.
    """
    file = YamlFile(read_text(path))
    # This comes before `load_file`, which would never end if the file named itself.
    match file.data:
        case {"source": {"algorithm": "stable_baselines3"}}:
            pass
        case _ if not file.problems:
            raise ValueError(
                f"{path} keeps no checkpoints: its source.algorithm is not stable_baselines3"
            )
    learned = load_file(path)
    if learned.source.settings["checkpoints"] == 0:
        raise ValueError(f"{path} keeps no checkpoints: its source.settings.checkpoints is 0")
    for name in ("id", "kwargs", "tasks", "change"):
        own, other = getattr(config.env, name), getattr(learned.env, name)
        if own != other:
            raise ValueError(
                f"the agents of {path} learn in another world, with env.{name} {as_yaml(other)}, "
                f"not {as_yaml(own)}"
            )
    source = replace(learned.source, source_seed=config.source.source_seed)
    return replace(learned, root=config.root, threads=config.threads, source=source)


def _way(act) -> tuple[str, float]:
    """Return how an entry acts, and the number of a way that has one."""
    if isinstance(act, str) and act in WAYS:
        return act, 0.0
    if isinstance(act, dict) and len(act) == 1:
        ((way, number),) = act.items()
        if way in NUMBERED and isinstance(number, NUMBERED[way]) and number > 0:
            return way, number
    ways = ", ".join([*WAYS, *(f"{{{way}: <number above 0>}}" for way in NUMBERED)])
    raise ValueError(f"act must be one of {ways}, not {as_yaml(act)}")
