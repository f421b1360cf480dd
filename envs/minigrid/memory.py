"""MemoryS7 with a fixed start, in which the target's side and object can be forced.

The agent sees a key or a ball next to its start, walks down a hallway, and has to turn to the side
where the same object lies. In the package's MemoryS7 it starts anywhere in the hallway, sometimes
out of sight of the first object. Settings as in `minigrid.envs.memory`, and:

target_side: upper or lower, where the matching object lies; None: drawn at each reset.
target_object: key or ball, which object is to be matched; None: drawn at each reset.
"""

from minigrid.core.world_object import Ball, Key
from minigrid.envs.memory import MemoryEnv

from envs.checks import check_choice

SIDES = ("upper", "lower")
OBJECTS = {"key": Key, "ball": Ball}
COLOR = "green"


class FixedStartMemory(MemoryEnv):
    """The memory environment, entered at the left end next to the first object, facing right.

    Raises ValueError for an unknown side or object.
    """

    def __init__(self, target_side: str | None = None, target_object: str | None = None, **kwargs):
        self.target_side = check_choice("target_side", target_side, (None, *SIDES))
        self.target_object = check_choice("target_object", target_object, (None, *OBJECTS))
        super().__init__(**kwargs)

    def _gen_grid(self, width, height):
        """Draw the package's layout, then move the start and put the forced objects in place.

        Both choices are drawn even if they are forced, so that the seeds of a reset agree.
        """
        super()._gen_grid(width, height)
        middle, end = height // 2, int(self.success_pos[0])
        self.agent_pos, self.agent_dir = (1, middle), 0
        drawn_side = "upper" if self.success_pos[1] < middle else "lower"
        drawn = self.grid.get(1, middle - 1)
        assert drawn is not None  # the package has put the object there
        target = self.target_object or drawn.type
        is_upper = (self.target_side or drawn_side) == "upper"
        other = next(name for name in OBJECTS if name != target)
        upper, lower = (target, other) if is_upper else (other, target)
        self.grid.set(1, middle - 1, OBJECTS[target](COLOR))
        self.grid.set(end, middle - 2, OBJECTS[upper](COLOR))
        self.grid.set(end, middle + 2, OBJECTS[lower](COLOR))
        sides = (end, middle - 1), (end, middle + 1)
        self.success_pos, self.failure_pos = sides if is_upper else sides[::-1]
