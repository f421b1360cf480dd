"""The file of findings: models, and tables of what analyses say about them.

`configs/interpret/findings.yaml` names the seeds, the models and the tables. A model is an
experiment that is trained once for each seed, which is also that of its source agents. A table
shows one array of one analysis.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ad.config.fields import as_yaml, field
from ad.errors import ConfigError
from ad.interpret.labeled import LEARNING
from ad.registry import ANALYSES
from ad.sweeps.files import check_seeds, experiment_of, gather, group_of, read_file
from ad.sweeps.planned import SEEDS, PlannedRun, planned_run
from envs.registry import did_you_mean


@dataclass(frozen=True)
class ModelConfig:
    """A model: an experiment and what differs from its file."""

    experiment: str = field("")  # the YAML file of the experiment
    settings: dict = field({})  # dotted setting: its value


@dataclass(frozen=True)
class TableConfig:
    """A table: an array of an analysis, in which all axes but one or two have a fixed label."""

    analysis: str = field("")  # the name of the analysis
    array: str = field("")  # the name of its array
    interval: str = field("")  # the array with the interval of each value; empty for none
    models: list[str] = field([])  # titles of models
    at: dict = field({})  # axis: its label
    rows: str = field("")  # the axis whose labels are the rows
    only: list[str] = field([])  # labels of the rows to show; empty: all
    columns: str = field("")  # the axis whose labels are the columns; empty: the seeds
    strongest: int = field(0, at_least=0)  # rows of largest absolute value for each seed; 0: all
    rows_of: str = field("")  # the table whose strongest rows of each seed are shown; empty: all
    columns_of: str = field("")  # the table whose strongest row of each seed is the only column
    over_training: bool = field(False)  # whether the array is that of all kept checkpoints
    decimals: int = field(2, at_least=0, at_most=6)

    @property
    def is_ranked(self) -> bool:
        """Whether the rows are ranks, in which each seed has its own labels."""
        return bool(self.strongest or self.rows_of)

    @property
    def is_crossed(self) -> bool:
        """Whether the columns are labels of a second axis, each with the mean over the seeds."""
        return bool(self.columns and not self.columns_of)


@dataclass(frozen=True)
class FindingsConfig:
    """The content of findings.yaml."""

    page: str = field("configs/interpret/README.md")  # the file that the tables stand in
    seeds: list[int] = field([0, 1, 2])  # of trainings and source agents
    models: dict = field({})  # the models by title
    tables: dict = field({})  # the tables by name, which is that of their place in the page


@dataclass(frozen=True)
class Findings:
    """The models and tables of a file: the runs by model, and the tables by name.

    `records` is the CSV file of the records.
    """

    records: Path
    page: Path
    seeds: Sequence[int]
    models: dict[str, list[PlannedRun]]
    tables: dict[str, TableConfig]

    def planned_runs(self) -> list[PlannedRun]:
        """Return the runs of all models, those of a model together.

        Shards take turns over this order, so that each has some of the seeds of a model.
        """
        return [run for runs in self.models.values() for run in runs]

    def tables_of(self, run: PlannedRun) -> list[str]:
        """Return the names of the tables that show the model of `run`."""
        return [name for name, table in self.tables.items() if run.changed in table.models]


def load_findings(path: Path, records: Path) -> Findings:
    """Read the file at `path`, whose records are those at `records`.

    Raises ConfigError with a line for each entry that is wrong.
    """
    config = read_file(path, FindingsConfig)
    check_seeds(f"{path}: seeds", config.seeds)
    models = dict(
        zip(config.models, gather(partial(_runs, path, config), config.models), strict=True)
    )
    tables = dict(
        zip(config.tables, gather(partial(_table, path, config), config.tables), strict=True)
    )
    return Findings(records, Path(config.page), config.seeds, models, tables)


def _runs(path: Path, config: FindingsConfig, title: str) -> list[PlannedRun]:
    where = f"{path}: {title}"
    model = group_of(ModelConfig, config.models[title], where)
    if not model.experiment:
        raise ConfigError(f"{where} must name an experiment")
    if own := [name for name in SEEDS if name in model.settings]:
        raise ConfigError(f"{where} must not set {own[0]}: seeds does")
    experiment = experiment_of(model.experiment, model.settings, where)
    return [planned_run(title, experiment, seed) for seed in config.seeds]


def _table(path: Path, config: FindingsConfig, name: str) -> TableConfig:
    where = f"{path}: {name}"
    table = group_of(TableConfig, config.tables[name], where)
    if problem := _problem(table, config):
        raise ConfigError(f"{where} {problem}")
    return table


def _problem(table: TableConfig, config: FindingsConfig) -> str | None:
    """Return what is wrong with a table, None if nothing is."""
    known = [*ANALYSES.names(), *([LEARNING] if table.over_training else [])]
    if table.analysis not in known:
        hint = did_you_mean(table.analysis, known) or ""
        return f"names the analysis {as_yaml(table.analysis)}, which is none{hint}"
    if not table.array or not table.rows or not table.models:
        return "must name an array, the axis of its rows, and models"
    if unknown := [title for title in table.models if title not in config.models]:
        hint = did_you_mean(unknown[0], config.models) or ""
        return f"names the model {as_yaml(unknown[0])}, which is none{hint}"
    if table.columns and table.is_ranked:
        return "has columns: rows that differ by seed have the seeds as columns"
    if table.columns_of and not table.columns:
        return "names columns_of, but no columns"
    for name in ("rows_of", "columns_of"):
        other = getattr(table, name)
        entry = config.tables.get(other)
        if other and not (isinstance(entry, dict) and entry.get("strongest")):
            return f"names {name} {as_yaml(other)}, which is no table with strongest rows"
    return None
