"""Published results that stand beside the leaderboard's own, and how they were obtained."""

import csv
from dataclasses import dataclass, fields
from pathlib import Path

from ad.errors import ConfigError


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


def read_published(path: Path) -> list[Published]:
    """Return the lines of a CSV file, none without a file. Raises ConfigError for other columns."""
    if not path.exists():
        return []
    names = [field.name for field in fields(Published)]
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != names:
            raise ConfigError(f"{path} must have the columns {', '.join(names)}")
        lines = list(reader)
    if any(None in line or None in line.values() for line in lines):
        raise ConfigError(f"{path} has a line with too few or too many cells")
    return [Published(**line) for line in lines]
