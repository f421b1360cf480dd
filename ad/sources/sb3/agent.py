"""One agent of Stable-Baselines3 that is stepped from outside while its `learn` runs."""

import io
import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import sb3_contrib
import stable_baselines3
import torch
from sb3_contrib import RecurrentPPO
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from ad.errors import ADError, ConfigError, CorruptError, NumericError, SettingError
from ad.sources.sb3.policies import Spaces, checkpoint, make_algorithm
from ad.sources.sb3.settings import SB3Settings
from ad.sources.sb3.stepped_thread import RNGSwap, SteppedThread, get_generators, set_generators
from envs.rng import derive_key
from envs.spaces import Part

STATISTICS = {"DQN": ("loss",), "QRDQN": ("loss",), "TRPO": ("value_loss",)}  # in the library's log
VERSIONS = {
    "torch": str(torch.__version__),
    "stable_baselines3": stable_baselines3.__version__,
    "sb3_contrib": sb3_contrib.__version__,
}
COUNTS = ("num_timesteps", "_n_updates")  # of an agent between two rollouts


class ExternalVecEnv(Spaces):
    """Environments whose steps are taken by the source: a step asks for its outcome."""

    ask: Callable[[np.ndarray], Any]  # set by the agent
    first = None  # the observation before the first step

    def reset(self):
        """Return the observation before the first step: the source resets its environments."""
        return self.first

    def step_async(self, actions):
        """Keep the actions for `step_wait`."""
        self.actions = actions

    def step_wait(self):
        """Ask for the outcome of the actions."""
        return self.ask(self.actions)


class Rollouts(BaseCallback):
    """Notes the state of the random generators where a rollout begins."""

    def _on_rollout_start(self) -> None:
        self.generators = get_generators()

    def _on_step(self) -> bool:
        return True


class Agent:
    """The agent of one task, with N environments and `num_actions` actions.

    `actions`, int [N], are the next ones; `advance` takes their outcome. `rng_swap` is shared with
    the other agents. What it draws depends on its `key` only.
    """

    def __init__(
        self,
        settings: SB3Settings,
        num_envs: int,
        parts: dict[str, Part],
        num_actions: int,
        key: int,
        rng_swap: RNGSwap,
    ):
        self.settings, self.rng_swap = settings, rng_swap
        self.thread: SteppedThread | None = None
        self.env, self.callback = ExternalVecEnv(num_envs, parts, num_actions), Rollouts()
        outside = get_generators()
        try:
            self.model = make_algorithm(settings, self.env, derive_key(key, "agent") % 2**31)
            self.callback.generators = get_generators()
        finally:
            set_generators(outside)
        self.model.set_logger(Logger(None, []))  # by default each agent leaves a folder in /tmp
        self.rollout_length = self.model.n_steps if isinstance(self.model, OnPolicyAlgorithm) else 1
        self.statistics = STATISTICS.get(settings.algorithm, ("value_loss", "entropy_loss"))
        self.log: dict[str, float] = {}  # the last entries of the library's log
        self.actions = np.zeros(num_envs, np.int64)

    def start(self, observation: dict[str, np.ndarray], starts: np.ndarray, steps: int) -> None:
        """Begin to learn, or resume: `steps` of each environment in all.

        `observation` are the parts, arrays [N, ...], `starts` bool [N]: episodes that begin.
        """
        model, self.env.first = self.model, self.env.observation(observation)
        left, is_new = steps * self.env.num_envs - model.num_timesteps, model.num_timesteps == 0
        if not is_new:
            assert model.env is not None  # it was made with one
            model._last_obs, model._last_episode_starts = model.env.reset(), starts

        def learn(ask) -> None:
            self.env.ask = ask
            # ty: ignore[invalid-argument-type] None is for no log, which the annotation leaves out
            model.learn(left, self.callback, log_interval=None, reset_num_timesteps=is_new)

        self.thread = SteppedThread(learn, self.callback.generators, self.rng_swap)
        self.actions = self._turn(self.thread.start)

    def advance(
        self,
        observation: dict[str, np.ndarray],
        final: dict[str, np.ndarray],
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
    ) -> None:
        """Pass on what followed the actions, arrays [N, ...]; run up to the next ones.

        `observation` are the parts after resets, `final` the parts of the next observation before.
        """
        ended = terminated | truncated
        infos: list[dict] = [{} for _ in ended]
        last = self.env.observation(final) if ended.any() else {}
        for n in np.flatnonzero(ended):
            whole = not isinstance(last, dict)
            own = last[n] if whole else {name: part[n] for name, part in last.items()}
            infos[n] = {"terminal_observation": own, "TimeLimit.truncated": bool(truncated[n])}
        # A copy: Stable-Baselines3 adds the value of a final observation to the reward.
        outcome = self.env.observation(observation), reward.copy(), ended, infos
        assert self.thread is not None  # `start` comes first
        self.actions = self._turn(partial(self.thread.advance, outcome))

    def _turn(self, turn: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the actions that a turn ends with; None after the last one."""
        try:
            return turn()
        except Exception as error:  # the library's, for settings or values that it cannot use
            raise failure(self.settings, self.model, error) from error

    def close(self) -> None:
        """End `learn`, if it still runs."""
        if self.thread is not None:
            self.thread.close()

    def statistic(self, name: str) -> float:
        """Return the last value of a name in the library's log; NaN before the first update."""
        self.log |= self.model.logger.name_to_value
        return float(self.log.get(f"train/{name}", math.nan))

    def checkpoint(self) -> bytes:
        """Return the present policy as the bytes of a file."""
        return checkpoint(self.settings, self.model.policy)

    def state(self) -> dict[str, np.ndarray] | None:
        """Return the state before a rollout, as one array of bytes; None for a replay buffer."""
        if not isinstance(self.model, OnPolicyAlgorithm):
            return None
        model, generators = self.model, self.callback.generators
        memory = getattr(model, "_last_lstm_states", None)
        numpy_state = generators["numpy"]
        saved = {
            "versions": VERSIONS,
            "counts": {name: getattr(model, name) for name in COUNTS},
            "policy": model.policy.state_dict(),
            "optimizer": model.policy.optimizer.state_dict(),
            "memory": memory and [list(states) for states in memory],
            "torch": generators["torch"],
            "numpy": (torch.from_numpy(numpy_state["state"]["key"]), numpy_state["state"]["pos"]),
            "log": {name: float(value) for name, value in self.log.items()},
        }
        buffer = io.BytesIO()
        torch.save(saved, buffer)
        return {"bytes": np.frombuffer(buffer.getvalue(), np.uint8)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Set the state to one returned by `state`.

        Raises CorruptError if other versions of the libraries made it.
        """
        saved = torch.load(io.BytesIO(state["bytes"].tobytes()), weights_only=True)
        if saved["versions"] != VERSIONS:
            raise CorruptError(f"its state is of other versions ({saved['versions']})")
        model, self.log = self.model, saved["log"]
        for name, value in saved["counts"].items():
            setattr(model, name, value)
        model.policy.load_state_dict(saved["policy"])
        model.policy.optimizer.load_state_dict(saved["optimizer"])
        if saved["memory"] and isinstance(model, RecurrentPPO):
            model._last_lstm_states = RNNStates(*(tuple(states) for states in saved["memory"]))
        self.callback.generators["torch"] = saved["torch"]
        key, position = saved["numpy"]
        self.callback.generators["numpy"]["state"] = {"key": key.numpy(), "pos": position}


def failure(settings: SB3Settings, model: BaseAlgorithm, error: Exception) -> ADError:
    """Return the expected failure that an `error` of the library is: numeric or of the settings."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    failed = f"{settings.algorithm} failed after {model.num_timesteps} env steps"
    if not all(values.isfinite().all() for values in model.policy.parameters()):
        return NumericError(f"{failed}: its policy is not finite any more")
    return ConfigError(f"{failed}: {reason}")


def check_agent(settings: SB3Settings, env: Spaces, setting: str) -> None:
    """Raise SettingError about `setting` if `settings` make no agent with the spaces of `env`."""
    outside = get_generators()
    try:
        with warnings.catch_warnings(action="ignore"):
            make_algorithm(settings, env)
    except ValueError as error:
        text = f"cannot make an agent of Stable-Baselines3: {error}"
        raise SettingError(setting, text) from error
    finally:
        set_generators(outside)
