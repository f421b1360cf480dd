"""The trials of RL² (Duan et al. 2016, section 2.2) as a vector environment of Stable-Baselines3.

A trial is a number of env steps in one task. Episodes end and begin within it, and the policy reads
beside the observation what tells it of them: the previous action and reward, and whether an episode
has just ended. Only the end of a trial is an end to the library, which then resets the recurrent
state. It counts as a time limit: the library bootstraps the value there.
"""

import numpy as np
from gymnasium.vector import VectorEnv

from ad.config.schema import EnvConfig
from ad.config.world import configured_world, make_envs
from ad.sources.sb3.policies import Spaces
from envs.rng import derive_key, uniform
from envs.spaces import Array, Discrete, Part, observation_parts, split_observation

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
    """N environments of the world `env` that play a trial each, of `steps` env steps.

    `tasks`, int [K, ...], are those to draw from. The task and the random stream of an environment
    depend on `key`, the number of the trial and that of the environment only.
    """

    def __init__(self, env: EnvConfig, tasks: np.ndarray, num_envs: int, steps: int, key: int):
        world = configured_world(env)
        self.no_action = int(world.single_action_space.n)
        parts = trial_parts(observation_parts(world), self.no_action)
        super().__init__(num_envs, parts, self.no_action)
        self.config, self.tasks, self.steps, self.key = env, tasks, steps, key
        self.env: VectorEnv | None = None  # of the present trials

    def begin(self, trial: int) -> dict[str, np.ndarray]:
        """Begin trial number `trial` in each environment and return their first observations."""
        self.close()
        key, envs = derive_key(self.key, "trial", trial), range(self.num_envs)
        u = uniform(derive_key(key, "task"), np.arange(self.num_envs))
        self.env = make_envs(self.config, self.tasks[(u * len(self.tasks)).astype(int)])
        observation, _ = self.env.reset(seed=[derive_key(key, "world", n) >> 1 for n in envs])
        self.taken, self.rewards = 0, np.zeros((self.steps, self.num_envs), np.float32)
        action, ended = np.full(self.num_envs, self.no_action), np.zeros(self.num_envs, bool)
        return self._inputs(observation, action, self.rewards[0], ended)

    def reset(self):
        """Begin the first trials: the library asks for it once, before it learns."""
        return self.begin(0)

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
