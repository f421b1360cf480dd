"""Schedules of settings that change over a history."""

import numpy as np


def linear(start, end, fraction, progress: float):
    """Return the value after a share `progress` of the steps: from `start` linearly to `end`.

    `end` is reached after a share `fraction` of the steps and kept. The first three are numbers or
    arrays of one shape, and so is the result.
    """
    return start + (end - start) * np.minimum(progress / fraction, 1.0)
