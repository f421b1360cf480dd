"""Wrappers for the length of episodes: truncate at the limit, report the time, reset.

`info["time"]` is the number of steps taken in the episode that the returned observation belongs to,
0 at its start. A step never is both terminated and truncated: one that terminates at the limit, or
that the environment itself calls both, is terminated only. Gymnasium's TimeLimit sets both flags.
"""

import inspect
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorWrapper

from envs.checks import check_actions

if TYPE_CHECKING:
    from envs.gymnasium_vec import GymnasiumVectorEnv
    from envs.world import World

NO_LIMIT = np.iinfo(np.int64).max


def _limit(episode_length: int | None) -> int:
    """Return the step that truncates; ValueError unless None or a positive integer."""
    if episode_length is None:
        return NO_LIMIT
    if type(episode_length) is not int or episode_length < 1:
        raise ValueError(f"episode_length must be a positive integer, got {episode_length!r}")
    return episode_length


class EpisodeLength(gymnasium.Wrapper, RecordConstructorArgs):
    """Truncate an environment's episodes after `episode_length` steps (None: never)."""

    def __init__(self, env: gymnasium.Env, episode_length: int | None):
        RecordConstructorArgs.__init__(self, episode_length=episode_length)
        gymnasium.Wrapper.__init__(self, env)
        self.episode_length, self._limit, self._time = episode_length, _limit(episode_length), 0

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        """Begin an episode at time 0."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._time = 0
        return observation, {**info, "time": 0}

    def step(self, action):
        """Take one step; `info["time"]` counts it."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._time += 1
        truncated = (truncated or self._time >= self._limit) and not terminated
        return observation, reward, terminated, truncated, {**info, "time": self._time}


@runtime_checkable
class Restorable(Protocol):
    """An environment whose state, arrays by name, can be returned and set."""

    def state(self) -> dict[str, np.ndarray]: ...

    def restore(self, state: dict[str, np.ndarray]) -> None: ...


@runtime_checkable
class Masked(Protocol):
    """An environment whose tasks may lack actions: `check_masks` refuses these for `envs`."""

    def check_masks(self, actions: np.ndarray, envs: np.ndarray) -> None: ...


class VectorEpisodeLength(VectorWrapper):
    """Truncate the episodes of N environments, report their time, int64 [N], and reset them.

    The wrapped environment must not reset itself (autoreset mode DISABLED) and must take a reset
    mask. `autoreset_mode` (the enum or its value) says when an environment is reset after its
    episode has ended:

    SAME_STEP  In the same step, which returns the first observation of the next episode. The infos
               of a step in which any episode ended hold "final_obs" (for the other environments
               their observation), its mask "_final_obs", and "final_info":
               {"time": int64 [N], "_time": mask} with the mask "_final_info".
    NEXT_STEP  In the next step, which ignores the environment's action and returns the first
               observation, reward 0 and no flag. The wrapped `step` must take `active` (see
               World.step).
    DISABLED   By the caller, with `options["reset_mask"]`. Before that a step raises
               gymnasium.error.ResetNeeded.
    """

    def __init__(
        self,
        env: "World | GymnasiumVectorEnv",
        episode_length: int | None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ):
        super().__init__(env)
        self.world = env
        mode = AutoresetMode(autoreset_mode)
        if env.metadata.get("autoreset_mode") != AutoresetMode.DISABLED:
            raise ValueError("VectorEpisodeLength needs an environment in autoreset mode DISABLED")
        takes_active = "active" in inspect.signature(env.step).parameters
        if mode == AutoresetMode.NEXT_STEP and not takes_active:
            raise ValueError("NEXT_STEP needs an environment whose step() takes `active`")
        self.metadata = {**env.metadata, "autoreset_mode": mode}
        self.autoreset_mode, self.episode_length = mode, episode_length
        self._limit = _limit(episode_length)
        self._time, self._is_reset = np.zeros(env.num_envs, np.int64), False
        self._ended = np.zeros(env.num_envs, bool)
        self._all_envs = np.ones(env.num_envs, bool)
        self._all_envs.setflags(write=False)  # every info has it as the mask of "time"

    def reset(self, *, seed=None, options: dict | None = None):
        """Begin an episode in all environments or those of `options["reset_mask"]`, at time 0."""
        mask = (options or {}).get("reset_mask")
        if mask is not None and not self._is_reset:
            raise ResetNeeded("the first reset must be of all environments")
        observation, info = self.env.reset(seed=seed, options=options)
        if mask is None:
            self._time, self._ended = np.zeros(self.num_envs, np.int64), ~self._all_envs
            self._is_reset = True
        else:
            self._time[mask], self._ended = 0, self._ended & ~mask
        return observation, info | self._time_info()

    def step(self, actions):
        """Step the environments; reset those whose episode ends as `autoreset_mode` says."""
        if not self._is_reset:
            raise ResetNeeded("reset() comes before step()")
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            return self._same_step(*self._advance(actions))
        if not self._ended.any():
            return self._advance(actions)
        if self.autoreset_mode == AutoresetMode.DISABLED:
            ended = np.flatnonzero(self._ended).tolist()
            raise ResetNeeded(f"the episodes of environments {ended} have ended: reset them first")
        active = ~self._ended
        actions = check_actions(actions, self.num_envs, self.world.unwrapped.num_actions)
        if isinstance(self.env, Masked):  # all checks come before any reset
            self.env.check_masks(actions, np.flatnonzero(active))
        self.reset(options={"reset_mask": self._ended})
        return self._advance(actions, active)

    def state(self) -> dict | None:
        """Return the state as nested dicts of arrays; None if the wrapped environment has none."""
        if not isinstance(self.env, Restorable):
            return None
        return {"time": self._time.copy(), "ended": self._ended.copy(), "world": self.env.state()}

    def restore(self, state: dict) -> None:
        """Set the state to one returned by `state`."""
        if not isinstance(self.env, Restorable):
            raise TypeError("the state of this environment cannot be restored")
        self._time, self._ended = state["time"].copy(), state["ended"].copy()
        self._is_reset = True
        self.env.restore(state["world"])

    def _advance(self, actions, active: np.ndarray | None = None):
        """Step the `active` environments (None: all), apply the limit, store which ended."""
        step = self.world.step(actions) if active is None else self.world.step(actions, active)
        observation, reward, terminated, truncated, info = step
        self._time += 1 if active is None else active
        truncated = (truncated | (self._time >= self._limit)) & ~terminated
        self._ended = terminated | truncated
        return observation, reward, terminated, truncated, info | self._time_info()

    def _same_step(self, observation, reward, terminated, truncated, info):
        """Replace final observations by the first ones of the next episodes."""
        ended = self._ended
        if ended.any():
            final = {
                "final_obs": observation,
                "_final_obs": ended,
                "final_info": {"time": info["time"], "_time": ended},
                "_final_info": ended,
            }
            observation, info = self.reset(options={"reset_mask": ended})
            info |= final
        return observation, reward, terminated, truncated, info

    def _time_info(self) -> dict:
        """Return the time as Gymnasium's vector infos have it: the values and their mask."""
        return {"time": self._time.copy(), "_time": self._all_envs}
