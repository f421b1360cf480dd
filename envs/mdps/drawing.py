"""Pictures of tabular MDPs: the states on a ring, and a bar for the reward of the last step."""

import numpy as np

from envs.render import AGENT, END, FLOOR, FOUND, GOAL, TRAIL, WALL

SIDE = 192  # pixels
RADIUS = 78  # of the ring, in pixels
BAR = 40  # pixels of the longest bar


def ring_frames(states: np.ndarray, rewards: np.ndarray, terminal: np.ndarray) -> np.ndarray:
    """Draw an episode, uint8 [T, SIDE, SIDE, 3].

    State 0 is at the top, and the others follow clockwise. Visited states are tinted, terminal ones
    are dark, the present one is blue. The bar in the center shows the reward of the last step: it
    goes up, in green, for a positive one and down, in orange, for a negative one.

    states: the present state in each frame, int [T]; rewards: that of the step before each frame,
    float [T]; terminal: bool [S].
    """
    discs = _discs(len(terminal))  # [S, SIDE, SIDE]
    blank = _draw_discs(np.full((SIDE, SIDE, 3), FLOOR, float), discs, terminal)
    longest = max(1.0, np.abs(rewards).max())
    frames = []
    for t, state in enumerate(states):
        frame = blank.copy()
        for visited in set(states[:t].tolist()) - {int(state)}:
            _blend(frame, END if terminal[visited] else TRAIL, discs[visited])
        _blend(frame, AGENT, discs[state])
        _draw_bar(frame, rewards[t] / longest)
        frames.append(np.rint(frame).astype(np.uint8))
    return np.array(frames)


def _discs(num_states: int) -> np.ndarray:
    """Return the share of each pixel that the disc of each state covers, [S, SIDE, SIDE]."""
    angle = 2 * np.pi * np.arange(num_states)[:, None, None] / num_states
    x, y = RADIUS * np.sin(angle), -RADIUS * np.cos(angle)
    offset = np.arange(SIDE) - (SIDE - 1) / 2
    size = min(0.4 * 2 * np.pi * RADIUS / num_states, 14)
    return np.clip(size + 0.5 - np.hypot(offset - x, offset[:, None] - y), 0, 1)


def _draw_discs(frame: np.ndarray, discs: np.ndarray, terminal: np.ndarray) -> np.ndarray:
    for disc, ends in zip(discs, terminal, strict=True):
        _blend(frame, END if ends else WALL, disc)
    return frame


def _draw_bar(frame: np.ndarray, share: float) -> None:
    """Draw a bar from the center up or down, `share` of BAR long, and its base line."""
    middle, end = SIDE // 2, SIDE // 2 - round(share * BAR)
    frame[min(middle, end) : max(middle, end), middle - 10 : middle + 10] = (
        FOUND if share > 0 else GOAL
    )
    frame[middle - 1 : middle + 1, middle - 16 : middle + 16] = WALL


def _blend(frame: np.ndarray, color: tuple[int, int, int], alpha: np.ndarray) -> None:
    frame += (np.array(color) - frame) * alpha[..., None]
