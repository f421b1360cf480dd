"""Any algorithm of Stable-Baselines3 with discrete actions: its whole learning as a history.

Raffin et al. 2021, "Stable-Baselines3: Reliable Reinforcement Learning Implementations". Every
transition is recorded, also those of exploration. `learn` runs unchanged, once for each agent, with
its schedules over the whole history (`ad.sources.sb3.agent`).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ad.config.fields import field
from ad.config.schema import Experiment
from ad.data.schema import TransitionChunk
from ad.data.spec import field_name
from ad.runtime.console import warn
from ad.sources.actors import Actors
from ad.sources.base import Source
from ad.sources.sb3.settings import SB3Settings, check_algorithm, check_packages
from envs.oracle import TaskOracle
from envs.spaces import observation_parts


@dataclass(frozen=True)
class Settings(SB3Settings):
    """Settings of Stable-Baselines3: an algorithm, its policy and its arguments."""

    checkpoints: int = field(10, at_least=0)
    """policies that are kept with a history, at even intervals; the last is the final one"""

    def __hash__(self) -> int:
        return hash(repr(self))


class StableBaselines3(Source):
    """K agents of Stable-Baselines3 with N environments each, which step at the same time."""

    Settings = Settings
    privileged_info = "nothing"
    paper = "Raffin et al. 2021"

    @classmethod
    def check(cls, config: Experiment, world: TaskOracle) -> None:
        """Raise SettingError if a package is missing, or the library refuses the settings."""
        settings = Settings(**config.source.settings)
        check_algorithm(settings.algorithm)
        check_packages("source.algorithm")
        from ad.sources.sb3.agent import Spaces, check_agent

        env = Spaces(config.source.num_envs, observation_parts(world), world.num_actions)
        check_agent(settings, env, "source.settings")

    def __init__(self, settings: Settings, env, tasks, num_envs: int, keys):
        from ad.sources.sb3.agent import Agent, RNGSwap

        self.actors, self.rng_swap = Actors(env, len(tasks), num_envs, keys), RNGSwap()
        self.num_checkpoints = settings.checkpoints
        self.parts = observation_parts(env.unwrapped)
        self.agents = [
            Agent(settings, num_envs, self.parts, int(count), int(key), self.rng_swap)
            for count, key in zip(self.actors.num_actions[:, 0], keys, strict=True)
        ]

    def run(self, steps: int) -> Iterator[TransitionChunk]:
        """Learn until each environment has taken `steps` steps; yield the transitions in chunks."""
        rollout_length = self.agents[0].rollout_length
        if rollout_length > steps:
            warn(f"the agents never learn: n_steps is above the {steps} steps of an actor")
        due = {math.ceil(steps * i / self.num_checkpoints) for i in range(1, self.num_checkpoints)}
        due |= {steps} if self.num_checkpoints else set()
        try:
            for chunk in self.actors.chunks(steps, rollout_length):
                if self.agents[0].thread is None:
                    self._start(steps)
                for step in chunk.rollouts(1):
                    self._step(step)
                    if self.actors.steps in due:
                        number = self.actors.steps * self.actors.shape[1]
                        chunk.checkpoints[number] = [agent.checkpoint() for agent in self.agents]
                self.rng_swap.leave()
                for name in self.agents[0].statistics:
                    values = [agent.statistic(name) for agent in self.agents]
                    chunk.statistics[name] = [np.array(values, np.float32)]
                yield chunk
        finally:
            self.rng_swap.leave()
            for agent in self.agents:
                agent.close()

    def state(self) -> dict | None:
        """Return the state as nested dicts of arrays.

        None if the environments have none, or the algorithm is off-policy, whose replay buffer is
        as large as the history: an interrupted collection starts again.
        """
        actors = self.actors.state()
        agents = [agent.state() for agent in self.agents] if actors is not None else [None]
        if any(agent is None for agent in agents):
            return None
        return {"agents": {str(k): agent for k, agent in enumerate(agents)}, "actors": actors}

    def restore(self, state: dict) -> None:
        """Set the state to one returned by `state`."""
        self.actors.restore(state["actors"])
        for k, agent in enumerate(self.agents):
            agent.restore(state["agents"][str(k)])

    def _start(self, steps: int) -> None:
        """Start to learn, up to the first actions."""
        for k, agent in enumerate(self.agents):
            starts = self.actors.time.reshape(self.actors.shape)[k] == 0
            agent.start(self._own(self.actors.observation, k), starts, steps)

    def _step(self, step: TransitionChunk) -> None:
        """Take the actions that the agents have chosen, and let them learn from the outcome."""
        chosen = np.stack([agent.actions for agent in self.agents])  # among those of its task
        actions = self.actors.actions_of_task[self.actors.agent, chosen]
        self.actors.fill(step, lambda observations, u: actions)
        data = step.arrays
        for k, agent in enumerate(self.agents):
            final = {name: data[field_name("next_observation", name)][0, k] for name in self.parts}
            agent.advance(
                self._own(self.actors.observation, k),
                final,
                data["reward"][0, k],
                data["terminated"][0, k],
                data["truncated"][0, k],
            )

    def _own(self, observation: dict[str, np.ndarray], k: int) -> dict[str, np.ndarray]:
        """Return the parts of the observations of agent k, arrays [N, ...]."""
        num_envs = self.actors.shape[1]
        return {name: observation[name][k * num_envs : (k + 1) * num_envs] for name in self.parts}
