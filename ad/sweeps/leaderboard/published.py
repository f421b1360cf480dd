"""Published results that stand beside the leaderboard's own, and how they were obtained."""

from dataclasses import dataclass
from pathlib import Path

from ad.sweeps.files import read_lines
from ad.sweeps.leaderboard.plan import LeaderboardConfig, check_titles


@dataclass(frozen=True)
class Published:
    """A published result: text, as it is printed beside a world's own scores."""

    world: str  # the title of the world in leaderboard.yaml
    method: str
    value: str
    metric: str
    budget: str
    regime: str  # offline or online
    labels: str  # none or optimal actions
    read: str  # text, vector figure or pixel figure
    source: str
    difference: str  # of the protocol


def read_published(path: Path, plan: LeaderboardConfig) -> list[Published]:
    """Return the lines of a CSV file, none without a file, for the worlds of `plan`.

    Raises ConfigError for a wrong line.
    """
    lines = read_lines(path, Published)
    check_titles(f"{path}: the leaderboard", [line.world for line in lines], plan.worlds)
    return lines
