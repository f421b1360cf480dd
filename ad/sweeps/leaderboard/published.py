"""Published results that stand beside the leaderboard's own, and how they were obtained."""

from dataclasses import dataclass


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
