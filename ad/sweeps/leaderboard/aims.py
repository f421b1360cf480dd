"""What the leaderboard is to show: for a world and a score, an aim and the best result so far."""

from dataclasses import dataclass
from pathlib import Path

from ad.errors import ConfigError
from ad.reporting.tables import UNKNOWN, Table, number
from ad.sweeps.files import read_lines
from ad.sweeps.leaderboard.plan import Board
from ad.sweeps.leaderboard.scores import (
    METRICS,
    OTHER_SCORES,
    Records,
    column_of,
    mean_text,
    values_of,
)
from ad.sweeps.records import CURVE_EPISODES
from envs.registry import did_you_mean

KNOWN = (*METRICS, *OTHER_SCORES, *(f"at_{episode}" for episode in CURVE_EPISODES))


@dataclass(frozen=True)
class Aim:
    """A value that the mean score of a method in a world is to reach."""

    world: str  # the title of the world in leaderboard.yaml
    score: str  # one of KNOWN
    aim: str  # a number
    methods: str  # titles with semicolons between, of which one is enough; empty: all offline ones
    note: str

    @property
    def value(self) -> float:
        """The number to reach."""
        return float(self.aim)

    def counts(self, board: Board) -> list[str]:
        """Return the methods of the board that count."""
        named = [title.strip() for title in self.methods.split(";") if title.strip()]
        offline = [title for title, method in board.methods.items() if method.regime == "offline"]
        return [title for title in board.methods if title in (named or offline)]


def read_aims(path: Path) -> list[Aim]:
    """Return the lines of a CSV file, none without a file. Raises ConfigError for a wrong line."""
    aims = read_lines(path, Aim)
    for aim in aims:
        if aim.score not in KNOWN:
            hint = did_you_mean(aim.score, KNOWN) or ""
            raise ConfigError(f"{path}: {aim.world}: {aim.score} is not a score{hint}")
        try:
            float(aim.aim)
        except ValueError:
            raise ConfigError(f"{path}: {aim.world}: {aim.aim} is not a number") from None
    return aims


def aims_table(board: Board, cells: Records, aims: list[Aim]) -> Table:
    """Return a row for each aim: its value and the best mean of the methods that count."""
    rows = []
    for aim in aims:
        made = {method: cells.get((aim.world, method), []) for method in aim.counts(board)}
        means = {m: values_of(own, aim.score) for m, own in made.items()}
        means = {m: sum(own) / len(own) for m, own in means.items() if own}
        reached = [UNKNOWN] * 4
        if means:
            best = max(means, key=means.get)
            text = mean_text(made[best], aim.score)
            verdict = "yes" if means[best] >= aim.value else "no"
            reached = [text, best, str(len(made[best])), verdict]
        by = aim.methods.replace(";", " or") or "any offline method"
        heading, style = column_of(aim.score)
        rows.append([aim.world, heading, number(aim.value, style), by, *reached, aim.note])
    headings = ["world", "score", "aim", "by", "best so far", "method", "runs", "reached", "note"]
    return Table(headings, rows)
