"""Read the plan of a sweep from its file, and refuse what is wrong in it, all at once."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ad.config.fields import as_yaml, label, validate
from ad.config.parser import load_file, read_text
from ad.config.schema import Experiment
from ad.config.world import configured_world
from ad.config.yaml_io import YamlFile
from ad.errors import ConfigError, SettingError
from ad.evaluation.scores import SCORES
from ad.registry import METHODS
from ad.sweeps.format import (
    FACTS,
    BoardConfig,
    GroupConfig,
    RowConfig,
    SearchConfig,
    SweepConfig,
    TableConfig,
)
from ad.sweeps.plan import Cell, PlannedRun, Sweep, check_titles, settings_text, training_hash
from envs.rng import derive_key

SPLIT_SEED, SOURCE_SEED, TRAIN_SEED = (
    "split.split_seed",
    "source.source_seed",
    "training.train_seed",
)
MOST_ROWS = 4096  # of a grid
DIGITS = 3  # significant digits of a random setting, as many as a title shows


def load_sweep(path: Path, board: str = "") -> Sweep:
    """Return a board of the sweep at `path`, by default the first.

    Raises ConfigError with a line for each cell that is wrong.
    """
    file = YamlFile(read_text(path))
    problems = file.problems or list(validate(SweepConfig, file.data))
    if problems:
        raise ConfigError(_lines(f"{path}: {where} {text}" for where, text in problems))
    config = SweepConfig(**file.data)
    return _Loader(path, config, board or next(iter(config.boards), "")).sweep()


class _Loader:
    """Builds a board of a sweep from its file."""

    def __init__(self, path: Path, config: SweepConfig, board: str):
        self.path, self.config, self.name = path, config, board
        if board and board not in config.boards:
            known = ", ".join(config.boards)
            raise ConfigError(f"{path} has no board {as_yaml(board)} (boards: {known})")
        boards = {
            name: _group(BoardConfig, entry, f"{path}: {name}")
            for name, entry in config.boards.items()
        }
        self.board = boards.get(board, BoardConfig())
        self.seeds = self.board.seeds or config.seeds
        _check_seeds(f"{path}: seeds", [*self.seeds, *self.board.further_seeds])
        _check_seeds(f"{path}: splits", config.splits or [0])
        self._check_tuning_groups(boards)
        self.search = _group(SearchConfig, config.search, f"{path}: search")
        self._built: dict[str, Experiment] = {}
        self._names: dict[str, str] = {}

    def sweep(self) -> Sweep:
        """Return the board with all its cells."""
        entries = self.config.groups or {"": {}}
        titles = self.board.groups or list(entries)
        check_titles(f"{self.path} has no group", titles, entries)
        groups = {
            title: _group(GroupConfig, entries[title], self._where(title)) for title in titles
        }
        shared, tried = self._shared_rows()
        pairs = [
            (group, row, entry)
            for group, own in groups.items()
            for row, entry in (self._own_rows(group, own) or shared).items()
        ]
        folders = {row: title for title, rows in tried.items() for row in rows}
        cells = _gather(lambda pair: self._cell(groups[pair[0]], *pair, folders), pairs)
        tables = _gather(self._table, self.config.tables)
        sweep = Sweep(
            self.path,
            self.config,
            self.name,
            groups,
            shared,
            cells,
            dict(zip(self.config.tables, tables, strict=True)),
            self.search,
            tried,
        )
        self._check_titles_of(sweep)
        return sweep

    def _where(self, *titles: str) -> str:
        return f"{self.path}: {' / '.join(filter(None, titles))}"

    def _shared_rows(self) -> tuple[dict[str, RowConfig], dict[str, list[str]]]:
        """Return the rows of the sweep by title; and for each that is tuned, its rows' titles."""
        grid = _grid_rows(self.config.grid, self.search.samples)
        rows = {
            title: _group(RowConfig, entry, self._where(title))
            for title, entry in (self.config.rows | grid).items()
        }
        chosen = self.board.rows or list(rows)
        check_titles(f"{self.path} has no row", chosen, rows)
        rows = {title: rows[title] for title in chosen}
        if not self.board.tuning:
            return rows, {}
        variants = {
            title: {f"{title}: {settings_text(own)}": replace(row, tuned=own) for own in row.tried}
            for title, row in rows.items()
        }
        tried = {title: list(own) for title, own in variants.items()}
        return {name: row for own in variants.values() for name, row in own.items()}, tried

    def _own_rows(self, title: str, group: GroupConfig) -> dict[str, RowConfig]:
        return {
            row: _group(RowConfig, entry, self._where(title, row))
            for row, entry in (group.rows | _grid_rows(group.grid)).items()
        }

    def _cell(
        self, group: GroupConfig, title: str, row: str, entry: RowConfig, folders: dict[str, str]
    ) -> Cell:
        where = self._where(title, row)
        file = entry.experiment or group.experiment or self.config.experiment
        if not file:
            raise ConfigError(f"{where} must name an experiment")
        if entry.tuned is not None and entry.tuned not in entry.tried:
            raise ConfigError(f"{where}: tuned must be an entry of tried")
        if entry.informed and not group.informed:
            raise ConfigError(f"{where}: the group has no settings of an informed source")
        common = self.config.settings | group.settings
        if problem := self._problem(file, common, entry, where):
            return Cell(title, row, [], problem)
        settings = common | (group.informed if entry.informed else {})
        settings |= entry.settings | (entry.tuned or {}) | self.board.settings
        runs, further = (
            [
                PlannedRun(title, row, experiment)
                for experiment in self._experiments(
                    file, settings, seeds, where, [title, folders.get(row, row)]
                )
            ]
            for seeds in (self.seeds, self.board.further_seeds)
        )
        return Cell(title, row, runs, "", further, len(runs))

    def _experiments(
        self, file: str, settings: dict, seeds: Sequence[int], where: str, titles: list[str]
    ) -> Iterator[Experiment]:
        """Yield the experiment of each seed and split, with a name for its folder."""
        splits = self.config.splits
        for path in (TRAIN_SEED, *([SPLIT_SEED] if splits else [])):
            if path in settings:
                raise ConfigError(f"{where} must not set {path}: seeds and splits do")
        is_fixed = SOURCE_SEED in settings
        # Settings are checked once, with the smallest seed: the first that a rule could refuse.
        smallest = min([*self.seeds, *self.board.further_seeds])
        seeded = {TRAIN_SEED: smallest} | ({} if is_fixed else {SOURCE_SEED: smallest})
        for seed in seeds:
            for split in splits or [None]:
                drawn = {} if split is None else {SPLIT_SEED: split}
                config = self._experiment(file, settings | seeded | drawn, where)
                config = replace(config, training=replace(config.training, train_seed=seed))
                if not is_fixed:
                    config = replace(config, source=replace(config.source, source_seed=seed))
                yield replace(config, name=self._name(titles, split, seed, training_hash(config)))

    def _name(self, titles: list[str], split: int | None, seed: int, training: str) -> str:
        """Return the name of the first run that has this training."""
        words = re.sub(r"[^A-Za-z0-9.]+", "-", " / ".join(filter(None, titles)))[:60]
        parts = [words, *([] if split is None else [f"split-{split}"]), f"seed-{seed}"]
        return self._names.setdefault(training, "-".join([*parts, training[:8]]))

    def _experiment(self, file: str, settings: dict[str, Any], where: str) -> Experiment:
        """Return the experiment of `file` with dotted `settings`, each one built once."""
        key = f"{file} {settings}"
        if key not in self._built:
            try:
                self._built[key] = load_file(file, **settings)
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
        return self._built[key]

    def _problem(self, file: str, settings: dict, entry: RowConfig, where: str) -> str:
        """Return why the method of a row cannot learn in the world of its group, "" if it can."""
        if not self.config.rows or "method.name" not in entry.settings:
            return ""
        name = entry.settings["method.name"]
        if not METHODS.has(name):
            raise ConfigError(f"{where}: unknown method {as_yaml(name)}{METHODS.suggest(name)}")
        plain = self._experiment(file, settings, where)
        method = METHODS.load(name)
        config = replace(plain, method=replace(plain.method, name=name, settings={}))
        try:
            method(method.Settings()).check(config, configured_world(plain.env))
        except SettingError as error:
            return error.text if error.path == "method.name" else ""
        return ""

    def _check_tuning_groups(self, boards: dict[str, BoardConfig]) -> None:
        """Raise ConfigError if a board that tunes has a group of another board."""
        others = {
            group for name, own in boards.items() if name != self.name for group in own.groups
        }
        if self.board.tuning and (
            both := [title for title in self.board.groups if title in others]
        ):
            raise ConfigError(
                f"{self.path}: {self.name}: settings must not be tuned on {both[0]}, which another "
                "board is scored on"
            )

    def _table(self, name: str) -> TableConfig:
        """Return the table of an analysis called `name`. Raises ConfigError."""
        where, rows = self._where(name), self.config.rows
        table = _group(TableConfig, self.config.tables[name], where)
        if not (table.analysis and table.array and table.rows and table.models):
            raise ConfigError(f"{where} must name analysis, array, models and the axis of its rows")
        check_titles(f"{where}: {self.path} has no row", table.models, rows)
        if table.columns_of and not table.columns:
            raise ConfigError(f"{where} names columns_of, but no columns")
        if table.columns and table.is_ranked:
            raise ConfigError(f"{where} has columns: rows that differ by seed have the seeds")
        for option in ("rows_of", "columns_of"):
            if other := getattr(table, option):
                entry = self.config.tables.get(other)
                if not isinstance(entry, dict) or not entry.get("strongest"):
                    raise ConfigError(f"{where}: {option} must name a table with strongest rows")
        return table

    def _check_titles_of(self, sweep: Sweep) -> None:
        """Raise ConfigError for a baseline, score or fact that does not exist, or equal cells."""
        config = self.config
        for title, group in sweep.groups.items():
            where, own = self._where(title), sweep.cells_of(title)
            scores = [*config.scores, *config.means, *group.scores]
            check_titles(f"{where} has no score", scores, SCORES)
            rows = [cell.row for cell in own]
            if (base := sweep.baseline(title)) and not sweep.tried:
                check_titles(f"{where} has no row", [base], rows)
            if not rows:
                raise ConfigError(f"{where} has no rows")
            keys = [cell.runs[0].key for cell in own if cell.runs]
            if len(set(keys)) < len(keys):
                raise ConfigError(f"{where} has two rows that make the same run")
        if not any(cell.runs for cell in sweep.cells):
            reasons = (f"{cell.group} / {cell.row}: {cell.problem}" for cell in sweep.cells)
            raise ConfigError("no cell can be made:\n  " + "\n  ".join(reasons))
        check_titles(f"{self.path} has no fact", config.facts, FACTS)


def _grid_rows(grid: dict[str, list], samples: int = 0) -> dict[str, dict]:
    """Return the rows of a grid by title: the value of one setting, or "setting=value" of all.

    The rows are every combination of values, or `samples` random ones. Raises ConfigError.
    """
    for path, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid: {path} must be a list of values, not {as_yaml(values)}")
    number = samples or math.prod(map(len, grid.values()))
    if number > MOST_ROWS:
        raise ConfigError(f"grid makes {number} rows: at most {MOST_ROWS}")
    combinations = _random(grid, samples) if samples else itertools.product(*grid.values())
    rows = [dict(zip(grid, own, strict=True)) for own in combinations if grid]
    if len(grid) == 1:
        return {label(next(iter(own.values()))): {"settings": own} for own in rows}
    short = {path: path.rpartition(".")[2] for path in grid}
    return {
        settings_text({short[path]: value for path, value in own.items()}): {"settings": own}
        for own in rows
    }


def _random(grid: dict[str, list], samples: int) -> Iterator[list[float]]:
    """Yield random values of the settings in `grid` (Bergstra and Bengio 2012, section 2).

    A value lies between the lowest and the highest of the grid, uniformly in its logarithm if all
    are above 0, and is whole if all are.
    """
    for path, values in grid.items():
        if not all(type(value) in (int, float) for value in values):
            raise ConfigError(f"grid: {path} must be numbers, to draw random ones")
    rng = np.random.default_rng(derive_key(0, "tune"))
    for _ in range(samples):
        yield [_between(values, rng.random()) for values in grid.values()]


def _between(values: list[float], u: float) -> float:
    """Return the number at the fraction `u` between the lowest and the highest of `values`."""
    low, high = min(values), max(values)
    drawn = low * (high / low) ** u if low > 0 else low + (high - low) * u
    if all(type(value) is int for value in values):
        return round(drawn)
    return min(max(float(f"{drawn:.{DIGITS}g}"), low), high)


def _group(kind: type, entry: Any, where: str) -> Any:
    """Return `entry`, the group of settings at `where`, as the dataclass `kind`."""
    problems = list(validate(kind, entry))
    if problems:
        raise ConfigError(_lines(" ".join(f"{where}: {p.path} {p.text}".split()) for p in problems))
    return kind(**entry)


def _check_seeds(what: str, seeds: Sequence[int]) -> None:
    """Raise ConfigError unless `seeds` are different whole numbers from 0 on."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(f"{what} must be whole numbers from 0 on, each once, not {list(seeds)}")


def _gather(make, entries: Iterable) -> list:
    """Return `make(entry)` for each entry. Raises one ConfigError with the problems of all."""
    made, problems = [], []
    for entry in entries:
        try:
            made.append(make(entry))
        except ConfigError as error:
            heading, *lines = str(error).split("\n  ")
            problems += lines or [heading]
    if problems:
        raise ConfigError(_lines(problems))
    return made


def _lines(problems: Iterable[str]) -> str:
    several = list(problems)
    if len(several) == 1:
        return several[0]
    return "\n  ".join([f"{len(several)} problems, nothing was run:", *several])
