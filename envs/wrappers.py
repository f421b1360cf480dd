"""Episode-length wrappers: truncate at the limit, tell the time in the episode, reset ended lanes.

Time is the number of steps taken in the episode that the returned observation belongs to: 0 at its
start, in `info["time"]`. `terminated` and `truncated` stay apart: a step that terminates at the
limit (or that the environment itself calls both) is terminated and not truncated.
"""

import inspect

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

from envs.checks import check_actions

NO_LIMIT = np.iinfo(np.int64).max


def _limit(episode_length: int | None) -> int:
    """The step at which an episode is cut; ValueError unless a positive integer or None."""
    if episode_length is None:
        return NO_LIMIT
    if type(episode_length) is not int or episode_length < 1:
        raise ValueError(f"episode_length must be a positive integer, got {episode_length!r}")
    return episode_length


class EpisodeLength(gymnasium.Wrapper, RecordConstructorArgs):
    """Truncate a single environment after `episode_length` steps (None: never); tell the time."""

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


class VectorEpisodeLength(VectorWrapper):
    """Truncate the lanes of a batch, tell their time (int64 [N]), and reset the ended lanes.

    The inner environment resets nothing itself (autoreset mode DISABLED) and takes masked resets;
    `autoreset_mode` (the enum or its value) says what this wrapper does about ended lanes:

    SAME_STEP  The step that ends a lane returns its next first observation. Where any lane ended,
               infos hold "final_obs" (dense int64 [N]: for the other lanes their observation), the
               mask "_final_obs" and "final_info": {"time": int64 [N], "_time": mask}, with its own
               mask "_final_info".
    NEXT_STEP  The step after the end ignores the lane's action and returns the first observation,
               reward 0, no flag. The inner `step` must know `active` (see GridWorld.step).
    DISABLED   The caller resets ended lanes with `options["reset_mask"]`; stepping one that has
               ended raises gymnasium.error.ResetNeeded.
    """

    def __init__(
        self,
        env: VectorEnv,
        episode_length: int | None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
    ):
        super().__init__(env)
        mode = AutoresetMode(autoreset_mode)
        if env.metadata.get("autoreset_mode") != AutoresetMode.DISABLED:
            raise ValueError("VectorEpisodeLength needs an environment in autoreset mode DISABLED")
        takes_active = "active" in inspect.signature(env.step).parameters
        if mode == AutoresetMode.NEXT_STEP and not takes_active:
            raise ValueError("NEXT_STEP needs an environment whose step() takes `active`")
        self.metadata = {**env.metadata, "autoreset_mode": mode}
        self.autoreset_mode, self.episode_length = mode, episode_length
        self._limit = _limit(episode_length)
        self._time: np.ndarray | None = None  # [N], None before the first reset
        self._ended = np.zeros(env.num_envs, bool)
        self._every_lane = np.ones(env.num_envs, bool)
        self._every_lane.setflags(write=False)  # handed out at every step as the mask of "time"

    def reset(self, *, seed=None, options: dict | None = None):
        """Begin an episode in all lanes or those of `options["reset_mask"]`, at time 0."""
        observation, info = self.env.reset(seed=seed, options=options)
        mask = (options or {}).get("reset_mask")
        if mask is None:
            self._time, self._ended = np.zeros(self.num_envs, np.int64), ~self._every_lane
        else:
            self._time[mask], self._ended = 0, self._ended & ~mask
        return observation, info | self._time_info()

    def step(self, actions):
        """Step every lane and treat those that end as `autoreset_mode` says."""
        if self._time is None:
            raise ResetNeeded("reset() comes before step()")
        if self.autoreset_mode == AutoresetMode.SAME_STEP:
            return self._same_step(*self._advance(actions))
        if not self._ended.any():
            return self._advance(actions)
        if self.autoreset_mode == AutoresetMode.DISABLED:
            lanes = np.flatnonzero(self._ended).tolist()
            raise ResetNeeded(f"the episodes of lanes {lanes} have ended: reset them first")
        check_actions(actions, self.num_envs, self.single_action_space.n)  # before lanes change
        active = ~self._ended
        self.reset(options={"reset_mask": self._ended})
        return self._advance(actions, active)

    def state(self) -> dict | None:
        """All that the lanes' future depends on, as arrays; None for a world that cannot tell."""
        if not hasattr(self.env, "state"):
            return None
        return {"time": self._time.copy(), "ended": self._ended.copy(), "world": self.env.state()}

    def restore(self, state: dict) -> None:
        """Go on from what `state` of such a batch gave."""
        self._time, self._ended = state["time"].copy(), state["ended"].copy()
        self.env.restore(state["world"])

    def _advance(self, actions, active: np.ndarray | None = None):
        """One step of the `active` lanes (None: all), the limit applied; notes which ended."""
        step = self.env.step(actions) if active is None else self.env.step(actions, active)
        observation, reward, terminated, truncated, info = step
        self._time += 1 if active is None else active
        truncated = (truncated | (self._time >= self._limit)) & ~terminated
        self._ended = terminated | truncated
        return observation, reward, terminated, truncated, info | self._time_info()

    def _same_step(self, observation, reward, terminated, truncated, info):
        """Replace the observations of ended lanes by the first ones of their next episodes."""
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
        """The time of each lane as Gymnasium's vector infos have it: the values and their mask."""
        return {"time": self._time.copy(), "_time": self._every_lane}
