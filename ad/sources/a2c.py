"""Advantage actor-critic (Mnih et al. 2016): one independent learner per task, all in one batch.

Over few observations a policy is a table between two updates, so acting is a table look-up in
arrays, and one update of one agent is a loop compiled by numba over the observations that it
visited. An agent has its own parameters, Adam state, gradient clip and random stream. Nothing is
summed across agents, so its history has the same bits alone, among others and with any number of
threads. An agent whose loss or gradient is not finite stops learning and keeps acting with its last
policy; the other agents are not affected.
"""

from dataclasses import dataclass

import numpy as np

from ad.config.fields import field
from ad.data.schema import TransitionChunk
from ad.sources import a2c_kernel
from ad.sources.actors import IMPOSSIBLE, Actors
from ad.sources.base import TabularSource
from ad.sources.returns import n_step_returns

STATISTICS = ("entropy", "value_error", "gradient_norm")  # what `a2c_kernel.update` returns


@dataclass(frozen=True)
class Settings:
    """Settings of A2C: the values of configs/seed_darkroom.yaml but for `learning_rate`."""

    learning_rate: float = field(1e-3, above=0)
    """Adam's learning rate: a larger one makes histories that show faster learning"""
    rollout_length: int = field(10, at_least=1)
    """steps of each actor between two updates"""
    discount: float = field(0.99, at_least=0, at_most=1)
    """discount factor gamma"""
    entropy_coefficient: float = field(0.01, at_least=0)
    """weight of the entropy bonus in the loss"""
    value_coefficient: float = field(0.99, at_least=0)
    """weight of the squared value error in the loss"""
    gradient_norm: float = field(0.5, above=0)
    """largest norm of an agent's gradient: a larger gradient is clipped"""
    hidden: int = field(128, at_least=1)
    """width of the embedding of an observation"""
    beta1: float = field(0.9, at_least=0, below=1)
    """Adam's decay rate of the first moment"""
    beta2: float = field(0.999, at_least=0, below=1)
    """Adam's decay rate of the second moment"""
    epsilon: float = field(1e-6, above=0)
    """Adam's term that is added to the denominator"""


class A2C(TabularSource):
    """K independent A2C agents with N actors each."""

    Settings = Settings
    privileged_info = "nothing"
    paper = "arXiv 1602.01783"
    state_names = ("parameters", "moments", "stopped_at")

    def __init__(self, settings: Settings, env, tasks, num_envs: int, keys):
        self.rollout_length, self.hidden = settings.rollout_length, settings.hidden
        self.actors = Actors(env, len(tasks), num_envs, keys)
        states = env.unwrapped.num_observations
        actions = int(env.single_action_space.n)
        self.shape = (states, self.hidden, actions)
        self.parameters = np.stack([initial_parameters(self.shape, key) for key in keys])
        mask = self.actors.action_mask
        # A bias that no update changes, since the gradient of an impossible action is zero.
        self.parameters[:, -actions - 1 : -1][~mask] = IMPOSSIBLE
        self.moments = np.zeros((2, *self.parameters.shape), np.float32)
        self.updates = 0
        self.stopped_at = np.full(len(keys), -1)  # steps that agent k learned from, -1: all
        self.update_settings = a2c_kernel.update_settings(settings)
        self.discount = settings.discount
        self.table = a2c_kernel.empty_table(len(keys), states, actions)
        a2c_kernel.fill_table(self.parameters, self.hidden, self.table)

    def state(self) -> dict | None:
        """Return the state as nested dicts of arrays; None if the environments have none."""
        state = super().state()
        if state is None:
            return None
        # Computing the table from the parameters would be another code path: bits might differ.
        table = {name: values.copy() for name, values in self.table._asdict().items()}
        return {**state, "updates": np.array(self.updates), "table": table}

    def restore(self, state: dict) -> None:
        """Set the state to one returned by `state`."""
        super().restore(state)
        self.updates = int(state["updates"])
        self.table = a2c_kernel.Table(**{n: values.copy() for n, values in state["table"].items()})

    def act(self, observations: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Sample actions [K, N] from the policies at `observations` with the uniforms `u`."""
        return self.actors.sample(self.table.cumulative[self.actors.agent, observations], u)

    def _learn(self, rollout: TransitionChunk) -> None:
        """Update each agent once on `rollout`; append the update's statistics to its own."""
        data = rollout.arrays
        next_values = self.table.values[self.actors.agent, data["next_observation"]]  # [T, K, N]
        returns = n_step_returns(
            data["reward"], data["terminated"], data["truncated"], next_values, self.discount
        )
        self.updates += 1
        assert self.stopped_at is not None  # `__init__` has set it
        stopped = self.stopped_at >= 0
        measured = a2c_kernel.update(
            self.parameters,
            self.moments,
            stopped,
            self.hidden,
            self.table,
            (data["observation"], data["action"]),
            returns,
            self.updates,
            self.update_settings,
        )
        self.stopped_at[stopped & (self.stopped_at < 0)] = self.actors.steps - len(rollout)
        for name, values in zip(STATISTICS, measured.T, strict=True):
            rollout.statistics.setdefault(name, []).append(values)


def initial_parameters(shape: tuple[int, int, int], key: int) -> np.ndarray:
    """Draw one agent's parameters, flat float32, as torch initializes Embedding and Linear.

    `shape` is (observations, hidden, actions).
    """
    states, hidden, actions = shape
    rng = np.random.default_rng([key, 1])
    bound = hidden**-0.5
    parts = (
        rng.standard_normal((states, hidden)),
        np.ones(hidden),
        np.zeros(hidden),
        rng.uniform(-bound, bound, (actions + 1, hidden)),
        rng.uniform(-bound, bound, actions + 1),
    )
    return np.concatenate([part.ravel() for part in parts]).astype(np.float32)
