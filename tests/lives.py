"""What lanes live through, as lists of transitions: by the scalar rules, or in a batch."""

import numpy as np
from gymnasium.vector import AutoresetMode

from envs.rng import uniform
from envs.wrappers import VectorEpisodeLength


class ScalarRoom:
    """The rules of the dark room again, for one lane, without an array."""

    def __init__(self, size, goal, random_start, terminate_on_goal, episode_length, seed):
        self.size, self.goal, self.random_start = size, goal[0] * size + goal[1], random_start
        self.terminate, self.limit, self.seed, self.episode = (
            terminate_on_goal,
            episode_length,
            seed,
            0,
        )

    def reset(self):
        cell = self.size // 2 * (self.size + 1)
        if self.random_start:
            cell = int(uniform(self.seed, self.episode) * (self.size**2 - 1))
            cell += cell >= self.goal
        self.row, self.column = divmod(cell, self.size)
        self.time, self.episode = 0, self.episode + 1
        return cell

    def step(self, action):
        self.row = min(max(self.row + (action == 2) - (action == 1), 0), self.size - 1)
        self.column = min(max(self.column + (action == 4) - (action == 3), 0), self.size - 1)
        self.time += 1
        cell = self.row * self.size + self.column
        terminated = cell == self.goal and self.terminate
        return (
            cell,
            float(cell == self.goal),
            terminated,
            self.time >= self.limit and not terminated,
        )


def scalar_life(room: ScalarRoom, actions: list[int]) -> list[tuple]:
    """The transitions that the actions lead to, episode after episode."""
    life, observation = [], room.reset()
    for action in actions:
        time = room.time
        reached, reward, terminated, truncated = room.step(action)
        life.append((time, observation, action, reward, reached, terminated, truncated))
        observation = room.reset() if terminated or truncated else reached
    return life


def batch_lives(lanes: VectorEpisodeLength, actions: np.ndarray, seed: int) -> list[list[tuple]]:
    """The real transitions of each lane in any autoreset mode, T of them for its T actions."""
    lives, rests = [[] for _ in actions], np.zeros(len(actions), bool)
    observation, info = lanes.reset(seed=seed)
    for _ in range(2 * actions.shape[1]):  # in NEXT_STEP up to every second step is none
        told = [
            line[min(len(life), len(line) - 1)] for line, life in zip(actions, lives, strict=True)
        ]
        time = info["time"]
        after, reward, terminated, truncated, info = lanes.step(told)
        reached, ended = info.get("final_obs", after), terminated | truncated
        columns = (time, observation, told, reward, reached, terminated, truncated)
        for lane, transition in enumerate(zip(*columns, strict=True)):
            if not rests[lane]:
                lives[lane].append(transition)
        if lanes.autoreset_mode == AutoresetMode.NEXT_STEP:
            rests = ended
        elif lanes.autoreset_mode == AutoresetMode.DISABLED and ended.any():
            after, info = lanes.reset(options={"reset_mask": ended})
        observation = after
    return [life[: actions.shape[1]] for life in lives]
