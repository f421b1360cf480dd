"""Trajectories as lists of transitions, by scalar rules or from a vector environment."""

import numpy as np
from gymnasium.vector import AutoresetMode

from envs.rng import uniform
from envs.wrappers import VectorEpisodeLength


class ScalarRoom:
    """A second implementation of the dark room: one environment, no arrays."""

    def __init__(self, size, goal, start, goal_on_start, reward, terminate, episode_length, seed):
        self.rows, self.columns = (size, size) if isinstance(size, int) else size
        self.goal, self.start = goal[0] * self.columns + goal[1], start
        self.goal_on_start, self.reward, self.terminate = goal_on_start, reward, terminate
        self.limit, self.seed, self.episode = episode_length, seed, 0

    def first_cell(self):
        if self.start == "random" and self.goal_on_start:
            return int(uniform(self.seed, self.episode) * (self.rows * self.columns))
        if self.start == "random":
            cell = int(uniform(self.seed, self.episode) * (self.rows * self.columns - 1))
            return cell + (cell >= self.goal)
        named = {"center": (self.rows // 2, self.columns // 2), "corner": (0, 0)}
        row, column = named[self.start] if isinstance(self.start, str) else self.start
        return row * self.columns + column

    def reset(self):
        cell = self.first_cell()
        self.row, self.column = divmod(cell, self.columns)
        self.time, self.episode, self.paid = 0, self.episode + 1, False
        return cell

    def step(self, action):
        self.row = min(max(self.row + (action == 2) - (action == 1), 0), self.rows - 1)
        self.column = min(max(self.column + (action == 4) - (action == 3), 0), self.columns - 1)
        self.time += 1
        cell = self.row * self.columns + self.column
        reward = float(cell == self.goal and not (self.reward == "once" and self.paid))
        self.paid = self.paid or reward > 0
        terminated = cell == self.goal and self.terminate
        return cell, reward, terminated, self.time >= self.limit and not terminated


def scalar_trajectory(room: ScalarRoom, actions: list[int]) -> list[tuple]:
    """Return the transitions under `actions`, episode after episode."""
    trajectory, observation = [], room.reset()
    for action in actions:
        time = room.time
        next_observation, reward, terminated, truncated = room.step(action)
        trajectory.append(
            (time, observation, action, reward, next_observation, terminated, truncated)
        )
        observation = room.reset() if terminated or truncated else next_observation
    return trajectory


def batch_trajectories(
    vec_env: VectorEpisodeLength, actions: np.ndarray, seed: int
) -> list[list[tuple]]:
    """Return T transitions of each environment for its T actions, in any autoreset mode."""
    trajectories, skipped = [[] for _ in actions], np.zeros(len(actions), bool)
    observation, info = vec_env.reset(seed=seed)
    for _ in range(2 * actions.shape[1]):  # in NEXT_STEP up to every second step resets
        taken = [
            line[min(len(trajectory), len(line) - 1)]
            for line, trajectory in zip(actions, trajectories, strict=True)
        ]
        time = info["time"]
        after, reward, terminated, truncated, info = vec_env.step(taken)
        next_observation, ended = info.get("final_obs", after), terminated | truncated
        columns = (time, observation, taken, reward, next_observation, terminated, truncated)
        for env, transition in enumerate(zip(*columns, strict=True)):
            if not skipped[env]:
                trajectories[env].append(tuple(map(_plain, transition)))
        if vec_env.autoreset_mode == AutoresetMode.NEXT_STEP:
            skipped = ended
        elif vec_env.autoreset_mode == AutoresetMode.DISABLED and ended.any():
            after, info = vec_env.reset(options={"reset_mask": ended})
        observation = after
    return [trajectory[: actions.shape[1]] for trajectory in trajectories]


def _plain(value):
    """An array as nested lists, so that transitions compare with ==; numbers as they are."""
    return value.tolist() if np.ndim(value) else value
