"""The published tables: their rows, each an experiment on several splits, and the runs they need.

`configs/records/results.yaml` names the splits, the seeds and the rows of each table. A run of a
row has a split seed and a seed, which is that of its training and of its source agents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ad.config.fields import as_yaml, field
from ad.errors import ConfigError
from ad.sweeps.columns import SCORE_COLUMNS
from ad.sweeps.files import check_seeds, experiment_of, gather, group_of, read_file
from ad.sweeps.planned import SEEDS, PlannedRun, planned_run
from envs.registry import did_you_mean

SET_BY_ROW = ("split.split_seed", *SEEDS)


@dataclass(frozen=True)
class RowConfig:
    """A row of a table: an experiment and what differs from its file."""

    experiment: str = field("")  # the YAML file of the experiment
    settings: dict = field({})  # dotted setting: its value
    splits: list[int] = field([])  # split seeds; empty: those of the file
    seeds: list[int] = field([])  # seeds; empty: those of the file


@dataclass(frozen=True)
class TableConfig:
    """A table: its rows by title, and the title of the row that the others are compared with."""

    rows: dict = field({})
    compared_with: str = field("")  # empty: nothing is compared
    calibration: bool = field(False)  # whether the columns are the returns achieved for asked ones
    columns: list[str] = field([])  # scores to show with intervals; empty: the default ones


@dataclass(frozen=True)
class ResultsConfig:
    """The content of results.yaml."""

    splits: list[int] = field([0, 1, 2])  # split seeds
    seeds: list[int] = field([0, 1, 2])  # of trainings and source agents
    page: str = field("README.md")  # the file that the tables stand in
    tables: dict = field({})  # the tables by name, which is that of their place in the page


@dataclass(frozen=True)
class Row:
    """A row: its title, the file of its experiment and a run for each split and seed."""

    title: str
    file: str
    runs: list[PlannedRun]


@dataclass(frozen=True)
class ResultTable:
    """A table of rows; `compared_with` is the title of one of them, or "".

    calibration: whether its columns are the returns achieved for each asked return. columns: the
    scores that it shows, with intervals; empty for the default ones.
    """

    name: str
    rows: list[Row]
    compared_with: str
    calibration: bool = False
    columns: Sequence[str] = ()


@dataclass(frozen=True)
class Results:
    """The tables of the file `path`."""

    path: Path
    page: Path
    tables: list[ResultTable]

    @property
    def records(self) -> Path:
        """The CSV file of the records."""
        return self.path.with_suffix(".csv")

    def planned_runs(self, titles: Sequence[str] = ()) -> list[PlannedRun]:
        """Return the runs of the rows `titles`, or of all, each once; first one of each row.

        Raises ConfigError for a title that no row has.
        """
        all_rows = {row.title: row.runs for table in self.tables for row in table.rows}
        if unknown := [title for title in titles if title not in all_rows]:
            known = f" (known: {', '.join(all_rows)})"
            hint = did_you_mean(unknown[0], all_rows) or known
            raise ConfigError(f"{as_yaml(unknown[0])} is not a row of {self.path}{hint}")
        rows = [all_rows[title] for title in titles or all_rows]
        most = max(map(len, rows), default=0)
        runs = [own[number] for number in range(most) for own in rows if number < len(own)]
        return list({run.key: run for run in runs}.values())


def load_results(path: Path) -> Results:
    """Read the tables at `path`. Raises ConfigError with a line for each row that is wrong."""
    config = read_file(path, ResultsConfig)
    check_seeds(f"{path}: splits", config.splits)
    check_seeds(f"{path}: seeds", config.seeds)
    entries = {
        name: group_of(TableConfig, entry, f"{path}: {name}")
        for name, entry in config.tables.items()
    }
    titles = [title for table in entries.values() for title in table.rows]
    if twice := [title for title in titles if titles.count(title) > 1 or "," in title]:
        raise ConfigError(f"{path}: {twice[0]} must be the title of one row, without a comma")
    tables = []
    for name, table in entries.items():
        rows = gather(partial(_row, path, config, table), table.rows)
        _check_columns(f"{path}: {name}", table)
        if table.compared_with and table.compared_with not in table.rows:
            raise ConfigError(f"{path}: {name}: {as_yaml(table.compared_with)} is none of its rows")
        tables.append(
            ResultTable(name, rows, table.compared_with, table.calibration, table.columns)
        )
    return Results(path, Path(config.page), tables)


def _check_columns(where: str, table: TableConfig) -> None:
    """Raise ConfigError unless the columns that `table` names are known and can be shown."""
    if unknown := [column for column in table.columns if column not in SCORE_COLUMNS]:
        hint = did_you_mean(unknown[0], SCORE_COLUMNS) or ""
        raise ConfigError(f"{where} has no column {unknown[0]}{hint}")
    if table.calibration and (table.columns or table.compared_with):
        raise ConfigError(f"{where} is a calibration, which has no columns or compared_with")


def _row(path: Path, config: ResultsConfig, table: TableConfig, title: str) -> Row:
    where = f"{path}: {title}"
    row = group_of(RowConfig, table.rows[title], where)
    if not row.experiment:
        raise ConfigError(f"{where} must name an experiment")
    if own := [name for name in SET_BY_ROW if name in row.settings]:
        raise ConfigError(f"{where} must not set {own[0]}: splits and seeds do")
    splits, seeds = row.splits or config.splits, row.seeds or config.seeds
    check_seeds(f"{where}: splits", splits)
    check_seeds(f"{where}: seeds", seeds)
    # The smallest seed: if any is one of published rows, which split.tuning excludes, it is.
    settings = row.settings | dict.fromkeys(SEEDS, min(seeds))
    configs = {
        split: experiment_of(row.experiment, settings | {"split.split_seed": split}, where)
        for split in splits
    }
    runs = [
        planned_run(title, configs[split], seed, f"split-{split}")
        for seed in seeds
        for split in splits
    ]
    return Row(title, row.experiment, runs)
