"""The plan of a sweep: named settings on two axes, and the runs of each cell.

The first axis is the groups of a sweep (`ad.sweeps.format`), the second is their rows: those of the
sweep, which each group has, or those of one group. A cell, a row of a group, has a run for each
split seed and each seed. Its experiment is a YAML file with the settings of the sweep, of the group
and of the row, each of which replaces earlier ones. Cells with the same settings share their runs.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ad.config.fields import as_yaml, label
from ad.config.schema import EvaluationConfig, Experiment, config_hash
from ad.errors import ConfigError
from ad.methods import build_method
from ad.sweeps.format import BoardConfig, GroupConfig, RowConfig, SweepConfig, TableConfig
from envs.registry import did_you_mean


@dataclass(frozen=True)
class PlannedRun:
    """A run to make: the titles of its group and row, and its experiment.

    Runs that differ in evaluation only share a training: their experiments have the same name.
    """

    group: str
    row: str
    config: Experiment

    @property
    def key(self) -> str:
        """The key of the run's record: a hash of all settings that affect results."""
        return config_hash(self.config)[:16]

    @property
    def label(self) -> str:
        """The titles as text."""
        return f"{self.group} / {self.row}" if self.group else self.row

    def in_root(self, root: Path) -> Experiment:
        """Return the experiment with its files under `root`."""
        return replace(self.config, root=str(root))


@dataclass(frozen=True)
class Cell:
    """A row of a group with its runs, or with the reason why its method cannot learn there."""

    group: str
    row: str
    runs: list[PlannedRun]
    problem: str = ""
    variant: str = ""  # the variant of its group that it is of

    @property
    def config(self) -> Experiment:
        """The experiment of the first run."""
        return self.runs[0].config


@dataclass(frozen=True)
class Sweep:
    """A board of the sweep in the file `path`: its groups, rows and cells, group by group.

    choice: the board's entry in the file, with its seeds. rows: title -> the rows of the sweep, {}
    where each group has its own. tried: title of a row -> the titles of the rows that try its
    settings, {} unless the board tunes.
    """

    path: Path
    config: SweepConfig
    board: str
    choice: BoardConfig
    groups: dict[str, GroupConfig]
    rows: dict[str, RowConfig]
    cells: list[Cell]
    tables: dict[str, TableConfig]
    tried: dict[str, list[str]]

    @property
    def name(self) -> str:
        """The name of the sweep, with that of a board that is not the first."""
        first = next(iter(self.config.boards), self.board)
        return self.path.stem + ("" if self.board == first else f"_{self.board}")

    @property
    def records(self) -> Path:
        """The file of records: beside the plan, with its name."""
        return self.path.with_suffix(".jsonl")

    @property
    def entries(self) -> Path | None:
        """The file of the records of entries from outside, None for none."""
        return self.path.parent / self.config.entries if self.config.entries else None

    @property
    def page(self) -> Path | None:
        """The Markdown page of the board, None for none."""
        if not self.config.page:
            return None
        page = self.path.parent / self.config.page
        return page if self.name == self.path.stem else page.with_stem(self.name)

    def cells_of(self, group: str) -> list[Cell]:
        """Return the cells of a group."""
        return [cell for cell in self.cells if cell.group == group]

    def baseline(self, group: str) -> str:
        """Return the title of the row that others of the group are compared with, "" for none."""
        return self.groups[group].baseline or self.config.baseline

    def is_calibration(self, group: str) -> bool:
        """Return whether a group shows the returns achieved for asked ones, in place of scores."""
        configs = [cell.config.evaluation for cell in self.cells_of(group) if cell.runs]
        has_scores = bool(self.groups[group].scores)
        return bool(configs) and not has_scores and all(own.calibration for own in configs)

    def planned_runs(self) -> list[PlannedRun]:
        """Return the distinct runs of all cells: the first of each cell, then the second."""
        most = max((len(cell.runs) for cell in self.cells), default=0)
        runs = (cell.runs[n] for n in range(most) for cell in self.cells if n < len(cell.runs))
        unique: dict[str, PlannedRun] = {}
        for run in runs:  # one of equal keys is evaluated in the worlds of all
            other = unique.setdefault(run.key, run)
            own, worlds = run.config.evaluation.worlds, other.config.evaluation.worlds
            if further := [world for world in own if world not in worlds]:
                evaluation = replace(other.config.evaluation, worlds=[*worlds, *further])
                config = replace(other.config, evaluation=evaluation)
                unique[run.key] = replace(other, config=config)
        return list(unique.values())

    def select(
        self, groups: Collection[str] = (), rows: Collection[str] = (), seeds: Sequence[int] = ()
    ) -> list[PlannedRun]:
        """Return the planned runs of some groups, rows and seeds, where any are given.

        The title of a row whose settings the board tries means all rows that try them. Raises
        ConfigError for a title that the board does not have, and if there is no such run.
        """
        rows = [own for row in rows for own in self.tried.get(row, [row])]
        check_titles(f"{self.path} has no group", groups, {cell.group for cell in self.cells})
        check_titles(f"{self.path} has no row", rows, {cell.row for cell in self.cells})
        chosen = [
            cell
            for cell in self.cells
            if (not groups or cell.group in groups) and (not rows or cell.row in rows)
        ]
        # Of the runs of the whole board, which are evaluated in the worlds of all its groups.
        keys = {run.key for cell in chosen for run in cell.runs}
        runs = [run for run in self.planned_runs() if run.key in keys]
        runs = [run for run in runs if not seeds or run.config.training.train_seed in seeds]
        if not runs and (groups or rows or seeds):
            raise ConfigError(f"{self.path} has no run of these groups, rows and seeds")
        return runs


def settings_text(settings: dict[str, Any]) -> str:
    """Return settings as text, e.g. "model.encoder=table"; "base" if there are none."""
    return " ".join(f"{path}={label(value)}" for path, value in sorted(settings.items())) or "base"


def training_hash(config: Experiment) -> str:
    """Return the hash (hex) of the settings that decide what a run trains on and how."""
    return config_hash(replace(config, evaluation=EvaluationConfig()))


def reads_histories(config: Experiment) -> bool:
    """Return whether the method of an experiment learns from histories, and not in the worlds."""
    return build_method(config.method).reads_histories


def check_titles(where: str, titles: Iterable[str], known: Collection[str]) -> None:
    """Raise ConfigError that begins with `where` unless all `titles` are among `known`."""
    if unknown := [title for title in titles if title not in known]:
        hint = did_you_mean(unknown[0], known) or f" (there are: {', '.join(known)})"
        raise ConfigError(f"{where} {as_yaml(unknown[0])}{hint}")
