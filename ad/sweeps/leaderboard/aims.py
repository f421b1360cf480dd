"""Aims of the leaderboard: for a world and a score, the number to reach and the best so far."""

from dataclasses import dataclass
from pathlib import Path

from ad.errors import ConfigError
from ad.evaluation.metrics import t_interval
from ad.reporting.tables import UNKNOWN, Table, number
from ad.sweeps.files import read_lines
from ad.sweeps.leaderboard.plan import Board, LeaderboardConfig, check_titles
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
    methods: str  # titles with semicolons between; empty: all offline ones without labels
    note: str

    @property
    def value(self) -> float:
        """The number to reach."""
        return float(self.aim)

    @property
    def named(self) -> list[str]:
        """The titles of `methods`."""
        return [title.strip() for title in self.methods.split(";") if title.strip()]

    def counts(self, board: Board) -> list[str]:
        """Return the methods of the board that count, of which one is enough."""
        plain = [
            title
            for title, method in board.methods.items()
            if (method.regime, method.labels) == ("offline", "none")
        ]
        return [title for title in board.methods if title in (self.named or plain)]


def read_aims(path: Path, plan: LeaderboardConfig) -> list[Aim]:
    """Return the lines of a CSV file, none without a file, for the worlds and methods of `plan`.

    Raises ConfigError for a wrong line.
    """
    aims = read_lines(path, Aim)
    for aim in aims:
        check_titles(f"{path}: the leaderboard", [aim.world], plan.worlds)
        check_titles(f"{path}: the leaderboard", aim.named, plan.methods)
        if aim.score not in KNOWN:
            hint = did_you_mean(aim.score, KNOWN) or ""
            raise ConfigError(f"{path}: {aim.world}: {aim.score} is not a score{hint}")
        try:
            float(aim.aim)
        except ValueError:
            raise ConfigError(f"{path}: {aim.world}: {aim.aim} is not a number") from None
    return aims


def aims_table(board: Board, cells: Records, aims: list[Aim]) -> Table:
    """Return a row for each aim: the best mean of the methods that count, beside the first method.

    An aim is reached if all planned runs of the best method are there and their 95 % interval does
    not begin below it, not reached if the interval ends below it, and open otherwise.
    """
    first, rows = next(iter(board.methods)), []
    planned = {(cell.world, cell.method): len(cell.runs) for cell in board.cells}
    for aim in aims:
        made = {method: cells.get((aim.world, method), []) for method in aim.counts(board)}
        scores = {m: values_of(own, aim.score) for m, own in made.items()}
        means = {m: sum(own) / len(own) for m, own in scores.items() if own}
        reached = [UNKNOWN] * 4
        if means:
            best = max(means, key=means.get)
            verdict = _verdict(aim.value, scores[best], planned[aim.world, best])
            reached = [mean_text(made[best], aim.score), best, str(len(made[best])), verdict]
        by = aim.methods.replace(";", " or") or "any offline method without labels"
        heading, style = column_of(aim.score)
        reference = mean_text(cells.get((aim.world, first)), aim.score)
        goal = [aim.world, heading, number(aim.value, style), by]
        rows.append([*goal, *reached, reference, aim.note])
    headings = ["world", "score", "aim", "by", "best so far", "method", "runs", "reached"]
    return Table([*headings, first, "note"], rows)


def _verdict(aim: float, values: list[float], planned: int) -> str:
    """Return whether `planned` runs reach an aim, by the known values of their score."""
    interval = t_interval(values)
    low, high = interval["lo"], interval["hi"]
    if high is not None and high < aim:
        return "no"
    return "yes" if low is not None and low >= aim and len(values) == planned else "open"
