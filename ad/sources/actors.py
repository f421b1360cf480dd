"""The actors of a source: K agents with N environments each, stepped and recorded together."""

from collections.abc import Callable, Iterator

import numpy as np

from ad.data.schema import TransitionChunk, transition_fields
from ad.data.spec import OBSERVATIONS, field_name
from ad.errors import CorruptError
from envs.rng import derive_key, uniform
from envs.spaces import split_observation

CHUNK_STEPS = 500  # steps of each environment held in memory before they are stored, at most
CHUNK_BYTES = 2**28  # held in memory
IMPOSSIBLE = -1e9  # the logit of an action that a task does not have

Observations = np.ndarray | dict[str, np.ndarray]  # [K, N, ...], by part unless undivided


def actor_keys(keys, num_envs: int, purpose: str) -> np.ndarray:
    """Derive the keys of each actor's random stream for `purpose`, uint64 [K * N]."""
    derived = [derive_key(key, purpose, n) for key in keys for n in range(num_envs)]
    return np.array(derived, np.uint64)


def draw(cumulative: np.ndarray, u: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return the index that each uniform of `u` [K, N] draws, int [K, N].

    `cumulative` [K, N, A] are the cumulative sums of the probabilities. Rounding can leave the last
    sum below 1, and a uniform between them draws `last`, int [K, 1].
    """
    return np.minimum((u[..., None] >= cumulative[..., :-1]).sum(-1), last)


class Actors:
    """The K * N environments of K agents, environment (k, n) with a random stream of its own.

    `action_mask`, bool [K, A], marks the actions that the task of each agent has. If `numbered` is
    set, the agents read the numbers of observations; what is recorded are the observations.
    """

    numbered = False

    def __init__(self, env, num_tasks: int, num_envs: int, keys):
        self.env, self.shape = env, (num_tasks, num_envs)
        self.number = env.unwrapped.number_observations
        self.agent = np.arange(num_tasks)[:, None]
        mask = env.unwrapped.action_mask(env.unwrapped.tasks[::num_envs])
        shape = num_tasks, int(env.single_action_space.n)
        self.action_mask = np.ones(shape, bool) if mask is None else mask
        self.num_actions = self.action_mask.sum(1)[:, None]  # of each task, [K, 1]
        self.actions_of_task = np.argsort(~self.action_mask, axis=1, kind="stable")  # these first
        last = self.action_mask[:, ::-1].argmax(1)[:, None]
        self.last_action = self.action_mask.shape[1] - 1 - last  # of each task, [K, 1]
        self.fields = transition_fields(env.unwrapped)
        self.keys = actor_keys(keys, num_envs, "action")
        seeds = [int(key) >> 1 for key in actor_keys(keys, num_envs, "world")]
        observation, info = env.reset(seed=seeds)
        self.observation, self.time = self._split(observation), info["time"]
        self.steps = 0

    def state(self) -> dict | None:
        """Return the state as nested dicts of arrays; None if the environments have none."""
        env = self.env.state() if hasattr(self.env, "state") else None
        if env is None:
            return None
        observation = {name: values.copy() for name, values in self.observation.items()}
        own = {"steps": np.array(self.steps), "time": self.time.copy()}
        return {**own, "observation": observation, "env": env}

    def restore(self, state: dict) -> None:
        """Set the state to one returned by `state`.

        Raises CorruptError if the environments cannot be restored exactly.
        """
        self.steps, self.time = int(state["steps"]), state["time"].copy()
        self.observation = {name: values.copy() for name, values in state["observation"].items()}
        try:
            self.env.restore(state["env"])
        except ValueError as error:
            raise CorruptError(f"the environments cannot be restored: {error}") from error

    def chunks(self, steps: int, multiple: int = 1) -> Iterator[TransitionChunk]:
        """Yield empty chunks from the present step to `steps`, each to be filled before the next.

        The length of all but the last is a multiple of `multiple`.
        """
        step_bytes = np.prod(self.shape) * sum(field.nbytes for field in self.fields.values())
        most = min(CHUNK_STEPS, int(CHUNK_BYTES // step_bytes))
        size = max(most // multiple, 1) * multiple
        for start in range(self.steps, steps, size):
            yield TransitionChunk.empty(self.fields, min(size, steps - start), *self.shape)

    def fill(self, chunk: TransitionChunk, act: Callable[..., np.ndarray]) -> None:
        """Take len(chunk) steps in each environment and record them in `chunk`.

        `act(observations, u)` returns the actions, int [K, N]; the uniforms `u` are float64 [K, N].
        """
        counters = np.arange(self.steps, self.steps + len(chunk), dtype=np.uint64)
        u = uniform(self.keys, counters[:, None]).reshape(len(chunk), *self.shape)
        for t in range(len(chunk)):
            parts = {name: self._by_agent(values) for name, values in self.observation.items()}
            self._record(chunk, t, "observation", self.observation)
            actions = act(self.number(parts[""]) if self.numbered else parts.get("", parts), u[t])
            self._step(chunk, t, actions)
        self.steps += len(chunk)

    def read(self, chunk: TransitionChunk) -> TransitionChunk:
        """Return `chunk` as the agents read it, with the same statistics."""
        numbers = {name: self.number(chunk.arrays[name]) for name in OBSERVATIONS if self.numbered}
        return TransitionChunk(chunk.arrays | numbers, chunk.statistics)

    def sample(self, cumulative: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Sample actions, int [K, N], by the uniforms `u` [K, N].

        `cumulative` [K, N, A] are the cumulative sums of the probabilities of the actions.
        """
        return draw(cumulative, u, self.last_action)

    def states(self) -> np.ndarray:
        """Return the index of the present state of each environment, int [K, N].

        It is the observation where the world has no other state.
        """
        states = self.env.unwrapped.states()
        return self._by_agent(self.observation[""] if states is None else states)

    def uniform_actions(self, u: np.ndarray) -> np.ndarray:
        """Return uniformly random actions of each task, int [K, N], by the uniforms `u` [K, N]."""
        return self.actions_of_task[self.agent, (u * self.num_actions).astype(int)]

    def _step(self, chunk: TransitionChunk, t: int, actions: np.ndarray) -> None:
        data = chunk.arrays
        data["action"][t], data["time"][t] = actions, self._by_agent(self.time)
        observation, reward, terminated, truncated, info = self.env.step(actions.ravel())
        self.observation, self.time = self._split(observation), info["time"]
        # An environment whose episode ended is reset already: info has the final observation.
        final = self._split(info["final_obs"]) if "final_obs" in info else self.observation
        self._record(chunk, t, "next_observation", final)
        data["reward"][t] = self._by_agent(reward)
        data["terminated"][t] = self._by_agent(terminated)
        data["truncated"][t] = self._by_agent(truncated)

    def _record(self, chunk: TransitionChunk, t: int, role: str, observation: dict) -> None:
        for part, values in observation.items():
            chunk.arrays[field_name(role, part)][t] = self._by_agent(values)

    def _split(self, observation) -> dict[str, np.ndarray]:
        return split_observation(self.env.single_observation_space, observation)

    def _by_agent(self, values: np.ndarray) -> np.ndarray:
        return values.reshape(*self.shape, *values.shape[1:])
