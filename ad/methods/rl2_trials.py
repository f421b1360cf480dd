"""The trials of RL² (Duan et al. 2016, section 2.2) as a vector environment of Stable-Baselines3.

A trial is a number of env steps in one task. Episodes end and begin within it, and the policy reads
beside the observation what tells it of them: the previous action and reward, and whether an episode
has just ended. Only the end of a trial is an end to the library, which then resets the recurrent
state. It counts as a time limit: the library bootstraps the value there.
"""

from collections.abc import Callable

import numpy as np

from ad.sources.sb3.policies import Spaces
from envs.rng import derive_key, uniform
from envs.spaces import Array, Discrete, Part, split_observation

ACTION, REWARD, ENDED = "previous_action", "previous_reward", "episode_ended"


def trial_parts(parts: dict[str, Part], num_actions: int) -> dict[str, Part]:
    """Return the parts that the policy reads, by name, for observations with `parts`.

    The previous action is `num_actions` before the first step of a trial.
    """
    return {
        **named(parts),
        ACTION: Discrete(num_actions + 1, (num_actions + 1,)),
        REWARD: Array((), "float32", None, None),
        ENDED: Discrete(2, (2,)),
    }


def named(parts: dict) -> dict:
    """Return values by the name of their part, which is "observation" for an undivided one."""
    return {name or "observation": value for name, value in parts.items()}


class Trials(Spaces):
    """N environments that play a trial each, of `steps` env steps; `reset` begins the next ones.

    `make_env(tasks)` makes the vector environment of tasks [N, ...], and `tasks` are those to draw
    from. Task and random stream of an environment depend on `key`, its number and `trial` only.
    """

    def __init__(
        self,
        make_env: Callable,
        tasks: np.ndarray,
        num_envs: int,
        steps: int,
        parts: dict[str, Part],
        num_actions: int,
        key: int,
    ):
        super().__init__(num_envs, trial_parts(parts, num_actions), num_actions)
        self.make_env, self.tasks, self.steps, self.key = make_env, tasks, steps, key
        self.no_action, self.env = num_actions, None
        self.trial = 0  # number of the trials that the next reset begins
        self.rewards = np.zeros((0, num_envs), np.float32)  # of the present trials, [T, N]

    def reset(self):
        """Make the environments of the next trials and return their first observations."""
        self.close()
        key, envs = derive_key(self.key, self.trial), range(self.num_envs)
        drawn = (
            uniform(derive_key(key, "task"), np.arange(self.num_envs)) * len(self.tasks)
        ).astype(int)
        self.env = self.make_env(self.tasks[drawn])
        observation, _ = self.env.reset(seed=[derive_key(key, "world", n) >> 1 for n in envs])
        self.trial, self.taken, self.ended = self.trial + 1, 0, np.zeros(self.num_envs, int)
        self.rewards = np.zeros((self.steps, self.num_envs), np.float32)
        action = np.full(self.num_envs, self.no_action)
        return self._inputs(observation, action, self.rewards[0], self.ended)

    def step_async(self, actions):
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self):
        """Take the actions. The last step of a trial returns what would follow it."""
        observation, reward, terminated, truncated, _ = self.env.step(self.actions)
        ended = terminated | truncated
        self.rewards[self.taken] = reward
        self.taken += 1
        following = self._inputs(observation, self.actions, reward, ended)
        is_over, infos = self.taken == self.steps, [{} for _ in range(self.num_envs)]
        if is_over:
            for n, info in enumerate(infos):
                info["terminal_observation"] = {name: own[n] for name, own in following.items()}
                info["TimeLimit.truncated"] = True
        # A copy: Stable-Baselines3 adds the value of a final observation to the reward.
        return following, reward.copy(), np.full(self.num_envs, is_over), infos

    def close(self) -> None:
        """Close the environments of the present trials, if there are any."""
        if self.env is not None:
            self.env.close()

    def _inputs(self, observation, action, reward, ended) -> dict[str, np.ndarray]:
        parts = split_observation(self.env.single_observation_space, observation)
        return self.observation(named(parts) | {ACTION: action, REWARD: reward, ENDED: ended})
