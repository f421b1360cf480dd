"""The rooms of hidden objects: their rules, compared with the package, and what they tell."""

import itertools

import numpy as np
import pytest
from minigrid.core.constants import COLOR_NAMES, COLORS
from minigrid.core.grid import Grid
from minigrid.core.mission import MissionSpace
from minigrid.core.world_object import Ball, Box, Key, Wall
from minigrid.minigrid_env import MiniGridEnv

import envs
from envs.minigrid import encoding, guessing, hidden_object, tiles
from envs.minigrid.hidden_object import FIRST, FORWARD, LONGEST, PICK_UP, WALL
from envs.tasks import make_split

WORLD = "HiddenObject-v0"
OBJECTS = {"key": Key, "ball": Ball, "box": Box}


def world(num_envs: int | None = None, **kwargs):
    return envs.make_base(WORLD, num_envs=num_envs, **kwargs)


class Room(MiniGridEnv):
    """The package's environment in the state of one room of a world."""

    def __init__(self, room, env: int):
        self.room, self.env = room, env
        mission_space = MissionSpace(mission_func=lambda: "")
        super().__init__(
            mission_space, room.size, agent_view_size=room.view, see_through_walls=True
        )

    def _gen_grid(self, width, height):
        self.grid = Grid(width, height)
        for x, y in itertools.product(range(width), range(height)):
            code = int(self.room._grid[self.env, x, y])
            if code == WALL:
                self.grid.set(x, y, Wall())
            elif code >= FIRST:
                kind, color = divmod(code - FIRST, 6)
                names = hidden_object.TYPES[kind], encoding.COLORS[color]
                self.put_obj(OBJECTS[names[0]](names[1]), x, y)
        self.agent_pos = tuple(self.room._position[self.env])
        self.agent_dir = int(self.room._direction[self.env])


@pytest.mark.parametrize(("size", "view"), [(7, 3), (9, 7), (11, 9), (9, 5)])
def test_views_and_moves_are_those_of_the_package(size, view):
    room = world(24, size=size, view=view, max_objects=3, direction=True)
    observation, _ = room.reset(seed=2)
    theirs = [Room(room, env) for env in range(room.num_envs)]
    expected = [env.reset()[0] for env in theirs]
    rng, running = np.random.default_rng(0), np.ones(room.num_envs, bool)
    for _ in range(60):
        for env in np.flatnonzero(running):
            np.testing.assert_array_equal(observation["image"][env], expected[env]["image"])
            assert observation["direction"][env] == expected[env]["direction"]
        actions = rng.choice(4, size=room.num_envs, p=[0.2, 0.2, 0.5, 0.1])
        observation, _, terminated, *_ = room.step(actions, running)
        for env in np.flatnonzero(running):
            expected[env], *_ = theirs[env].step(actions[env])
            assert terminated[env] == (theirs[env].carrying is not None)
            if terminated[env]:
                np.testing.assert_array_equal(observation["image"][env], expected[env]["image"])
        running &= ~terminated
    assert not running.all()


@pytest.mark.parametrize("size", [7, 9, 11])
def test_a_room_has_objects_of_different_kinds_that_do_not_touch_and_one_that_pays(size):
    most = LONGEST[size][1]
    room = world(3000, size=size, max_objects=most)
    room.reset(seed=0)
    numbers = []
    for env, codes in enumerate(room._grid):
        x, y = np.nonzero(codes >= FIRST)
        kinds = codes[x, y] - FIRST
        distance = np.maximum(abs(x[:, None] - x), abs(y[:, None] - y)) + 9 * np.eye(len(x))
        assert len(set(kinds)) == len(kinds) and distance.min() > 1
        assert room._target[env] in kinds and codes[size // 2, size // 2] == 0
        numbers.append(len(kinds))
    shares = np.bincount(numbers, minlength=most + 1)[3:] / 3000
    assert shares == pytest.approx(1 / (most - 2), abs=0.05)
    others = np.bincount(room._grid[room._grid >= FIRST] - FIRST, minlength=18)
    assert others.min() > 0.85 * others.mean() and others.max() < 1.15 * others.mean()
    assert np.bincount(room._direction).min() > 650


def test_picking_up_ends_the_episode_and_pays_for_one_kind_only():
    room = world(2000)
    room.reset(seed=1)
    rng, paid, picked = np.random.default_rng(0), 0, 0
    for _ in range(30):
        front = room._position + hidden_object.DIRECTIONS[room._direction]
        codes = room._grid[np.arange(2000), front[:, 0], front[:, 1]]
        actions = rng.choice(4, size=2000, p=[0.2, 0.2, 0.4, 0.2])
        before = room._position.copy()
        _, reward, terminated, truncated, _ = room.step(actions)
        takes = (actions == PICK_UP) & (codes >= FIRST)
        np.testing.assert_array_equal(terminated, takes)
        np.testing.assert_array_equal(reward, takes & (codes - FIRST == room._target))
        blocked = (actions == FORWARD) & (codes != 0)
        np.testing.assert_array_equal(room._position[blocked], before[blocked])
        assert reward.dtype == np.float32 and not truncated.any()
        paid, picked = paid + reward.sum(), picked + takes.sum()
        if terminated.any():
            room.reset(options={"reset_mask": terminated})
    assert 0.15 < paid / picked < 0.4


def test_the_tasks_are_eighteen_kinds_of_which_a_split_holds_out_a_third():
    room = world()
    tasks = room.all_tasks()
    assert tasks.shape == (18, 2) and len(set(room.names(tasks))) == 18
    assert room.names([[1, 1], [2, 5]]) == ["green ball", "grey box"]
    split = make_split(WORLD, {}, 0, 12)
    assert len(split.held_out_tasks) == 6
    assert room.success(np.array([0.0, 1.0])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("settings", "limit", "known"),
    [
        ({}, 13, True),
        ({}, 12, False),
        ({"view": 5}, 50, False),
        ({"size": 7, "max_objects": 3, "view": 5}, 10, True),
        ({"size": 11}, 50, False),
        ({"size": 11, "view": 9}, 15, True),
    ],
)
def test_the_optimal_return_is_one_where_every_room_can_be_seen_and_solved(settings, limit, known):
    room = world(**settings)
    best = room.optimal_return([[0, 0], [2, 5]], limit)
    assert best.tolist() == [1, 1] if known else best is None
    assert bool(room.references(room.all_tasks(), limit, 5)) == known


def steps_to_each(free: np.ndarray, start: tuple, direction: int) -> dict[tuple, int]:
    """The fewest steps until each cell is in front of the agent; cells of a room are `free`."""
    moves, seen = hidden_object.DIRECTIONS, {(*start, direction): 0}
    queue, faced = [(*start, direction)], {}
    for x, y, d in queue:
        front = (x + moves[d][0], y + moves[d][1])
        faced.setdefault(front, seen[x, y, d])
        after = [(x, y, (d + 1) % 4), (x, y, (d - 1) % 4)]
        after += [(*front, d)] if free[front] else []
        for state in after:
            if state not in seen:
                seen[state] = seen[x, y, d] + 1
                queue.append(state)
    return faced


def test_no_layout_takes_longer_than_the_longest():
    size, (longest, most) = 7, LONGEST[7]
    inside = np.zeros((size, size), bool)
    inside[1:-1, 1:-1] = True
    center = size // 2, size // 2
    cells = [cell for cell in zip(*np.nonzero(inside), strict=True) if cell != center]

    def steps(layout) -> int:
        free = inside.copy()
        free[tuple(np.transpose(layout))] = False
        faced = steps_to_each(free, center, 0)  # the room looks the same from all sides
        return max(faced[cell] for cell in layout) + 1

    layouts = itertools.combinations(cells, most)
    found = [
        steps(layout) for layout in layouts if all(map(apart, itertools.combinations(layout, 2)))
    ]
    assert max(found) == longest


def apart(pair) -> bool:
    (x, y), (other_x, other_y) = pair
    return max(abs(x - other_x), abs(y - other_y)) > 1


def test_the_curves_of_guessing_agents_are_those_of_a_simulation():
    curves = guessing.curves(18, (3, 4, 5), 6)
    assert all(curve[0] == pytest.approx((1 / 3 + 1 / 4 + 1 / 5) / 3) for curve in curves.values())
    rng, runs = np.random.default_rng(0), 4000
    paid = {name: np.zeros(6) for name in curves}
    for name in curves:
        for _ in range(runs):
            possible = set(range(18))  # kind 0 pays
            for episode in range(6):
                others = rng.permutation(np.arange(1, 18))[: rng.integers(3, 6) - 1].tolist()
                present = [0, *others]
                guess = int(rng.choice([kind for kind in present if kind in possible]))
                if guess == 0:
                    paid[name][episode:] += 1
                    break
                if name != "guess until paid":
                    possible -= {guess}
                if name == "best guess":
                    possible &= set(present)
    for name, curve in curves.items():
        assert paid[name] / runs == pytest.approx(curve, abs=0.03)


def test_a_room_can_be_drawn():
    env = envs.make(WORLD, render_mode="rgb_array")
    env.reset(seed=3)
    assert env.render().shape == (9 * tiles.PIXELS, 9 * tiles.PIXELS, 3)
    assert sorted(tiles.RGB) == COLOR_NAMES
    assert {name: tuple(rgb) for name, rgb in COLORS.items()} == tiles.RGB
