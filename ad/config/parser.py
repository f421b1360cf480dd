"""From the words of a command line and a YAML file to an `Experiment`, or to every reason why not.

    python -m scripts.train --config_path configs/quickstart.yaml --training.steps 500

The word after `--section.field` is read as YAML ([[1, 2], [3, 4]] is a list) and goes before the
file; of a repeated option the last one counts. What is special to the chosen source algorithm or
method stands under `source.settings` or `method.settings`; the class's `Settings` declares it.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrallis

from ad.config.constraints import broken_rules
from ad.config.fields import Problem, check, did_you_mean, join, shown, touches
from ad.config.schema import Experiment
from ad.config.yaml_io import LARGEST, Document
from ad.errors import ConfigError
from ad.registry import METHODS, SOURCES

COMPONENTS = {"source": (SOURCES, "algorithm"), "method": (METHODS, "name")}
MOST_TUNED = 4096  # settings of one search


@dataclass(frozen=True)
class Invocation:
    """What a command line asks for: a configuration, and whether the verb's flag is set."""

    config: Experiment
    flag: bool = False


def load(argv: Sequence[str], flag: str = "fresh") -> Invocation:
    """The invocation that `argv` (without the program's name) asks for. Writes nothing.

    `flag` is the one word that the verb knows besides the settings: `--<flag> true`.

    Raises ConfigError with a line for each problem of the words, the file and the settings.
    """
    options, problems = _options(argv)
    is_set = _flag(flag, options, problems)
    file = options.pop("config_path", None)
    document = Document("" if file is None else _file_text(file))
    problems += document.problems
    if isinstance(document.data, dict):
        for path, word in options.items():
            problems += _override(document.data, path, word)
        config = _judge(document.data, problems)
    elif not document.problems:
        problems += check(Experiment, document.data)
    if problems:
        raise ConfigError(_message(problems, document, options, file))
    return Invocation(config, is_set)


def _options(argv: Sequence[str]) -> tuple[dict[str, str], list[Problem]]:
    """`--name word` and `--name=word` as a dict, and what is neither."""
    words, options, problems = deque(argv), {}, []
    while words:
        word = words.popleft()
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            problems.append(Problem(shown(word), "is not an option: write --section.field value"))
        elif equals:
            options[name] = value
        elif words and not words[0].startswith("--"):
            options[name] = words.popleft()
        else:
            problems.append(Problem(word, "needs a value"))
    return options, problems


def _flag(flag: str, options: dict[str, str], problems: list[Problem]) -> bool:
    word = options.pop(flag, "false")
    if word not in ("true", "false"):
        problems.append(Problem(f"--{flag}", f"must be true or false, not {shown(word)}"))
    return word == "true"


def _file_text(file: str) -> str:
    """The text of a YAML file, or a ConfigError that says why there is none."""
    try:
        with Path(file).open("rb") as stream:
            return stream.read(LARGEST + 1).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not a text file (UTF-8)") from None
    except FileNotFoundError:
        siblings = [path.stem for path in Path(file).parent.glob("*.yaml")]
        hint = did_you_mean(Path(file).stem, siblings)
        raise ConfigError(f"there is no file {file}{hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise ConfigError(f"{file} cannot be read: {reason}") from None


def _override(data: dict, path: str, word: str) -> list[Problem]:
    """Put `word` at the dotted `path` of `data`: as it is where text is expected, else as YAML."""
    *sections, name = path.split(".")
    for section in sections:
        data[section] = {} if data.get(section) is None else data[section]
        data = data[section]
        if not isinstance(data, dict):
            return []  # `check` finds the section wrong
    if _type_at(path) is str or not word.strip():
        data[name] = word
        return []
    document = Document(word)
    data[name] = document.data
    return [Problem(join(path, problem.path), problem.text) for problem in document.problems]


def _type_at(path: str) -> Any:
    """The declared type of the setting at the dotted `path`, None if there is no such setting."""
    kind = Experiment
    for name in path.split("."):
        known = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
        kind = {field.name: field.type for field in known}.get(name)
    return kind


def _judge(data: dict, problems: list[Problem]) -> Experiment:
    """The experiment that `data` describes as far as it is right; adds to `problems`."""
    refused = {problem.path for problem in problems}
    problems += [problem for problem in check(Experiment, data) if problem.path not in refused]
    bad = {problem.path for problem in problems}
    config = pyrallis.decode(Experiment, _without(data, bad))
    problems += broken_rules(config, bad)
    for section in COMPONENTS:
        config = _with_own_settings(config, section, problems)
    if not problems and config.tune.grid:
        problems += _grid_problems(config)
    return config


def _without(data: dict, bad: set[str], path: str = "") -> dict:
    """`data` without the settings at the paths in `bad` and without sections that say nothing."""
    good = {name: value for name, value in data.items() if join(path, name) not in bad}
    return {
        name: _without(value, bad, join(path, name)) if isinstance(value, dict) else value
        for name, value in good.items()
        if path or value is not None
    }


def _with_own_settings(config: Experiment, section: str, problems: list[Problem]) -> Experiment:
    """`config` with the complete settings of the section's chosen class; adds to `problems`."""
    registry, name = COMPONENTS[section]
    part, path = getattr(config, section), f"{section}.settings"
    if any(touches(problem.path, f"{section}.{name}") for problem in problems):
        return config  # it is not known whose settings they are
    if problems and not part.settings:
        return config  # nothing to judge: spares the import of the class
    group = registry.load(getattr(part, name)).Settings
    found = list(check(group, part.settings, path))
    if not found:
        settings = pyrallis.encode(pyrallis.decode(group, part.settings))
        part = dataclasses.replace(part, settings=settings)
    problems += found
    return dataclasses.replace(config, **{section: part})


def _grid_problems(config: Experiment) -> Iterator[Problem]:
    """What is wrong with the values that the source's settings are to be tuned over."""
    group, grid = SOURCES.load(config.source.algorithm).Settings, config.tune.grid
    for name, values in grid.items():
        if type(values) is not list or not values:
            text = f"must be a list of values, not {shown(values)}"
            yield Problem(join("tune.grid", name), text)
        else:
            found = (list(check(group, {name: value}, "tune.grid")) for value in values)
            yield from next(filter(None, found), [])
    number = config.tune.samples or math.prod(len(v) for v in grid.values() if type(v) is list)
    if number > MOST_TUNED:
        yield Problem("tune.grid", f"makes {number} settings to try: at most {MOST_TUNED}")


def _message(
    problems: list[Problem], document: Document, options: dict[str, str], file: str | None
) -> str:
    """One line a problem: the setting, where it was set, what is wrong."""

    def place(path: str) -> str:
        if any(touches(path, option) for option in options):
            return " (command line)"
        line = document.lines.get(path)
        return f" ({file}, line {line})" if file and line else ""

    lines = [f"{path}{place(path)} {text}" if path else f"{file} {text}" for path, text in problems]
    if len(lines) == 1:
        return lines[0]
    return "\n  ".join([f"{len(lines)} problems, nothing was written:", *lines])
