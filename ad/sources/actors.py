"""The actors of a source: K agents with N environments each, stepped and recorded together."""

from collections.abc import Callable, Iterator

import numpy as np

from ad.data.schema import TransitionChunk
from envs.rng import derive_key, uniform

CHUNK_STEPS = 500  # steps of each environment held in memory before they are stored


def actor_keys(keys, num_envs: int, purpose: str) -> np.ndarray:
    """Derive the keys of each actor's random stream for `purpose`, uint64 [K * N]."""
    derived = [derive_key(key, purpose, n) for key in keys for n in range(num_envs)]
    return np.array(derived, np.uint64)


class Actors:
    """The K * N environments of K agents, environment (k, n) with a random stream of its own."""

    def __init__(self, env, num_tasks: int, num_envs: int, keys):
        self.env, self.shape = env, (num_tasks, num_envs)
        self.agent = np.arange(num_tasks)[:, None]
        self.keys = actor_keys(keys, num_envs, "action")
        seeds = [int(key) >> 1 for key in actor_keys(keys, num_envs, "world")]
        observation, info = env.reset(seed=seeds)
        self.observation, self.time = observation, info["time"]
        self.steps = 0

    def state(self) -> dict | None:
        """Return the state as nested dicts of arrays; None if the environments have none."""
        env = self.env.state() if hasattr(self.env, "state") else None
        if env is None:
            return None
        own = {"observation": self.observation.copy(), "time": self.time.copy()}
        return {"steps": np.array(self.steps), **own, "env": env}

    def restore(self, state: dict) -> None:
        """Set the state to one returned by `state`."""
        self.steps = int(state["steps"])
        self.observation, self.time = state["observation"].copy(), state["time"].copy()
        self.env.restore(state["env"])

    def chunks(self, steps: int, multiple: int = 1) -> Iterator[TransitionChunk]:
        """Yield empty chunks from the present step to `steps`, each to be filled before the next.

        The length of all but the last is a multiple of `multiple`.
        """
        size = max(CHUNK_STEPS // multiple, 1) * multiple
        for start in range(self.steps, steps, size):
            yield TransitionChunk.empty(min(size, steps - start), *self.shape)

    def fill(
        self, chunk: TransitionChunk, act: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ) -> None:
        """Take len(chunk) steps in each environment and record them in `chunk`.

        `act(observations, u)` returns the actions, int [K, N]; the uniforms `u` are float64 [K, N].
        """
        counters = np.arange(self.steps, self.steps + len(chunk), dtype=np.uint64)
        u = uniform(self.keys, counters[:, None]).reshape(len(chunk), *self.shape)
        for t in range(len(chunk)):
            observation = self.observation.reshape(self.shape)
            actions = act(observation, u[t])
            self._record(chunk, t, observation, actions)
        self.steps += len(chunk)

    def _record(
        self, chunk: TransitionChunk, t: int, observation: np.ndarray, actions: np.ndarray
    ) -> None:
        data, shape = chunk.arrays, self.shape
        data["observation"][t], data["action"][t] = observation, actions
        data["time"][t] = self.time.reshape(shape)
        self.observation, reward, terminated, truncated, info = self.env.step(actions.ravel())
        # An environment whose episode ended is reset already: info has the final observation.
        next_observation = info.get("final_obs", self.observation)
        self.time = info["time"]
        data["reward"][t] = reward.reshape(shape)
        data["next_observation"][t] = next_observation.reshape(shape)
        data["terminated"][t] = terminated.reshape(shape)
        data["truncated"][t] = truncated.reshape(shape)
