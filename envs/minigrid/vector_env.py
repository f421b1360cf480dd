"""Vector environments of MiniGrid's and BabyAI's ids: tasks, masks of actions, pictures."""

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from gymnasium.vector.utils import concatenate, create_empty_array

from envs.gymnasium_vec import NO_STEP, GymnasiumVectorEnv
from envs.minigrid.drawing import draw_observation, draw_replay
from envs.minigrid.make import defaults, make, make_plain, require
from envs.minigrid.missions import Missions, members, time_limit
from envs.minigrid.observation import VIEW_KINDS, Settings
from envs.minigrid.placing import Placed
from envs.minigrid.replay import THINGS, Replayable, new_generator
from envs.spaces import check_action_space


@dataclass(frozen=True)
class Facts:
    """Facts that are the same in all layouts of an environment."""

    num_actions: int
    max_steps: int
    missions: Missions


class MiniGridVectorEnv(GymnasiumVectorEnv):
    """N MiniGrid environments; a task is a dict of settings (see `envs.minigrid`).

    All tasks of a family have the observations of `envs.minigrid.observation.Settings` and the
    largest number of actions of a task. Raises ValueError as `GymnasiumVectorEnv` does, and if the
    package is not installed.
    """

    require, single, things = staticmethod(require), staticmethod(make), THINGS
    action_names = ("turn left", "turn right", "forward", "pick up", "drop", "toggle", "done")

    @cached_property
    def max_episode_steps(self) -> int | None:
        """The time limit of the tasks, the longest if they differ; `max_steps` sets it."""
        return max(facts.max_steps for facts in self._facts)

    def success(self, returns: np.ndarray) -> np.ndarray:
        """Return whether returns are above 0: the package pays for a success, and nothing else."""
        return returns > 0

    def action_mask(self, tasks) -> np.ndarray | None:
        """Return which actions each task has, bool [K, A]; None if all have the same number."""
        num_actions = np.array([facts.num_actions for facts in self._facts])
        if len(set(num_actions)) == 1:
            return None
        return np.arange(num_actions.max()) < num_actions[self._index(tasks), None]

    def state(self) -> dict[str, np.ndarray]:
        """Return the present episodes (see `envs.minigrid.replay`): JSON as bytes, uint8 [B].

        Raises ResetNeeded before the first reset.
        """
        text = json.dumps(self._envs.call("episode"))
        return {"episodes": np.frombuffer(text.encode(), np.uint8)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Play the episodes of a `state` again, of environments with the same settings and tasks.

        This takes as many steps as the longest episode has. Raises ValueError if the environments
        are in another state afterwards, e.g. with another version of the package.
        """
        episodes = json.loads(state["episodes"].tobytes())
        generators = [new_generator(episode["generator"]) for episode in episodes]
        self._envs.set_attr("np_random", generators)
        self._envs.reset()
        actions = [episode["actions"] for episode in episodes]
        # The shorter ones wait first: the last step is that of all, as it was when they were saved.
        for t in range(-max(map(len, actions)), 0):
            self._envs.step(np.array([own[t] if len(own) >= -t else NO_STEP for own in actions]))
        if list(self._envs.call("episode")) != episodes:
            raise ValueError("the episodes that were played again are not those that were saved")

    def put(self, thing: str, x: int, y: int):
        """Put one of `things` into the cell (x, y) of the grids, and return the observations.

        Raises ValueError where `Replayable.put` does.
        """
        observed, space = self._envs.call("put", thing, x, y), self.single_observation_space
        return concatenate(space, observed, create_empty_array(space, self.num_envs))

    def grid_shape(self) -> tuple[int, int]:
        """Return the (width, height) of the grid of the first environment, in cells."""
        return self._envs.call("shape")[0]

    def draw(self) -> np.ndarray:
        """Draw the whole grid of the first environment as it is now, uint8 [H, W, 3]."""
        return self._envs.call("draw")[0]

    def frames(self, task, transitions: dict[str, np.ndarray]) -> np.ndarray | None:
        """Draw one episode, uint8 [T + 1, H, W, 3].

        A task with a seed is played again: the whole grid is drawn, if the replay observes what was
        recorded. Otherwise the layout is unknown, and the recorded observations are drawn.
        """
        index = int(self._index([task])[0])
        settings, _ = Settings.take(self._settings(index))
        parts = ("-image", "") if settings.direction or settings.mission else ("",)
        before, after = (
            next(transitions[role + part] for part in parts if role + part in transitions)
            for role in ("observation", "next_observation")
        )
        images = np.concatenate([before, after[-1:]])
        if settings.seed is not None:
            drawn = draw_replay(self._make(index), images, transitions["action"])
            if drawn is not None:
                return drawn
        return draw_observation(images, settings)

    @cached_property
    def observes_view(self) -> bool:
        """Whether all tasks observe the cells of the agent's own view, as numbers or one-hot."""
        settings = map(self._settings, range(len(self.task_kwargs)))
        return all(Settings.take(own)[0].observation in VIEW_KINDS for own in settings)

    def placed(self, task, seed: int) -> Placed:
        """Return the grid of a task, int [1], in which agent and balls can be put anywhere."""
        return Placed(self._make(int(self._index([task])[0])), seed)

    def _settings(self, task: int) -> dict:
        """Return all keyword arguments of a task, given by its index."""
        return {**defaults(self.env_id), **super()._settings(task)}

    def _make(self, task: int):
        """Make one environment of a task with the missions and actions of the family."""
        missions = Missions.union([facts.missions for facts in self._facts])
        num_actions = max(facts.num_actions for facts in self._facts)
        shared = {"missions": missions, "num_actions": num_actions}
        return Replayable(self.single(self.env_id, **shared, **self._settings(task)))

    @cached_property
    def _facts(self) -> list[Facts]:
        """The facts about each task; tasks that differ in their seed share them."""
        known, facts = {}, []
        for task in range(len(self.task_kwargs)):
            settings, others = Settings.take(self._settings(task))
            key = json.dumps([settings.view, settings.mission, others], sort_keys=True, default=str)
            if key not in known:
                known[key] = self._find_facts(settings, others)
            facts.append(known[key])
        return facts

    def _find_facts(self, settings: Settings, others: dict) -> Facts:
        env = make_plain(self.env_id, settings.view, **others)
        limit = max(map(time_limit, members(env)))
        missions = Missions.find(env, settings.mission)
        env.close()
        return Facts(int(check_action_space(env.action_space).n), limit, missions)
