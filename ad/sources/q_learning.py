"""Tabular Q-learning (Watkins 1989; Watkins and Dayan 1992), without knowledge of the world.

    Q(s, a) += α (r + bonus / sqrt(n(s, a)) + γ (1 - terminated) max Q(s', ·) - Q(s, a))

n(s, a) counts how often a pair was tried (Strehl and Littman 2008: MBIE-EB). A truncated step
bootstraps from the final observation. With `planning_steps` an actor also backs up pairs that were
tried before, drawn at random, from what followed when they were last tried: Dyna-Q (Sutton 1990).
With optimistic initial values it then goes to actions that it has not tried. With `hold` it keeps
the last action while no other one has a higher value: a walk that does not dither reaches a goal
sooner (Dabney et al. 2021). With `remember_reward` a state is an observation and whether a reward
above 0 came earlier in the episode. A reward that is paid once an episode, as in Dark Room Hard, is
then a function of state and action, where it otherwise unlearns the goal by staying there. With
`restarts` a table whose memory is contradicted starts again, as where the task has changed.
"""

from dataclasses import dataclass

import numpy as np

from ad.config.fields import field
from ad.data.schema import TransitionChunk
from ad.errors import SettingError
from ad.sources.actors import Actors, actor_keys
from ad.sources.base import TabularSource, linear
from envs.rng import draw_allowed, uniform

END = -1  # what follows a step that terminated


@dataclass(frozen=True)
class Settings:
    """Settings of Q-learning; the defaults are for a table for each actor, in deterministic worlds.

    They were chosen on terminating 9 x 9 dark rooms. If `initial_value` exceeds the value of a
    path to the goal, every untried action is taken before that path.
    """

    shared: bool = field(False)
    """whether all actors of an agent learn one table; otherwise each actor is a life of its own"""
    learning_rate: float = field(1.0, above=0, at_most=1)
    """learning rate alpha; 1 is for deterministic worlds"""
    discount: float = field(0.95, at_least=0, at_most=1)
    """discount factor gamma"""
    initial_value: float = field(0.5, at_least=-1e6, at_most=1e6)
    """value of an untried action: an optimistic one exceeds the values of tried actions"""
    bonus: float = field(0.0, at_least=0)
    """weight of the reward for rarely tried actions, bonus / sqrt(times tried); 0: none"""
    epsilon_start: float = field(0.0, at_least=0, at_most=1)
    """probability of a random action at the first step of a history"""
    epsilon_end: float = field(0.0, at_least=0, at_most=1)
    """probability of a random action at the end of the decay"""
    decay_fraction: float = field(1.0, above=0, at_most=1)
    """fraction of a history in which the probability of a random action changes linearly"""
    hold: float = field(20.0, at_least=1)
    """steps for which the last action is preferred among equally good ones, on average; 1: none"""
    planning_steps: int = field(10, at_least=0)
    """tried actions that each actor backs up again after a step, in a deterministic world"""
    remember_reward: bool = field(False, added=True)
    """whether states tell if a reward above 0 came earlier in the episode"""
    restarts: bool = field(False, added=True)
    """whether a table starts again where a pair that paid no longer pays, or one that did not pays,
    in a deterministic world whose tasks change; not for shared tables"""


class QLearning(TabularSource):
    """K agents with N actors each; G tables, one for each agent if `shared`, else for each actor.

    The actors of a shared table act at the same time: a pair that several of them try in one step
    moves once, toward the mean of their targets, and the last of them is what planning remembers.
    """

    Settings = Settings
    privileged_info = "nothing"
    paper = "Watkins and Dayan 1992; Sutton 1990"
    state_names = ("values", "counts", "last_action", "rewarded", "model")

    @classmethod
    def check(cls, config, world):
        """Refuse `restarts` with `shared`, too: tasks of actors change at different steps."""
        super().check(config, world)
        own = cls.Settings(**config.source.settings)
        if own.shared and own.restarts:
            raise SettingError("source.settings.restarts", "must be false with a shared table")

    def __init__(self, settings: Settings, env, tasks, num_envs: int, keys):
        self.settings = settings
        self.actors = Actors(env, len(tasks), num_envs, keys)
        self.keys = {
            purpose: actor_keys(keys, num_envs, purpose)
            for purpose in ("epsilon", "hold", "planning")
        }
        actions, self.observations = int(env.single_action_space.n), env.unwrapped.num_observations
        states = self.observations * (1 + settings.remember_reward)
        self.actor = np.arange(len(tasks) * num_envs)
        actors_of_table = num_envs if settings.shared else 1
        self.table = self.actor // actors_of_table  # of each actor
        mask = self.actors.action_mask[self.actor[::actors_of_table] // num_envs]
        values = np.where(mask, settings.initial_value, -np.inf).astype(np.float32)  # [G, A]
        self.initial_values = values[:, None]
        self.values = np.repeat(values[:, None], states, axis=1)  # [G, S, A]
        self.counts = np.zeros((len(values), states * actions), np.int32)
        # What followed each pair of a table, and its tried pairs in the order of first trials.
        self.model: dict[str, np.ndarray] = {}
        if settings.planning_steps or settings.restarts:
            dtypes = {"reward": np.float32, "following": np.int32, "tried": np.int32}
            self.model = {name: np.zeros_like(self.counts, dtype) for name, dtype in dtypes.items()}
            self.model["num_tried"] = np.zeros(len(self.counts), np.int64)
        self.last_action = np.full(len(self.actor), -1)  # in this episode, -1: none
        self.rewarded = np.zeros(len(self.actor), bool)  # in this episode, if it is remembered
        self.epsilon = settings.epsilon_start

    def act(self, observations: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Choose actions [K, N]: one of the best, by `u` [K, N], or with `epsilon` any."""
        states = self._states(observations.ravel(), self.rewarded)
        values = self.values[self.table, states]  # [K * N, A]
        best = values == values.max(1, keepdims=True)
        action = draw_allowed(best, u.ravel())
        held = uniform(self.keys["hold"], self.actors.steps) >= 1 / self.settings.hold
        held &= (self.last_action >= 0) & best[self.actor, self.last_action]
        action = np.where(held, self.last_action, action)
        is_random = uniform(self.keys["epsilon"], self.actors.steps) < self.epsilon
        return np.where(is_random, self.actors.uniform_actions(u).ravel(), action).reshape(u.shape)

    def _begin_rollout(self, progress: float) -> None:
        """Set the probability of a random action."""
        own = self.settings
        self.epsilon = linear(own.epsilon_start, own.epsilon_end, own.decay_fraction, progress)

    def _learn(self, rollout: TransitionChunk) -> None:
        """Learn from a step of each actor, note the mean absolute TD error, and plan."""
        step = {name: values.ravel() for name, values in rollout.arrays.items()}  # [K * N]
        action = step["action"].astype(np.int64)
        pair = self._states(step["observation"], self.rewarded) * self.values.shape[2] + action
        self.rewarded |= self.settings.remember_reward & (step["reward"] > 0)
        next_states = self._states(step["next_observation"], self.rewarded)
        following = np.where(step["terminated"], END, next_states)
        entry = self.table * self.counts.shape[1] + pair  # in the flat tables
        if self.settings.restarts:
            self._restart(entry, step["reward"])
        entries, of_entry = np.unique(entry, return_inverse=True)
        times = np.bincount(of_entry)
        if self.model:
            self._remember(entries[self.counts.ravel()[entries] == 0], entry, step, following)
        self.counts.ravel()[entries] += times
        target = self._target(entry, step["reward"], following)
        error = np.abs(target - self.values.ravel()[entry])
        self._move(entries, np.bincount(of_entry, target) / times)
        if self.settings.planning_steps:
            self._plan()
        ended = step["terminated"] | step["truncated"]
        self.last_action = np.where(ended, -1, action)
        self.rewarded &= ~ended
        error = error.reshape(self.actors.shape).mean(1)
        rollout.statistics.setdefault("td_error", []).append(error)

    def _states(self, observations: np.ndarray, rewarded: np.ndarray) -> np.ndarray:
        """Return the rows of a table for observations and whether a reward came before, [K * N]."""
        return observations.astype(np.int64) + self.observations * rewarded

    def _target(self, entry: np.ndarray, reward: np.ndarray, following: np.ndarray) -> np.ndarray:
        """Return the target of each actor's pair `entry`, float64 [K * N]."""
        # float64: the product of a Python float with a float32 array is rounded to float32.
        best = self.values[self.table, following].max(1).astype(np.float64)
        value = np.where(following == END, 0, best)
        bonus = self.settings.bonus / np.sqrt(self.counts.ravel()[entry])
        return reward + bonus + self.settings.discount * value

    def _move(self, entry: np.ndarray, target: np.ndarray) -> None:
        """Move the values of pairs toward their targets; equal pairs have equal targets."""
        values = self.values.ravel()  # a view
        values[entry] += self.settings.learning_rate * (target - values[entry])

    def _remember(self, new: np.ndarray, entry, step: dict, following: np.ndarray) -> None:
        """Remember what followed each pair, and append the pairs `new`, sorted, to `tried`."""
        self.model["reward"].ravel()[entry] = step["reward"]
        self.model["following"].ravel()[entry] = following
        table, pair = np.divmod(new, self.counts.shape[1])
        rank = np.arange(len(new)) - np.searchsorted(table, table)
        self.model["tried"][table, self.model["num_tried"][table] + rank] = pair
        self.model["num_tried"] += np.bincount(table, minlength=len(self.counts))

    def _restart(self, entry: np.ndarray, reward: np.ndarray) -> None:
        """Empty the tables in which a tried pair has paid before or pays now, and not both."""
        was_paid = self.model["reward"].ravel()[entry] > 0
        is_tried = self.counts.ravel()[entry] > 0
        tables = self.table[is_tried & (was_paid != (reward > 0))]
        self.values[tables] = self.initial_values[tables]
        self.counts[tables] = self.model["num_tried"][tables] = 0

    def _plan(self) -> None:
        """Back up `planning_steps` tried pairs of each actor, drawn by its random stream."""
        count = self.settings.planning_steps
        counters = self.actors.steps * count + np.arange(count)
        u = uniform(self.keys["planning"], counters[:, None])
        number = (u * self.model["num_tried"][self.table]).astype(int)
        entries = self.table * self.counts.shape[1] + self.model["tried"][self.table, number]
        outcomes = (self.model[name].ravel()[entries] for name in ("reward", "following"))
        for entry, reward, following in zip(entries, *outcomes, strict=True):
            self._move(entry, self._target(entry, reward, following))
