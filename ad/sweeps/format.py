"""The format of a sweep's file: the dataclasses of its content.

A sweep is a YAML file of this one format, whatever its page shows: a study of single settings
(questions x values), tables of results (tables x rows), a leaderboard (worlds x methods), what
analyses find in models, or a search for settings of a source algorithm.
"""

from dataclasses import dataclass
from typing import Optional

from ad.config.fields import field
from ad.interpret.labeled import TRAIN_STEPS

FACTS = ("knows", "references", "transitions")


@dataclass(frozen=True)
class RowConfig:
    """A row of a group: the settings in which it differs."""

    note: str = field("")  # Markdown on the page of the first board that has the row
    experiment: str = field("")  # YAML file of an experiment; empty: that of the group
    settings: dict = field({})  # dotted setting: value
    # title of a row whose settings, with its tuned ones, this row has too: it tries none of its own
    settings_of: str = field("")
    variant: str = field("")  # name of the settings of `variants` of its group that it has
    against: str = field("")  # title of the row that it is compared with, where runs are paired
    # how many of the board's seeds it has, the first ones; null: as many as its group
    runs: Optional[int] = field(None, at_least=1)  # noqa: UP045
    # further settings, of which a board with `tuning` finds the best; null: those of the sweep
    tried: Optional[list[dict]] = field(None)  # noqa: UP045
    # the entry of `tried` that the row has on other boards; null before it is chosen
    tuned: Optional[dict] = field(None)  # noqa: UP045


@dataclass(frozen=True)
class GroupConfig:
    """A group of rows, which is a table of the page."""

    about: str = field("")  # Markdown above the table
    note: str = field("")  # Markdown below the table
    experiment: str = field("")  # YAML file of an experiment; empty: that of the sweep
    # title of a group whose experiment, settings and variants this group has too
    settings_of: str = field("")
    settings: dict = field({})  # dotted setting: value, in all rows
    # name: dotted settings of the rows that name it, e.g. of another source; a row is left out
    # where its group has none of that name
    variants: dict = field({})
    rows: dict = field({})  # title: a RowConfig; without rows and grid, the sweep's
    # how many of the board's seeds its rows have, the first ones; null: all
    runs: Optional[int] = field(None, at_least=1)  # noqa: UP045
    grid: dict = field({})  # dotted setting: list of values; a row for each combination
    baseline: str = field("")  # title of the row that others are compared with; empty: the sweep's
    # scores with intervals, as columns; empty: the returns achieved for asked ones if all rows have
    # `evaluation.calibration`, otherwise the scores of the sweep
    scores: list[str] = field([])
    # title of the entry of `evaluation.worlds` whose results the group shows, e.g. "change 25", of
    # rows that are evaluated there; empty: those of the runs' own world
    world: str = field("")


@dataclass(frozen=True)
class BoardConfig:
    """A board: some groups and rows of a sweep, with a page of their own."""

    about: str = field("")  # Markdown below the first paragraph of the sweep's
    groups: list[str] = field([])  # titles; empty: all
    rows: list[str] = field([])  # titles; empty: all
    seeds: list[int] = field([])  # empty: the sweep's
    settings: dict = field({})  # dotted setting: value, in all cells
    tuning: bool = field(False)  # whether rows have a run for each entry of their `tried`
    # settings that each row has in further runs; the page has the best of them in each group, which
    # is an oracle: no method knows it
    tried: list[dict] = field([])


@dataclass(frozen=True)
class TableConfig:
    """A table of an analysis: an array in which all axes but one or two have a fixed label.

    Values have intervals if the analysis has the array `<array>_interval`.
    """

    analysis: str = field("")  # name of the analysis
    array: str = field("")  # name of its array
    models: list[str] = field([])  # titles of rows
    at: dict = field({})  # axis: its label
    rows: str = field("")  # axis whose labels are the rows
    only: list[str] = field([])  # labels of the rows to show; empty: all
    columns: str = field("")  # axis whose labels are the columns; empty: the seeds are
    strongest: int = field(0, at_least=0)  # rows of largest absolute value for each seed; 0: all
    # table whose strongest rows of each seed are the rows, or, if there are columns, whose
    # strongest row of each seed is the only column; empty: all
    strongest_of: str = field("")
    # array with 1 where a claim holds: the models are columns that say in how many seeds it does
    holds: str = field("")
    words: dict = field({})  # label of a row: what it claims, and how each column tests it
    decimals: int = field(2, at_least=0, at_most=6)

    @property
    def interval(self) -> str:
        """The name of the array with the interval of each value."""
        return f"{self.array}_interval"

    @property
    def over_training(self) -> bool:
        """Whether the array is that of all kept checkpoints."""
        return TRAIN_STEPS in (self.rows, self.columns, *self.at)

    @property
    def is_ranked(self) -> bool:
        """Whether the rows are ranks, in which each seed has its own labels."""
        return bool(self.strongest or (self.strongest_of and not self.columns))

    @property
    def is_crossed(self) -> bool:
        """Whether the columns are labels of a second axis, each with the mean over the seeds."""
        return bool(self.columns and not self.strongest_of)


@dataclass(frozen=True)
class SweepConfig:
    """The content of a sweep's file."""

    title: str = field("")  # heading of the page
    about: str = field("")  # Markdown: a paragraph at the top of the page, others below its tables
    # Markdown file for the page, relative to the sweep's file; tables replace what is between its
    # marks, if it has any
    page: str = field("")
    summary: str = field("")  # another file with marks for the short table, e.g. README.md
    # JSON Lines file of records, relative to the sweep's file: entries from outside that
    # `verify_entry` has evaluated; they are the last rows of their groups
    entries: str = field("")
    experiment: str = field("")  # YAML file of an experiment
    settings: dict = field({})  # dotted setting: value, in all runs
    splits: list[int] = field([])  # split seeds; empty: that of the experiment
    paired: bool = field(False)  # whether each run has a split, whose seed is that of the run
    seeds: list[int] = field([0, 1, 2])  # of trainings, and of source agents if no setting is
    groups: dict = field({})  # title: a GroupConfig; empty: one group without a title
    rows: dict = field({})  # title: a RowConfig
    tried: list[dict] = field([])  # of rows without their own
    grid: dict = field({})  # dotted setting: list of values; a row for each combination
    heading: str = field("experiment")  # what a row is
    baseline: str = field("")  # title of the row that others are compared with; empty: none
    # title of the row of agents that learn each task from nothing: an NAUC below theirs is marked;
    # empty: the tabular learner with default settings
    learner: str = field("")
    pooled: bool = field(False)  # whether all cells share one standard deviation in comparisons
    # scores with intervals, as columns; rows are compared by the first
    scores: list[str] = field(["nauc"])
    means: list[str] = field([])  # scores without intervals, as further columns
    facts: list[str] = field([])  # further columns: knows, references, transitions
    published: str = field("")  # CSV file of published results that stand below the tables
    boards: dict = field({})  # name: a BoardConfig; empty: one board with everything
    tables: dict = field({})  # name: a TableConfig; the measure is then analysis

    @property
    def score(self) -> str:
        """The score that rows are compared by."""
        return self.scores[0]
