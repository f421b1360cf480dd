"""The water maze: its rules, and the facts about its platforms."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import envs
from envs.render import pool_frames

WORLD = "WaterMaze-v0"


def world(num_envs: int | None = None, **kwargs):
    return envs.make_base(WORLD, num_envs=num_envs, **kwargs)


class Pool:
    """One environment, by the definition."""

    def __init__(self, pool, env: int, observation):
        self.pool, self.platform = pool, pool.platforms(pool.tasks)[env].tolist()
        self.begin(observation)

    def begin(self, observation):
        x, y, cosine, sine = map(float, observation)
        self.x, self.y = x, y
        self.heading = round(math.atan2(sine, cosine) / (2 * math.pi) * self.pool.headings)

    def step(self, action: int) -> tuple[list, float]:
        """Return the observation and the distance to the platform after a step."""
        self.heading = action if self.pool.steering == "set" else self.heading + 1 - action
        angle = 2 * math.pi * self.heading / self.pool.headings
        self.x += self.pool.stroke * math.cos(angle)
        self.y += self.pool.stroke * math.sin(angle)
        outside = max(math.hypot(self.x, self.y), 1)
        self.x, self.y = self.x / outside, self.y / outside
        distance = math.dist((self.x, self.y), self.platform)
        return [self.x, self.y, math.cos(angle), math.sin(angle)], distance


@settings(max_examples=40, deadline=None)
@given(
    headings=st.integers(4, 16),
    steering=st.sampled_from(["set", "turn"]),
    start=st.sampled_from(["rim", "center"]),
    stroke=st.floats(0.05, 0.2),
    seed=st.integers(0, 10**6),
)
def test_a_batch_swims_as_single_pools_do_by_the_definition(
    headings, steering, start, stroke, seed
):
    pool = world(20, headings=headings, steering=steering, start=start, stroke=stroke)
    rng = np.random.default_rng(seed)
    observation, _ = pool.reset(seed=seed)
    radius = np.hypot(observation[:, 0], observation[:, 1])
    assert radius == pytest.approx(1 if start == "rim" else 0, abs=1e-6)
    theirs = [Pool(pool, env, observation[env]) for env in range(20)]
    for _ in range(40):
        actions = rng.integers(pool.single_action_space.n, size=20)
        observation, reward, terminated, truncated, _ = pool.step(actions)
        np.testing.assert_array_equal(reward, terminated)
        for env, one in enumerate(theirs):
            expected, distance = one.step(int(actions[env]))
            assert observation[env] == pytest.approx(expected, abs=1e-5)
            if abs(distance - pool.platform_radius) > 1e-5:  # float32 starts
                assert terminated[env] == (distance < pool.platform_radius)
        assert observation in pool.observation_space and not truncated.any()
        if terminated.any():
            observation, _ = pool.reset(options={"reset_mask": terminated})
            for env in np.flatnonzero(terminated):
                theirs[env].begin(observation[env])


def test_rim_starts_are_uniform_and_so_are_first_headings():
    observation, _ = world(tasks=[[0]] * 8000).reset(seed=0)
    for x, y in (observation[:, :2].T, observation[:, 2:].T):
        octant = np.round(np.arctan2(y, x) / (2 * np.pi) * 8).astype(int) % 8
        assert abs(np.bincount(octant, minlength=8) - 1000).max() < 3 * 30


def test_platforms_are_places_in_the_pool_that_depend_on_their_number_only():
    many, few = world(num_tasks=3000), world(num_tasks=5)
    places = many.platforms(many.all_tasks())
    np.testing.assert_array_equal(few.platforms(few.all_tasks()), places[:5])
    distance = np.hypot(*places.T)
    assert distance.max() <= 1 - many.platform_radius
    inner = (distance <= 0.4).mean()  # a quarter of the area where centers may lie
    assert inner == pytest.approx(0.25, abs=3 * math.sqrt(0.25 * 0.75 / 3000))
    assert few.names([[3]])[0].startswith("3 at (") and len(set(few.names(few.all_tasks()))) == 5


@pytest.mark.parametrize("start", ["rim", "center"])
@pytest.mark.parametrize("headings", [4, 8, 13])
@pytest.mark.parametrize(("stroke", "radius"), [(0.15, 0.2), (0.2, 0.2), (0.05, 0.1)])
def test_swimming_toward_a_platform_takes_at_most_the_bound(start, headings, stroke, radius):
    kwargs = {"headings": headings, "start": start, "stroke": stroke, "platform_radius": radius}
    tasks = np.repeat(world().all_tasks(), 10, axis=0)
    pool = world(tasks=tasks, **kwargs)
    observation, _ = pool.reset(seed=1)
    most, running = pool.most_strokes(tasks), np.ones(len(tasks), bool)
    for step in range(1, most.max() + 1):
        x, y = (pool.platforms(tasks) - observation[:, :2]).T
        actions = np.round(np.arctan2(y, x) / (2 * np.pi) * headings).astype(int) % headings
        observation, _, terminated, *_ = pool.step(actions, running)
        running &= ~terminated
        assert not (running & (step >= most)).any()
    lower = np.hypot(*pool.platforms(tasks).T) + (start == "rim") - radius
    assert (most >= lower / stroke - 1e-9).all()


def test_the_optimal_return_is_known_where_the_bound_is_within_the_limit():
    pool = world()
    tasks = pool.all_tasks()
    most = int(pool.most_strokes(tasks).max())
    assert pool.optimal_return(tasks, most).tolist() == [1] * 200
    assert pool.optimal_return(tasks, most - 1) is None
    assert pool.optimal_return(tasks, None).tolist() == [1] * 200
    assert world(steering="turn").optimal_return(tasks, 1000) is None
    assert pool.success(np.array([0.0, 1.0])).tolist() == [False, True]


def test_frames_show_pool_platform_path_and_swimmer():
    pool = world()
    seen = np.zeros((4, 4), np.float32)
    seen[:, 0] = [-0.9, -0.6, -0.3, 0]
    frames = pool.frames((7,), {"observation": seen[:-1], "next_observation": seen[1:]})
    assert frames.shape == (4, 192, 192, 3) and frames.dtype == np.uint8
    frames = pool_frames(seen[:, :2], np.array([0.0, 0.5]), 0.2)
    colors = [frames[:, row, column] for row, column in ((96, 14), (50, 96), (0, 0), (150, 96))]
    start, platform, outside, water = colors
    assert (start[0] != start[3]).any() and (start[3] != water[3]).any()  # the path stays
    assert (platform[0] != water[0]).any() and (platform[0] == platform[3]).all()
    assert (outside[0] != water[0]).any()
    over = pool_frames(np.array([[0.0, 0.5]]), np.array([0.0, 0.5]), 0.2)
    assert (over[0, 38, 96] != frames[0, 38, 96]).any()  # found
