"""Schedules of settings that change over a history."""


def linear(start: float, end: float, fraction: float, progress: float) -> float:
    """Return the value after a share `progress` of the steps: from `start` linearly to `end`.

    `end` is reached after a share `fraction` of the steps and kept.
    """
    return start + (end - start) * min(progress / fraction, 1.0)
