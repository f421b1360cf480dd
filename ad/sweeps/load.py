"""Read the plan of a sweep from its file, and refuse what is wrong in it, all at once."""

import itertools
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ad.config.fields import Dataclass, as_yaml, label, merged, validate
from ad.config.parser import load_file, read_text
from ad.config.schema import Experiment
from ad.config.world import configured_world
from ad.config.yaml_io import YamlFile
from ad.errors import ConfigError, SettingError
from ad.evaluation.scores import SCORES
from ad.registry import METHODS
from ad.runtime.run import world_title
from ad.sweeps.format import FACTS, BoardConfig, GroupConfig, RowConfig, SweepConfig, TableConfig
from ad.sweeps.plan import Cell, PlannedRun, Sweep, check_titles, settings_text, training_hash

SPLIT_SEED, SOURCE_SEED, TRAIN_SEED = (
    "split.split_seed",
    "source.source_seed",
    "training.train_seed",
)
MOST_ROWS = 4096  # of a grid


def load_sweep(path: Path, board: str = "") -> Sweep:
    """Return a board of the sweep at `path`, by default the first.

    Raises ConfigError with a line for each cell that is wrong.
    """
    file = YamlFile(read_text(path))
    problems = file.problems or list(validate(SweepConfig, file.data))
    if problems:
        raise ConfigError(_lines(f"{path}: {where} {text}" for where, text in problems))
    config = SweepConfig(**file.data)
    if config.paired and config.splits:
        raise ConfigError(f"{path}: splits must be empty where runs are paired: seeds are splits")
    if config.pooled and len(config.splits) > 1:
        raise ConfigError(f"{path}: splits must be empty where runs are pooled: they share tasks")
    if not config.scores:
        raise ConfigError(f"{path}: scores must name the score that rows are compared by")
    name = board or next(iter(config.boards), "")
    chosen = _board(path, config, name)
    entries = config.groups or {"": {}}
    titles = chosen.groups or list(entries)
    check_titles(f"{path} has no group", titles, entries)
    groups = {title: _group_config(path, entries, title) for title in titles}
    if config.tables and (len(groups) > 1 or config.splits):
        raise ConfigError(f"{path}: tables of analyses show one group, without splits")
    rows, tried = _shared_rows(path, config, chosen)
    makers = [(_where(path, title), partial(_table, config, title)) for title in config.tables]
    tables = dict(zip(config.tables, _gather(makers), strict=True))
    sweep = Sweep(path, config, name, chosen, groups, rows, [], tables, tried)
    names: dict[str, str] = {}
    plain: dict[str, Experiment] = {}
    makers = [
        (_where(path, title, row), partial(_cell, sweep, title, row, entry, names, plain))
        for title, group in groups.items()
        for row, entry in (_own_rows(path, title, group) or rows).items()
    ]
    sweep = replace(sweep, cells=_gather(makers))
    _check_titles_of(sweep)
    return sweep


def _where(path: Path, *titles: str) -> str:
    """Return how the sentence of an error begins."""
    return f"{path}: {' / '.join(filter(None, titles))}"


def _board(path: Path, config: SweepConfig, name: str) -> BoardConfig:
    """Return the board called `name` with its seeds; without boards, one with everything."""
    if name and name not in config.boards:
        known = ", ".join(config.boards)
        raise ConfigError(f"{path} has no board {as_yaml(name)} (boards: {known})")
    boards = {
        title: _group(BoardConfig, entry, _where(path, title))
        for title, entry in config.boards.items()
    }
    board = boards.pop(name, BoardConfig())
    board = replace(board, seeds=board.seeds or config.seeds)
    _check_seeds(f"{path}: seeds", board.seeds)
    _check_seeds(f"{path}: splits", config.splits or [0])
    others = {group for other in boards.values() for group in other.groups or config.groups}
    own = board.groups or config.groups
    if board.tuning and (both := [title for title in own if title in others]):
        raise ConfigError(
            f"{path}: {name}: settings must not be tuned on {both[0]}, which another board is "
            "scored on"
        )
    return board


def _group_config(path: Path, entries: dict[str, dict], title: str) -> GroupConfig:
    """Return the group called `title`, with what the group that it names has."""
    group = _group(GroupConfig, entries[title], _where(path, title))
    if not group.settings_of:
        return group
    check_titles(f"{_where(path, title)}: there is no group", [group.settings_of], entries)
    other = _group(GroupConfig, entries[group.settings_of], _where(path, group.settings_of))
    _check_plain(other, _where(path, title))
    return replace(
        group,
        experiment=group.experiment or other.experiment,
        settings=merged(other.settings, group.settings),
        variants=other.variants | group.variants,
    )


def _shared_rows(
    path: Path, config: SweepConfig, board: BoardConfig
) -> tuple[dict[str, RowConfig], dict[str, list[str]]]:
    """Return the rows that groups share, by title, and those that try settings of each of them.

    On a board with `tuning` a row is replaced by one for each entry of its `tried`; on a board with
    `tried` it is followed by one for each entry that changes it. The second dict has the titles of
    these rows by that of the row, and is {} on other boards.
    """
    rows = {
        title: _group(RowConfig, entry, _where(path, title))
        for title, entry in (config.rows | _grid_rows(config.grid)).items()
    }
    others = [row.settings_of for row in rows.values() if row.settings_of]
    check_titles(f"{path} has no row", others, rows)
    rows = {
        title: _with_settings_of(rows, row, config.tried, _where(path, title))
        for title, row in rows.items()
    }
    chosen = board.rows or list(rows)
    check_titles(f"{path} has no row", chosen, rows)
    rows = {title: rows[title] for title in chosen}
    if not board.tuning and not board.tried:
        return rows, {}
    variants = {title: _variants(title, row, board) for title, row in rows.items()}
    tried = {title: list(own) for title, own in variants.items()}
    return {name: row for own in variants.values() for name, row in own.items()}, tried


def _with_settings_of(
    rows: dict[str, RowConfig], row: RowConfig, tried: list[dict], where: str
) -> RowConfig:
    """Return `row` with the settings of the row that it names, and with what it tries."""
    if not row.settings_of:
        return replace(row, tried=tried) if row.tried is None else row
    if row.tried or row.tuned:
        raise ConfigError(f"{where}: a row with settings_of has no tried and no tuned of its own")
    other = rows[row.settings_of]
    _check_plain(other, where)
    settings = merged(merged(other.settings, other.tuned or {}), row.settings)
    return replace(row, settings=settings, tried=[{}])


def _check_plain(other: RowConfig | GroupConfig, where: str) -> None:
    if other.settings_of:
        raise ConfigError(f"{where}: settings_of must name an entry without settings_of")


def _variants(title: str, row: RowConfig, board: BoardConfig) -> dict[str, RowConfig]:
    """Return the rows by which a board tries settings of `row`, by title."""
    if board.tuning:
        return {
            f"{title}: {settings_text(own)}": replace(row, tuned=own) for own in row.tried or []
        }
    tuned = row.tuned or {}
    own = merged(row.settings, tuned)
    return {title: row} | {
        f"{title}: {settings_text(entry)}": replace(row, tuned=tuned | entry, tried=[tuned | entry])
        for entry in board.tried
        if own | entry != own
    }


def _own_rows(path: Path, title: str, group: GroupConfig) -> dict[str, RowConfig]:
    rows = {
        row: replace(_group(RowConfig, entry, _where(path, title, row)), tried=[])
        for row, entry in (group.rows | _grid_rows(group.grid)).items()
    }
    for row, entry in rows.items():
        if entry.settings_of:
            where = _where(path, title, row)
            raise ConfigError(f"{where}: settings_of is for rows that groups share")
    return rows


def _cell(
    sweep: Sweep,
    title: str,
    row: str,
    entry: RowConfig,
    names: dict[str, str],
    plain: dict[str, Experiment],
) -> Cell:
    """Return the cell of the row `entry` in the group `title`. Raises ConfigError.

    names: hash of a training -> name of its runs, to which those of the cell are added. plain:
    experiments that `_problem` has loaded.
    """
    group = sweep.groups[title]
    file = entry.experiment or group.experiment or sweep.config.experiment
    if not file:
        raise ConfigError("an experiment must be named")
    if entry.tuned is not None and entry.tuned not in (entry.tried or []):
        raise ConfigError("tuned must be an entry of tried")
    if entry.against and not sweep.config.paired:
        raise ConfigError("against is for paired runs: set `paired` of the sweep")
    if entry.variant and entry.variant not in group.variants:
        if not any(entry.variant in other.variants for other in sweep.groups.values()):
            raise ConfigError(f"no group has a variant {as_yaml(entry.variant)}")
        return Cell(title, row, [], f"the group has no variant {as_yaml(entry.variant)}")
    common = merged(sweep.config.settings, group.settings)
    settings = merged(common, group.variants.get(entry.variant, {}))
    if problem := _problem(sweep, file, settings, entry, plain):
        return Cell(title, row, [], problem)
    for own in (entry.settings, entry.tuned or {}, sweep.choice.settings):
        settings = merged(settings, own)
    # Runs that try settings are named after the row that they tune.
    tuned = next((own for own, tried in sweep.tried.items() if row in tried), row)
    seeds = sweep.choice.seeds[: entry.runs or group.runs]
    experiments = _experiments(sweep, file, settings, seeds, [title, tuned], names)
    runs = [PlannedRun(title, row, experiment) for experiment in experiments]
    return Cell(title, row, runs, "", entry.variant)


def _experiments(
    sweep: Sweep,
    file: str,
    settings: dict[str, Any],
    seeds: Sequence[int],
    titles: Sequence[str],
    names: dict[str, str],
) -> Iterator[Experiment]:
    """Yield the experiment of each seed and split, with the name of its training's first run."""
    splits, paired = sweep.config.splits, sweep.config.paired
    for path in (TRAIN_SEED, *([SPLIT_SEED] if splits or paired else [])):
        if path in settings:
            raise ConfigError(f"{path} must not be set: seeds and splits do")
    is_fixed = SOURCE_SEED in settings
    # Settings are checked once, with the smallest seed: the first that a rule could refuse.
    settings = settings | dict.fromkeys(
        [TRAIN_SEED, *([] if is_fixed else [SOURCE_SEED])], min(seeds)
    )
    loaded = {
        split: load_file(file, **settings, **({} if split is None else {SPLIT_SEED: split}))
        for split in splits or [None]
    }
    words = re.sub(r"[^A-Za-z0-9.]+", "-", " / ".join(filter(None, titles)))[:60]
    for seed, (split, config) in itertools.product(seeds, loaded.items()):
        config = replace(config, training=replace(config.training, train_seed=seed))
        if not is_fixed:
            config = replace(config, source=replace(config.source, source_seed=seed))
        if paired:
            config = replace(config, split=replace(config.split, split_seed=seed))
        training = training_hash(config)
        parts = [words, *([] if split is None else [f"split-{split}"]), f"seed-{seed}"]
        name = names.setdefault(training, "-".join([*parts, training[:8]]))
        yield replace(config, name=name)


def _problem(
    sweep: Sweep,
    file: str,
    settings: dict[str, Any],
    entry: RowConfig,
    plain: dict[str, Experiment],
) -> str:
    """Return why the method of a row cannot learn in the world of its group, "" if it can.

    plain: the experiments of groups and their variants without the settings of rows, each of which
    is loaded once.
    """
    if not sweep.config.rows or "method.name" not in entry.settings:
        return ""
    name = entry.settings["method.name"]
    if not METHODS.has(name):
        raise ConfigError(f"unknown method {as_yaml(name)}{METHODS.suggest(name)}")
    key = f"{file} {settings}"
    if key not in plain:
        plain[key] = load_file(file, **settings)
    method, config = METHODS.load(name), plain[key]
    config = replace(config, method=replace(config.method, name=name, settings={}))
    if algorithm := entry.settings.get("source.algorithm"):
        source = replace(config.source, algorithm=algorithm, settings={})
        config = replace(config, source=source)
    try:
        method(method.Settings()).check(config, configured_world(config.env))
    except SettingError as error:
        return error.text if error.path in ("method.name", "source.algorithm") else ""
    return ""


def _table(config: SweepConfig, name: str) -> TableConfig:
    """Return the table of an analysis called `name`. Raises ConfigError."""
    table = _group(TableConfig, config.tables[name])
    if not (table.analysis and table.array and table.rows and table.models):
        raise ConfigError("analysis, array, models and the axis of the rows must be named")
    check_titles("the sweep has no row", table.models, config.rows)
    if not all(own and isinstance(own, list) for own in table.words.values()):
        raise ConfigError("words must be a list of texts for each label")
    if table.columns and table.strongest:
        raise ConfigError("columns are the seeds where the rows differ by seed")
    if table.strongest_of:
        entry = config.tables.get(table.strongest_of)
        if not isinstance(entry, dict) or not entry.get("strongest"):
            raise ConfigError("strongest_of must name a table with strongest rows")
    return table


def _check_titles_of(sweep: Sweep) -> None:
    """Raise ConfigError for a baseline, score or fact that does not exist, or equal cells."""
    config = sweep.config
    for title, group in sweep.groups.items():
        where, own = _where(sweep.path, title), sweep.cells_of(title)
        scores = [*config.scores, *config.means, *group.scores]
        check_titles(f"{where} has no score", scores, SCORES)
        rows = [cell.row for cell in own]
        if group.world:
            configs = [cell.config.evaluation for cell in own if cell.runs]
            worlds = {world_title(world) for config in configs for world in config.worlds}
            check_titles(f"{where} has no row that is evaluated in", [group.world], worlds)
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
    check_titles(f"{sweep.path} has no fact", config.facts, FACTS)
    named = [config.learner, *(entry.against for entry in sweep.rows.values())]
    check_titles(f"{sweep.path} has no row", filter(None, named), config.rows)


def _grid_rows(grid: dict[str, list]) -> dict[str, dict]:
    """Return the rows of a grid by title: the value of one setting, or "setting=value" of all.

    The rows are every combination of values. Raises ConfigError.
    """
    for path, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid: {path} must be a list of values, not {as_yaml(values)}")
    number = math.prod(map(len, grid.values()))
    if number > MOST_ROWS:
        raise ConfigError(f"grid makes {number} rows: at most {MOST_ROWS}")
    combinations = itertools.product(*grid.values())
    rows = [dict(zip(grid, own, strict=True)) for own in combinations if grid]
    if len(grid) == 1:
        return {label(next(iter(own.values()))): {"settings": own} for own in rows}
    short = {path: path.rpartition(".")[2] for path in grid}
    return {
        settings_text({short[path]: value for path, value in own.items()}): {"settings": own}
        for own in rows
    }


def _group(kind: type[Dataclass], entry: Any, where: str = "") -> Any:
    """Return `entry`, the group of settings at `where`, as the dataclass `kind`."""
    problems = [" ".join(problem).strip() for problem in validate(kind, entry)]
    if problems:
        raise ConfigError(_lines(f"{where}: {text}" if where else text for text in problems))
    return kind(**entry)


def _check_seeds(what: str, seeds: Sequence[int]) -> None:
    """Raise ConfigError unless `seeds` are different whole numbers from 0 on."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(f"{what} must be whole numbers from 0 on, each once, not {list(seeds)}")


def _gather(makers: Iterable[tuple[str, Callable]]) -> list:
    """Return what each maker returns. Raises one ConfigError with the problems of all.

    A sentence begins with the place that stands before its maker.
    """
    made, problems = [], []
    for where, make in makers:
        try:
            made.append(make())
        except ConfigError as error:
            heading, *lines = str(error).split("\n  ")
            problems += [f"{where}: {line}" for line in lines or [heading]]
    if problems:
        raise ConfigError(_lines(problems))
    return made


def _lines(problems: Iterable[str]) -> str:
    several = list(problems)
    if len(several) == 1:
        return several[0]
    return "\n  ".join([f"{len(several)} problems, nothing was run:", *several])
