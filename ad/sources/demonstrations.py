"""Demonstrations: trained policies play, and what they do is a data set of stated quality.

Nothing learns. An actor plays one entry of the list for its whole sequence, so that a window never
shows two policies: the shares are shares of the actors.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ad.config.fields import field
from ad.config.schema import Experiment
from ad.config.world import configured_split
from ad.data.store import mean_in_order
from ad.errors import SettingError
from ad.sources.actors import Actors, Observations, draw
from ad.sources.base import RolloutSource, knows_optimal_policy
from ad.sources.demonstration_entries import (
    ENTRIES,
    Entry,
    assign,
    check_actors,
    parse_entries,
    resolve_entries,
)
from ad.sources.sb3.settings import check_packages
from envs.oracle import TaskOracle
from envs.spaces import observation_parts

NEVER = -1e9  # the logit of an action that an optimal policy does not take


@dataclass(frozen=True)
class Settings:
    """Settings of demonstrations: which policies play, and how."""

    entries: list[dict] = field([{"act": "random", "share": 1.0}])
    """policies: checkpoint, dataset, run, experiment or policy: optimal; with at, act and share"""

    def __hash__(self) -> int:
        return hash(repr(self))


class Demonstrations(RolloutSource):
    """K tasks with N actors each, played by the policies of `settings.entries`."""

    Settings = Settings
    learns = False

    @classmethod
    def check(cls, config: Experiment, world: TaskOracle) -> None:
        """Raise SettingError unless all entries can play in `world`.

        The agents of experiments may not have learned yet.
        """
        entries = parse_entries(Settings(**config.source.settings).entries)
        check_actors(entries, config.source.num_envs)
        tasks = configured_split(config.env, config.split).train_tasks
        _load_all([e for e in entries if e.origin != "experiment"], world, tasks)
        cls.resolve(config)

    @classmethod
    def resolve(cls, config: Experiment) -> tuple[dict, list[Experiment]]:
        """Return the settings with a dataset for each experiment that they name, and these."""
        entries, experiments = resolve_entries(Settings(**config.source.settings).entries, config)
        return {"entries": entries}, experiments

    @classmethod
    def files(cls, settings: dict, task: np.ndarray) -> list[Path]:
        """Return the paths of the checkpoints that play `task`."""
        entries = parse_entries(settings["entries"])
        return [entry.checkpoint(task) for entry in entries if entry.has_checkpoint]

    def __init__(self, settings: Settings, env, tasks, num_envs: int, keys):
        self.entries = parse_entries(settings.entries)
        check_actors(self.entries, num_envs)
        policies = _load_all(self.entries, env.unwrapped, tasks)
        self.actors = Actors(env, len(tasks), num_envs, keys)
        self.entry_of_actor = assign(self.entries, num_envs)
        self.entropies: list[np.ndarray] = []  # of the steps of the present chunk, [K] each
        self.optimal = None
        if any(entry.origin == "policy" for entry in self.entries):
            self.optimal = env.unwrapped.optimal_policy(tasks)  # [K, S, A]
        self.players = {  # of each task and entry with a checkpoint
            (k, e): player(int((self.entry_of_actor == e).sum()))
            for (k, e), player in policies.items()
        }

    def state(self) -> dict | None:
        """Return the state as nested dicts of arrays; None if the environments have none."""
        memories = {
            f"{k}-{e}": player.memory.copy()
            for (k, e), player in self.players.items()
            if player.memory is not None
        }
        state = super().state()
        return state and {"memories": memories, **state}

    def restore(self, state: dict) -> None:
        """Set the state to one returned by `state`."""
        for name, memory in state.get("memories", {}).items():
            k, e = map(int, name.split("-"))
            self.players[k, e].memory = memory.copy()
        super().restore(state)

    def act(self, observations: Observations, u: np.ndarray) -> np.ndarray:
        """Sample the actions [K, N] of each actor's policy by the uniforms `u` [K, N]."""
        parts = observations if isinstance(observations, dict) else {"": observations}
        starts = self.actors.time.reshape(u.shape) == 0
        p = np.zeros((*u.shape, self.actors.action_mask.shape[1]))  # by rank among own actions
        for k in range(len(u)):
            for e, entry in enumerate(self.entries):
                own = np.flatnonzero(self.entry_of_actor == e)
                seen = {name: values[k, own] for name, values in parts.items()}
                logits = self._logits(k, e, own, seen, starts[k, own])
                p[k, own, : logits.shape[1]] = entry.probabilities(logits)
        self.entropies.append(-(p * np.log(np.maximum(p, 1e-12))).sum(-1).mean(1))
        rank = draw(p.cumsum(-1), u, self.actors.num_actions - 1)
        return self.actors.actions_of_task[self.actors.agent, rank]

    def _statistics(self) -> dict[str, np.ndarray]:
        """Return the entropy of the policies, as the mean over a chunk and over actors, [K]."""
        entropies, self.entropies = self.entropies, []
        return {"entropy": mean_in_order(entropies)}

    def _logits(self, k: int, e: int, own: np.ndarray, seen: dict, starts) -> np.ndarray:
        """Return the logits of the actions of task k for the actors `own`, float64 [M, A]."""
        count = int(self.actors.num_actions[k, 0])
        if (k, e) in self.players:
            return self.players[k, e](seen, starts)
        if self.entries[e].origin is None:
            return np.zeros((len(own), count))
        assert self.optimal is not None  # what is left is the policy "optimal"
        p = self.optimal[k, self.actors.states()[k, own]][:, self.actors.actions_of_task[k, :count]]
        return np.log(p, out=np.full(p.shape, NEVER), where=p > 0)


def _load_all(entries: list[Entry], world, tasks: np.ndarray) -> dict:
    """Return what makes the player of each (task, entry) with a checkpoint, by `num_envs`.

    Raises SettingError if an entry cannot play in `world`.
    """
    if any(entry.origin == "policy" for entry in entries) and not knows_optimal_policy(world):
        raise SettingError(ENTRIES, "cannot play an optimal policy: the world does not know it")
    if not any(entry.has_checkpoint for entry in entries):
        return {}
    check_packages(ENTRIES)
    from ad.sources.sb3.policies import make_players

    mask = world.action_mask(tasks)
    counts = mask.sum(1) if mask is not None else [int(world.single_action_space.n)] * len(tasks)
    try:
        paths = {
            (k, e): entry.checkpoint(task)
            for k, task in enumerate(tasks)
            for e, entry in enumerate(entries)
            if entry.has_checkpoint
        }
        return make_players(paths, observation_parts(world), counts)
    except ValueError as error:
        raise SettingError(ENTRIES, f"cannot be played: {error}") from error
