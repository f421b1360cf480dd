"""Read the files that name many experiments, with a line for each mistake in them."""

import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ad.config.fields import as_yaml, validate
from ad.config.parser import load_file, read_text
from ad.config.schema import Experiment
from ad.config.yaml_io import YamlFile
from ad.errors import ConfigError


def read_file(path: Path, kind: type) -> Any:
    """Return the YAML at `path` as the dataclass `kind`. Raises ConfigError."""
    file = YamlFile(read_text(path))
    problems = file.problems or list(validate(kind, file.data))
    if problems:
        raise ConfigError(_lines([f"{path}: {where} {text}" for where, text in problems]))
    return kind(**file.data)


def read_lines(path: Path, kind: type) -> list:
    """Return the lines of a CSV file as dataclasses `kind` of texts, none without a file.

    Raises ConfigError for other columns.
    """
    if not path.exists():
        return []
    names = [field.name for field in fields(kind)]
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != names:
            raise ConfigError(f"{path} must have the columns {', '.join(names)}")
        lines = list(reader)
    if any(None in line or None in line.values() for line in lines):
        raise ConfigError(f"{path} has a line with too few or too many cells")
    return [kind(**line) for line in lines]


def group_of(kind: type, entry: Any, where: str) -> Any:
    """Return `entry`, the group of settings at `where`, as the dataclass `kind`.

    Raises ConfigError.
    """
    if not isinstance(entry, dict):
        raise ConfigError(f"{where} must be a group of settings, not {as_yaml(entry)}")
    if problems := list(validate(kind, entry)):
        raise ConfigError(_lines([f"{where}: {name} {text}" for name, text in problems]))
    return kind(**entry)


def experiment_of(file: str, settings: dict[str, Any], where: str) -> Experiment:
    """Return the experiment of `file` with dotted `settings`, which come from `where`.

    Raises ConfigError that names `where`.
    """
    try:
        return load_file(file, **settings)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def check_seeds(what: str, seeds: Sequence[int]) -> None:
    """Raise ConfigError unless `seeds`, named `what`, are different whole numbers from 0 on."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise ConfigError(f"{what} must be whole numbers from 0 on, each once, not {list(seeds)}")


def gather(make: Callable[[str], Any], names: Iterable[str]) -> list:
    """Return `make(name)` for each name. Raises one ConfigError with the problems of all."""
    made, problems = [], []
    for name in names:
        try:
            made.append(make(name))
        except ConfigError as error:
            heading, *lines = str(error).split("\n  ")
            problems += lines or [heading]
    if problems:
        raise ConfigError(_lines(problems))
    return made


def _lines(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"{len(problems)} problems, nothing was run:", *problems])
