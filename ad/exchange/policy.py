"""The policy of a released model: `reset`, `act`, `observe` in any environment of its spaces."""

from collections.abc import Sequence

import numpy as np
import torch

from ad.config.schema import Experiment
from ad.errors import ConfigError
from ad.methods import build_method
from ad.models.sequence_model import SequenceModel
from ad.rollout.rollout import allowed_logits, as_tensor, greedy
from ad.rollout.tasks import policy_of, selection_of
from envs.extras import missing
from envs.rng import derive_key, uniform


class ReleasedPolicy:
    """A frozen model that learns in its context: `observe` gives it the outcome of each `act`.

    `model` is its SequenceModel, `config` the experiment that trained it. It acts as the evaluation
    of that experiment does: in N environments in lockstep, or in a single one, whose observations
    are not batched.

        env, policy = gymnasium.make("envs:DarkRoom-v0", goal=(3, 7)), load_release("release")
        policy.reset()
        for episode in range(100):
            observation, info = env.reset()
            done = False
            while not done:
                action = policy.act(observation)
                observation, reward, terminated, truncated, info = env.step(action)
                policy.observe(reward, terminated, truncated, observation)
                done = terminated or truncated
    """

    def __init__(self, model: SequenceModel, config: Experiment):
        self.model, self.config = model, config
        self._new_policy = policy_of(config, build_method(config.method), model)
        self._select_action = selection_of(config.evaluation)
        self._device = model.head.weight.device
        self.reset()

    def reset(self, seeds: Sequence[int] = (0,), action_mask: np.ndarray | None = None) -> None:
        """Forget the context, and begin in an environment for each of `seeds`.

        A seed determines the draws of an environment's actions as in a rollout. `action_mask`, bool
        [N, A], says which actions the task of each environment has, if some lack actions.
        """
        self._keys = np.array([derive_key(int(seed), "action") for seed in seeds], np.uint64)
        self._policy, self._mask = self._new_policy(len(self._keys)), action_mask
        self._time, self._step = np.zeros(len(self._keys), np.int64), 0
        self._action: np.ndarray | None = None
        if action_mask is not None:
            self._policy.set_action_mask(as_tensor(np.asarray(action_mask), self._device))

    @torch.inference_mode()
    def act(self, observation, deterministic: bool = False) -> np.ndarray | int:
        """Return the actions at `observation`, int64 [N]; an int if it is not batched.

        `deterministic` takes the most likely actions; otherwise the settings of the evaluation say
        how an action is chosen. Raises ConfigError for observations of other spaces, NumericError
        if the model's logits are not finite.
        """
        tensors, is_batched = self._tensors(observation)
        logits = self._policy.act(tensors, as_tensor(self._time, self._device))
        select = greedy if deterministic else self._select_action
        draws = uniform(self._keys, self._step)
        self._action = select(allowed_logits(logits, self._mask), draws)
        self._step += 1
        return self._action if is_batched else int(self._action[0])

    @torch.inference_mode()
    def observe(self, reward, terminated, truncated, next_observation) -> None:
        """Take note of the outcome of the last `act`, [N, ...] each, or of a single environment.

        `next_observation` is the true one, also at the end of an episode: of a vector environment
        that resets in the same step it is `info["final_obs"]` there.
        """
        if self._action is None:
            raise ConfigError("observe() comes after act()")
        outcome = (self._action, np.float32(reward), np.bool_(terminated), np.bool_(truncated))
        arrays = [np.atleast_1d(values) for values in outcome]
        tensors = [as_tensor(values, self._device) for values in arrays]
        self._policy.observe(*tensors, self._tensors(next_observation)[0])
        self._time = np.where(arrays[2] | arrays[3], 0, self._time + 1)
        self._action = None

    def sb3_model(self, env):
        """Return what Stable-Baselines3's `evaluate_policy` takes for a model, and plays in `env`.

        `env` is a gymnasium.Env or a VecEnv; pass the result's own `env` to `evaluate_policy`.
        Raises ConfigError without the extra sb3.
        """
        if text := missing("sb3"):
            raise ConfigError(f"a model of Stable-Baselines3 {text}")
        from ad.exchange.sb3 import SB3Model

        return SB3Model(self, env)

    def _tensors(self, observation) -> tuple[torch.Tensor | dict[str, torch.Tensor], bool]:
        """Return an observation as the model reads it, and whether it was batched."""
        parts = self._split(observation)
        expected = self.model.spec.observation
        is_batched = all(np.ndim(parts[name]) > len(part.shape) for name, part in expected.items())
        num_envs = len(self._keys)
        tensors = {}
        for name, part in expected.items():
            values = np.asarray(parts[name]) if is_batched else np.asarray(parts[name])[None]
            if values.shape != (num_envs, *part.shape):
                raise ConfigError(
                    f"an observation has the shape {list(values.shape)}, but the part {name!r} of "
                    f"{num_envs} environments is {part}: reset() sets their number"
                )
            tensors[name] = as_tensor(values, self._device)
        return tensors.get("", tensors), is_batched

    def _split(self, observation, name: str = "") -> dict[str, np.ndarray]:
        """Return the parts of an observation by name, as `envs.spaces.split_observation` does."""
        expected = self.model.spec.observation
        if isinstance(observation, dict | tuple):
            is_dict = isinstance(observation, dict)
            children = observation.items() if is_dict else enumerate(observation)
            parts = {}
            for key, inner in children:
                parts |= self._split(inner, f"{name}-{key}" if name else str(key))
        elif name in expected:
            return {name: observation}
        else:  # a MultiDiscrete space is read as a part for each of its numbers
            columns = np.moveaxis(np.atleast_1d(observation), -1, 0)
            parts = {f"{name}-{i}" if name else str(i): part for i, part in enumerate(columns)}
        if missing := [own for own in expected if not name and own not in parts]:
            raise ConfigError(f"the observation lacks the part {missing[0]!r} of the model's world")
        return parts
