"""A released policy as Stable-Baselines3 calls a model."""

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper

from ad.exchange.policy import ReleasedPolicy


class SB3Model:
    """A model with `predict`, for `evaluate_policy(model, model.env, n_eval_episodes=100)`.

    Its `env` passes the outcomes of actions to the policy; its reset empties the context. All
    episodes of an environment are of one context, so the mean return is the one of an agent that
    learns. With `deterministic`, which is the default there, the most likely action is taken.
    """

    def __init__(self, policy: ReleasedPolicy, env):
        self.policy = policy
        vec_env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
        self.env = _ToldOutcomes(vec_env, policy)

    def predict(
        self, observation, state=None, episode_start=None, deterministic: bool = False
    ) -> tuple[np.ndarray | int, None]:
        """Return the actions at `observation`, int64 [N], and no state: the policy has it."""
        return self.policy.act(observation, deterministic), None


class _ToldOutcomes(VecEnvWrapper):
    """Environments that pass the outcome of each action to a policy."""

    def __init__(self, venv: VecEnv, policy: ReleasedPolicy):
        super().__init__(venv)
        self.policy = policy

    def reset(self):
        """Reset all environments and the policy."""
        self.policy.reset(range(self.num_envs))
        return self.venv.reset()

    def step_wait(self):
        """Return the outcome of the step, which the policy gets with the true observations."""
        observation, reward, done, infos = self.venv.step_wait()
        truncated = np.array([info.get("TimeLimit.truncated", False) for info in infos])
        last = observation
        for env in np.flatnonzero(done):
            last = _replaced(last, env, infos[env]["terminal_observation"])
        self.policy.observe(reward, done & ~truncated, truncated, last)
        return observation, reward, done, infos


def _replaced(observation, env: int, value):
    """Return a copy of a batched observation with `value` at `env`."""
    if isinstance(observation, dict):
        return {name: _replaced(part, env, value[name]) for name, part in observation.items()}
    copied = observation.copy()
    copied[env] = value
    return copied
