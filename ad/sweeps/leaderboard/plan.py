"""The plan of the leaderboard: its worlds, methods and boards, and the runs of each cell.

`configs/leaderboard/leaderboard.yaml` names them. A cell is a world and a method. Its runs have the
experiment of the world with the settings of the method, and differ in the seed, which is that of
the training and of the source agents. No cell has settings of its own: what a world sets, e.g. its
temperatures, holds for every method that does not set it.

Settings of a method are tuned by a board of worlds that no other board has, with a row for each
entry of the method's `tried`. Every method may try the same number of entries. A method is not
tuned while its `tuned` is null.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Optional

from ad.config.fields import as_yaml, field
from ad.config.schema import Experiment
from ad.config.world import configured_world
from ad.errors import ConfigError, SettingError
from ad.methods import build_method
from ad.methods.base import Method
from ad.registry import METHODS
from ad.sweeps.files import check_seeds, experiment_of, gather, group_of, read_file
from ad.sweeps.planned import SEEDS, PlannedRun, planned_run, settings_text
from envs.registry import did_you_mean


@dataclass(frozen=True)
class WorldConfig:
    """A world of the leaderboard."""

    experiment: str = field("")  # the YAML file of its experiment
    settings: dict = field({})  # dotted settings that replace those of the experiment
    searcher: dict = field({})  # dotted settings of a source that knows the family of tasks


@dataclass(frozen=True)
class MethodConfig:
    """A method of the leaderboard."""

    settings: dict = field({})  # dotted setting: its value, in every world
    tried: list[dict] = field([])  # further settings that a tuning board compares
    # the entry of `tried` that it chose; null before that
    tuned: Optional[dict] = field(None)  # noqa: UP045
    histories: str = field(
        "learner", choices=("learner", "searcher", "none")
    )  # which source it learns from; none for an online method
    regime: str = field("offline", choices=("offline", "online"))
    labels: str = field("none", choices=("none", "optimal actions"))


@dataclass(frozen=True)
class BoardConfig:
    """A board: some of the worlds and methods, and the seeds of the runs of a cell."""

    worlds: list[str] = field([])
    methods: list[str] = field([])
    seeds: list[int] = field([0, 1, 2])
    # of further runs of a world's best methods, if the intervals of their first runs overlap
    further_seeds: list[int] = field([])
    settings: dict = field({})  # dotted setting: its value, in every cell
    tuning: bool = field(False)  # whether a method has a row for each entry of `tried`


@dataclass(frozen=True)
class LeaderboardConfig:
    """The content of leaderboard.yaml."""

    worlds: dict = field({})  # title: a WorldConfig
    methods: dict = field({})  # title: a MethodConfig
    boards: dict = field({})  # name: a BoardConfig
    page: str = field("")  # a file that the summary is put into, if it has the marks of the board
    note: str = field("")  # what a reader of any page must know about the settings


@dataclass(frozen=True)
class Cell:
    """A world and a method, with their runs; or with why the method cannot learn there.

    further_runs: those that the cell has in addition if it is level with the best of its world.
    num_first: the number of runs without them.
    """

    world: str
    method: str
    runs: list[PlannedRun]
    problem: str = ""
    further_runs: Sequence[PlannedRun] = ()
    num_first: int = 0

    @property
    def config(self) -> Experiment:
        """The experiment of the first run."""
        return self.runs[0].config

    @cached_property
    def built_method(self) -> Method:
        """The method with the settings of the runs."""
        return build_method(self.config.method)

    @property
    def transitions(self) -> int:
        """The number of transitions that each run learns from."""
        return self.built_method.transitions(self.config)


@dataclass(frozen=True)
class Board:
    """The cells of a board, world by world, of the plan in the file `path`.

    page: the file that the summary is put into, "" for none; note: a text on every page. tried: the
    titles of a tuning board's rows for each method; tuned: what the file says that it chose. Both
    are empty for other boards.
    """

    path: Path
    page: str
    note: str
    worlds: dict[str, WorldConfig]
    methods: dict[str, MethodConfig]
    cells: list[Cell]
    tried: dict[str, list[str]]
    tuned: dict[str, dict | None]

    @property
    def untuned(self) -> list[str]:
        """The methods whose settings no tuning board chose yet."""
        return [title for title, method in self.methods.items() if method.tuned is None]

    def planned_runs(self) -> list[PlannedRun]:
        """Return the runs of all cells: the first of each, then the second of each."""
        most = max((len(cell.runs) for cell in self.cells), default=0)
        return [cell.runs[n] for n in range(most) for cell in self.cells if n < len(cell.runs)]


def load_board(
    path: Path, name: str = "core", worlds: Sequence[str] = (), methods: Sequence[str] = ()
) -> Board:
    """Read a board of the file at `path`; `worlds` and `methods` replace those of the board.

    Raises ConfigError with a line for each cell that is wrong.
    """
    config = read_file(path, LeaderboardConfig)
    if name not in config.boards:
        raise ConfigError(
            f"{path} has no board {as_yaml(name)} (known: {', '.join(config.boards)})"
        )
    board = group_of(BoardConfig, config.boards[name], f"{path}: {name}")
    check_seeds(f"{path}: {name}: seeds", board.seeds)
    check_seeds(f"{path}: {name}: seeds and further_seeds", board.seeds + board.further_seeds)
    own_worlds = _chosen(path, WorldConfig, config.worlds, worlds or board.worlds)
    own_methods = _chosen(path, MethodConfig, config.methods, methods or board.methods)
    tried, tuned = {}, {}
    if board.tuning:
        _check_own_worlds(path, name, config, own_worlds)
        tuned = {title: own.tuned for title, own in own_methods.items()}
        entries = {title: _variants(title, own) for title, own in own_methods.items()}
        tried = {title: list(rows) for title, rows in entries.items()}
        own_methods = {row: own for rows in entries.values() for row, own in rows.items()}
    folders = {row: title for title, rows in tried.items() for row in rows}
    plain = {title: _plain(f"{path}: {title}", world) for title, world in own_worlds.items()}
    pairs = {
        f"{world} / {method}": (world, method) for world in own_worlds for method in own_methods
    }

    def cell(title: str) -> Cell:
        world, method = pairs[title]
        where, settings = f"{path}: {title}", own_methods[method]
        if problem := _problem(where, plain[world], settings):
            return Cell(world, method, [], problem)
        config = _experiment(where, own_worlds[world], settings, board)
        folder = f"{world} / {folders.get(method, method)}"  # rows may share a training
        runs, further = (
            [planned_run(title, config, seed, folder=folder) for seed in seeds]
            for seeds in (board.seeds, board.further_seeds)
        )
        return Cell(world, method, runs, further_runs=further, num_first=len(runs))

    cells = gather(cell, pairs)
    return Board(path, config.page, config.note, own_worlds, own_methods, cells, tried, tuned)


def _variants(title: str, method: MethodConfig) -> dict[str, MethodConfig]:
    """Return the method with each entry of `tried` as its tuned settings, by the row's title."""
    return {
        f"{title}: {settings_text(entry)}": replace(method, tuned=entry) for entry in method.tried
    }


def _chosen(path: Path, kind: type, entries: dict, titles: Sequence[str]) -> dict:
    """Return the entries called `titles` as the dataclass `kind`. Raises ConfigError."""
    if not titles or len(set(titles)) < len(titles):
        raise ConfigError(f"{path}: a board needs worlds and methods, each once")
    check_titles(str(path), titles, entries)
    return {title: group_of(kind, entries[title], f"{path}: {title}") for title in titles}


def check_titles(where: str, titles: Sequence[str], known: Collection[str]) -> None:
    """Raise ConfigError that begins with `where` unless all `titles` are `known`."""
    if unknown := [title for title in titles if title not in known]:
        hint = did_you_mean(unknown[0], known) or f" (known: {', '.join(known)})"
        raise ConfigError(f"{where} has no {as_yaml(unknown[0])}{hint}")


def _check_own_worlds(
    path: Path, name: str, config: LeaderboardConfig, worlds: Collection[str]
) -> None:
    """Raise ConfigError if one of the `worlds` of the tuning board `name` is one of another."""
    for other, entry in config.boards.items():
        board = group_of(BoardConfig, entry, f"{path}: {other}")
        if other != name and (shared := [world for world in board.worlds if world in worlds]):
            raise ConfigError(
                f"{path}: {name}: {shared[0]} is a world of the board {other}, on which settings "
                "must not be tuned"
            )


def _plain(where: str, world: WorldConfig) -> Experiment:
    """Return the experiment of a world, without the settings of a method."""
    if not world.experiment:
        raise ConfigError(f"{where}: the world must name an experiment")
    return experiment_of(world.experiment, world.settings, where)


def _problem(where: str, plain: Experiment, method: MethodConfig) -> str:
    """Return why the method cannot learn in the world of `plain`, "" if it can."""
    name = method.settings.get("method.name", plain.method.name)
    if not METHODS.has(name):
        raise ConfigError(f"{where}: unknown method {as_yaml(name)}{METHODS.suggest(name)}")
    method_class = METHODS.load(name)
    is_online = not method_class.reads_histories
    if (method.regime == "online", method.histories == "none") != (is_online, is_online):
        kind = "an online" if is_online else "an offline"
        raise ConfigError(f"{where}: {name} is {kind} method: regime and histories must say so")
    has_labels = "optimal_action" in method_class.fields
    if has_labels != (method.labels == "optimal actions"):
        labels = "optimal actions" if has_labels else "none"
        raise ConfigError(f"{where}: labels must be {labels}, which {name} has")
    config = replace(plain, method=replace(plain.method, name=name, settings={}))
    try:
        build_method(config.method).check(config, configured_world(config.env))
    except SettingError as error:
        return error.text if error.path == "method.name" else ""
    return ""


def _experiment(
    where: str, world: WorldConfig, method: MethodConfig, board: BoardConfig
) -> Experiment:
    """Return the experiment of a cell with the smallest of the board's seeds.

    If any of the seeds is one of published rows, which `split.tuning` refuses, the smallest one is.
    """
    if method.tuned is not None and method.tuned not in method.tried:
        raise ConfigError(f"{where}: tuned must be an entry of tried")
    settings = method.settings | (method.tuned or {}) | board.settings
    if own := [name for name in SEEDS if name in settings]:
        raise ConfigError(f"{where} must not set {own[0]}: the seeds of the board do")
    source = world.searcher if method.histories == "searcher" else {}
    if method.histories == "searcher" and not source:
        raise ConfigError(f"{where}: the world has no searcher")
    seeds = dict.fromkeys(SEEDS, min(board.seeds + board.further_seeds))
    return experiment_of(world.experiment, world.settings | source | settings | seeds, where)
