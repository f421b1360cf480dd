"""The actors of a source: K agents with E environments each, stepped and recorded together."""

from collections.abc import Callable, Iterator

import numpy as np

from ad.data.schema import TransitionChunk
from envs.rng import derive_key, uniform

BLOCK_STEPS = 500  # steps of every lane held in memory before they go to the store


def actor_keys(keys, num_envs: int, purpose: str) -> np.ndarray:
    """The keys of the random streams that K agents' actors use for `purpose`, uint64 [K * E]."""
    derived = [derive_key(key, purpose, e) for key in keys for e in range(num_envs)]
    return np.array(derived, np.uint64)


class Actors:
    """Lane (k, e) is actor e of agent k, with a random stream of its own."""

    def __init__(self, env, num_tasks: int, num_envs: int, keys):
        self.env, self.shape = env, (num_tasks, num_envs)
        self.agent = np.arange(num_tasks)[:, None]
        self.keys = actor_keys(keys, num_envs, "action")
        seeds = [int(key) >> 1 for key in actor_keys(keys, num_envs, "world")]
        observation, info = env.reset(seed=seeds)
        self.observation, self.time = observation, info["time"]
        self.steps = 0

    def state(self) -> dict | None:
        """All that the actors' future depends on, as arrays; None if their world cannot tell."""
        env = self.env.state() if hasattr(self.env, "state") else None
        if env is None:
            return None
        own = {"observation": self.observation.copy(), "time": self.time.copy()}
        return {"steps": np.array(self.steps), **own, "env": env}

    def restore(self, state: dict) -> None:
        """Go on from what `state` of the same actors gave."""
        self.steps = int(state["steps"])
        self.observation, self.time = state["observation"].copy(), state["time"].copy()
        self.env.restore(state["env"])

    def blocks(self, steps: int, multiple: int = 1) -> Iterator[TransitionChunk]:
        """Empty blocks from the step reached up to `steps`, multiples of `multiple` but the last.

        The actors must fill each before they ask for the next.
        """
        size = max(BLOCK_STEPS // multiple, 1) * multiple
        for start in range(self.steps, steps, size):
            yield TransitionChunk.empty(min(size, steps - start), *self.shape)

    def rollout(
        self, block: TransitionChunk, act: Callable[[np.ndarray, np.ndarray], np.ndarray]
    ) -> None:
        """Fill `block`: every lane takes len(block) steps by act(observations, uniforms)."""
        counters = np.arange(self.steps, self.steps + len(block), dtype=np.uint64)
        u = uniform(self.keys, counters[:, None]).reshape(len(block), *self.shape)
        for t in range(len(block)):
            observation = self.observation.reshape(self.shape)
            actions = act(observation, u[t])
            self._record(block, t, observation, actions)
        self.steps += len(block)

    def _record(
        self, block: TransitionChunk, t: int, observation: np.ndarray, actions: np.ndarray
    ) -> None:
        data, shape = block.arrays, self.shape
        data["observation"][t], data["action"][t] = observation, actions
        data["time"][t] = self.time.reshape(shape)
        self.observation, reward, terminated, truncated, info = self.env.step(actions.ravel())
        # After an end the lane is already reset: the true last observation is the one in the info.
        reached = info.get("final_obs", self.observation)
        self.time = info["time"]
        data["reward"][t] = reward.reshape(shape)
        data["next_observation"][t] = reached.reshape(shape)
        data["terminated"][t] = terminated.reshape(shape)
        data["truncated"][t] = truncated.reshape(shape)
