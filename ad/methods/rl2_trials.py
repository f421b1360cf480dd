"""The trials of RL² (Duan et al. 2016, section 2.2) as a vector environment of Stable-Baselines3.

A trial is a number of episodes in one task. In addition to the observation the policy reads
the previous action and reward, and whether an episode has just ended. Only the end of a
trial is an end to the library, which then resets the recurrent state.

The number of episodes is fixed, not that of env steps: a task whose episodes end early would else
have more of them and more reward in a trial, and training would neglect the other tasks.
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
    """N environments of the world `env`, which play trials for `steps` env steps at a time.

    `begin` starts new trials everywhere. An environment whose trial is over, after as many episodes
    as fit into `steps` at their full length, begins another in another task; the last one is cut
    off, which counts as a time limit. `tasks`, int [K, ...], are those to draw from. The task and
    the random stream of a trial depend on `key`, the number of the beginning, the number of the
    trial since then, and the environment only.
    """

    def __init__(self, env: EnvConfig, tasks: np.ndarray, num_envs: int, steps: int, key: int):
        world = configured_world(env)
        self.no_action = int(world.single_action_space.n)
        parts = trial_parts(observation_parts(world), self.no_action)
        super().__init__(num_envs, parts, self.no_action)
        self.space, self.config, self.tasks = world.single_observation_space, env, tasks
        self.steps, self.episodes, self.key = steps, max(steps // env.episode_length, 1), key
        self.worlds: list[VectorEnv] = []  # the n-th has the n-th trial of each environment

    def begin(self, number: int) -> dict[str, np.ndarray]:
        """Begin trials in all environments, for the time called `number`; return what is read."""
        self.close()
        self.worlds, self.begin_key, self.taken = [], derive_key(self.key, "trials", number), 0
        self.trial, self.episode = np.zeros((2, self.num_envs), int)
        self.returns: list[float] = []  # of the trials that are over
        self.reward_of_trial = np.zeros(self.num_envs)
        return self._first_inputs(np.arange(self.num_envs))

    def reset(self):
        """Begin the first trials: the library asks for it once, before it learns."""
        return self.begin(0)

    def step_async(self, actions):
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self):
        """Take the actions. The last step returns what would follow it."""
        parts, reward, ended = self._step_worlds()
        self.taken += 1
        self.episode += ended
        self.reward_of_trial += reward
        following = self._inputs(parts, self.actions, reward, ended)
        over, infos = self.episode == self.episodes, [{} for _ in range(self.num_envs)]
        self.returns += self.reward_of_trial[over].tolist()
        if self.taken == self.steps:
            for n in np.flatnonzero(~over):
                last = {name: values[n] for name, values in following.items()}
                infos[n] = {"terminal_observation": last, "TimeLimit.truncated": True}
            return following, reward, np.ones(self.num_envs, bool), infos
        if over.any():
            self.trial[over] += 1
            self.episode[over], self.reward_of_trial[over] = 0, 0
            first = self._first_inputs(np.flatnonzero(over))
            for name, values in following.items():
                values[over] = first[name][over]
        return following, reward, over, infos

    def close(self) -> None:
        """Close the environments of the present trials, if there are any."""
        for world in self.worlds:
            world.close()

    def _first_inputs(self, envs: np.ndarray) -> dict[str, np.ndarray]:
        """Begin the present trials of `envs`, int [M]; return what the policy reads there."""
        parts, reward = self._begin_trials(envs), np.zeros(self.num_envs)
        action, ended = np.full(self.num_envs, self.no_action), np.zeros(self.num_envs, bool)
        return self._inputs(parts, action, reward, ended)

    def _begin_trials(self, envs: np.ndarray) -> dict[str, np.ndarray]:
        """Begin the present trials of `envs`, int [M]; return parts [N, ...] with theirs."""
        parts: dict[str, np.ndarray] = {}
        for trial in np.unique(self.trial[envs]):
            key = derive_key(self.begin_key, int(trial))
            seeds = [derive_key(key, "world", n) >> 1 for n in range(self.num_envs)]
            if trial == len(self.worlds):  # no environment was ahead of `envs`
                u = uniform(derive_key(key, "task"), np.arange(self.num_envs))
                drawn = self.tasks[(u * len(self.tasks)).astype(int)]
                self.worlds.append(make_envs(self.config, drawn))
                self.worlds[trial].reset(seed=seeds)
            own = np.zeros(self.num_envs, bool)
            own[envs] = self.trial[envs] == trial
            # The others have moved in the meantime: an environment begins with its own seed.
            observation, _ = self.worlds[trial].reset(seed=seeds, options={"reset_mask": own})
            self._merge(parts, observation, own)
        return parts

    def _step_worlds(self) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Step the worlds of all present trials: parts, reward float32 [N] and ends, bool [N].

        In each only the environments with its trial count; the others take the first action.
        """
        parts: dict[str, np.ndarray] = {}
        reward, ended = np.zeros(self.num_envs, np.float32), np.zeros(self.num_envs, bool)
        for trial in np.unique(self.trial):
            own = self.trial == trial
            observation, gained, terminated, truncated, _ = self.worlds[trial].step(
                np.where(own, self.actions, 0)
            )
            self._merge(parts, observation, own)
            reward[own], ended[own] = gained[own], (terminated | truncated)[own]
        return parts, reward, ended

    def _merge(self, parts: dict[str, np.ndarray], observation, own: np.ndarray) -> None:
        """Put the observations of the environments `own`, bool [N], into `parts`, in place."""
        for name, values in split_observation(self.space, observation).items():
            parts.setdefault(name, np.array(values))[own] = values[own]

    def _inputs(self, parts: dict, action, reward, ended) -> dict[str, np.ndarray]:
        """Return what the policy reads, [N, ...] by name."""
        return self.observation(named(parts) | {ACTION: action, REWARD: reward, ENDED: ended})
