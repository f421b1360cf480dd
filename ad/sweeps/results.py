"""The published tables: their rows, each an experiment on several splits, and the runs they need.

`configs/records/results.yaml` names the splits, the seeds and the rows of each table. A run of a
row has a split seed and a seed, which is that of its training and of its source agents.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ad.config.fields import as_yaml, field, validate
from ad.config.parser import load_file, read_text
from ad.config.schema import Experiment
from ad.config.yaml_io import YamlFile
from ad.errors import ConfigError
from ad.sweeps.planned import PlannedRun
from envs.registry import did_you_mean


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


@dataclass(frozen=True)
class ResultsConfig:
    """The content of results.yaml."""

    splits: list[int] = field([0, 1, 2])  # split seeds
    seeds: list[int] = field([0, 1, 2])  # of trainings and source agents
    tables: dict = field({})  # the tables by name, which is that of their place in README.md


@dataclass(frozen=True)
class Row:
    """A row: its title, its file, its experiment and a run for each split and seed."""

    title: str
    file: str
    experiment: Experiment
    runs: list[PlannedRun]


@dataclass(frozen=True)
class ResultTable:
    """A table of rows; `compared_with` is the title of one of them, or ""."""

    name: str
    rows: list[Row]
    compared_with: str


@dataclass(frozen=True)
class Results:
    """The tables of the file `path`."""

    path: Path
    tables: list[ResultTable]

    @property
    def records(self) -> Path:
        """The CSV file of the records."""
        return self.path.with_suffix(".csv")

    def planned_runs(self, titles: Sequence[str] = ()) -> list[PlannedRun]:
        """Return the runs of the rows `titles`, or of all; first one of each row.

        Raises ConfigError for a title that no row has.
        """
        all_rows = {row.title: row.runs for table in self.tables for row in table.rows}
        if unknown := [title for title in titles if title not in all_rows]:
            known = f" (known: {', '.join(all_rows)})"
            hint = did_you_mean(unknown[0], all_rows) or known
            raise ConfigError(f"{as_yaml(unknown[0])} is not a row of {self.path}{hint}")
        rows = [all_rows[title] for title in titles or all_rows]
        most = max(map(len, rows), default=0)
        return [runs[number] for number in range(most) for runs in rows if number < len(runs)]


def load_results(path: Path) -> Results:
    """Read the tables at `path`. Raises ConfigError that names what is wrong, and where."""
    config = _parse(ResultsConfig, YamlFile(read_text(path)), str(path))
    tables = []
    for name, entry in config.tables.items():
        table = _of(TableConfig, entry, f"{path}: {name}")
        rows = [_row(config, title, row, f"{path}: {title}") for title, row in table.rows.items()]
        if table.compared_with and table.compared_with not in table.rows:
            raise ConfigError(f"{path}: {name}: {as_yaml(table.compared_with)} is none of its rows")
        tables.append(ResultTable(name, rows, table.compared_with))
    return Results(path, tables)


def _row(config: ResultsConfig, title: str, entry, where: str) -> Row:
    row = _of(RowConfig, entry, where)
    runs = []
    for seed in row.seeds or config.seeds:
        for split in row.splits or config.splits:
            seeds = {"split.split_seed": split, "source.source_seed": seed}
            settings = row.settings | seeds | {"training.train_seed": seed}
            try:
                experiment = load_file(row.experiment, **settings)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
            name = f"{re.sub(r'[^A-Za-z0-9]+', '-', title)}-split-{split}-seed-{seed}"
            runs.append(PlannedRun(title, replace(experiment, name=name)))
    return Row(title, row.experiment, runs[0].config, runs)


def _of(kind: type, entry, where: str):
    """Return `entry`, a group of settings in a YAML file, as the dataclass `kind`."""
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} must be a group of settings, not {as_yaml(entry)}")
    if problems := list(validate(kind, entry)):
        raise ConfigError("\n  ".join(f"{where}: {path} {text}" for path, text in problems))
    return kind(**entry)


def _parse(kind: type, file: YamlFile, where: str):
    if file.problems:
        raise ConfigError(f"{where}: {file.problems[0].text}")
    return _of(kind, file.data, where)
