"""Frames of rooms."""

import numpy as np

import envs
from envs.render import room_frames


def test_frames_show_the_agent_the_goal_and_the_trail():
    frames = room_frames((3, 3), np.array([4, 1, 0]), goal=(0, 0), pixels=8)
    assert frames.shape == (3, 24, 24, 3) and frames.dtype == np.uint8
    middle = frames[:, 4::8, 4::8]  # the middle of each cell, [T, 3, 3, 3]
    assert (middle[0, 1, 1] == middle[1, 0, 1]).all()  # the agent, wherever it is
    assert (middle[1, 1, 1] == middle[2, 0, 1]).all()  # the trail behind it
    assert (middle[0, 2, 2] == middle[2, 2, 2]).all()  # floor that is not visited
    corner = frames[:, 1:8, 1:8]
    assert (corner[0] == corner[1]).all() and (corner[1] != corner[2]).any()  # found: it changes


def test_a_frame_has_at_most_288_pixels_along_a_side():
    sizes = {9: (288, 288), 20: (280, 280), (40, 20): (280, 140), 181: (181, 181)}
    for size, shape in sizes.items():
        env = envs.make("DarkRoom-v0", size=size, render_mode="rgb_array")
        env.reset()
        assert env.render().shape == (*shape, 3)


def test_a_room_need_not_be_square():
    frames = room_frames((2, 3), np.array([0, 1, 4]), goal=(0, 2), pixels=8)
    assert frames.shape == (3, 16, 24, 3)
    assert (frames[2, 12, 12] == frames[1, 4, 12]).all()  # the agent
