"""A mixture of MiniGrid environments: each reset draws one of its members.

Which member it is, and its layout, depend only on the seed of the reset; a reset without a seed
draws one from the environment's own stream. An action that a member does not have is its first one.
"""

import gymnasium
from gymnasium.spaces import Discrete

from envs.minigrid.make import make_plain
from envs.minigrid.missions import time_limit
from envs.spaces import check_action_space


class Mixture(gymnasium.Env):
    """An environment that is another one in each episode.

    members: ids, or dicts of an `id` and its keyword arguments; drawn with equal probability.
    max_steps: the time limit of every member; None: each has its own.
    `member` is the one of this episode, and `max_steps` the largest limit of all. Raises ValueError
    for an empty list or a member that cannot be made.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(
        self, members: list, agent_view_size: int = 7, max_steps: int | None = None, **kwargs
    ):
        if not isinstance(members, list | tuple) or not members:
            raise ValueError("members must be a list of ids, or of dicts with an id")
        given: list[dict] = [{"id": one} if isinstance(one, str) else dict(one) for one in members]
        if max_steps is not None:
            given = [{"max_steps": max_steps, **one} for one in given]
        if missing := [one for one in given if "id" not in one]:
            raise ValueError(f"a member of a mixture needs an id: {missing[0]}")
        made = [make_plain(one["id"], agent_view_size, **{**kwargs, **one}) for one in given]
        self.members, self.member = made, made[0]
        self.max_steps = max(time_limit(one.unwrapped) for one in made)
        self.observation_space = made[0].observation_space
        self.action_space = Discrete(
            max(int(check_action_space(one.action_space).n) for one in made)
        )

    def reset(self, *, seed=None, options=None):
        """Draw a member and begin an episode of it."""
        super().reset(seed=seed)
        self.member = self.members[int(self.np_random.integers(len(self.members)))]
        return self.member.reset(seed=int(self.np_random.integers(2**31)), options=options)

    def step(self, action):
        """Take one step in the member of this episode."""
        num_actions = check_action_space(self.member.action_space).n
        return self.member.step(action if action < num_actions else 0)

    def render(self):
        """Draw the member of this episode, uint8 [H, W, 3]."""
        return self.member.render()

    def close(self):
        """Close all members."""
        for member in self.members:
            member.close()
