"""Build an `Experiment` from a command line and a YAML file, or report every problem in them.

    python -m scripts.train configs/quickstart.yaml --training.steps 500

The experiment, a word of its own or that of `--config_path`, is a file, the folder of a run, or the
place of a class, which is a component among the defaults.
The word after `--section.field` is read as YAML, e.g. [[1, 2], [3, 4]], and overrides the file; the
last of repeated options counts. `source.settings` and `method.settings` hold the settings of the
chosen source algorithm and method, which the `Settings` of its class declares.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import pyrallis

from ad.config.component_constraints import COMPONENT_CONSTRAINTS
from ad.config.constraints import CONSTRAINTS
from ad.config.fields import (
    Dataclass,
    is_unused,
    join,
    overlaps,
    setting_paths,
    settings_class,
    validate,
)
from ad.config.options import read_words, unknown_options
from ad.config.replaced import drop_replaced
from ad.config.schema import Experiment, SplitConfig
from ad.config.yaml_io import MAX_BYTES, YamlFile
from ad.errors import ConfigError, Problem
from ad.registry import ENCODERS, MEMORIES, METHODS, SOURCES
from envs import make_base
from envs.presets import resolve_length
from envs.registry import PLACE, load_class, suggestion
from envs.world import World

PLUGGED = {  # setting -> the kinds of components, besides worlds, that a bare class can be
    "source.algorithm": SOURCES,
    "model.encoder": ENCODERS,
    "model.memory": MEMORIES,
    "method.name": METHODS,
}
COMPONENTS = {"source": (SOURCES, "algorithm"), "method": (METHODS, "name")}


def load(argv: Sequence[str]) -> Experiment:
    """Return the experiment of a command line, without the program's name. Writes nothing.

    Raises ConfigError with a line for each problem of the options, the file and the settings.
    """
    return load_words(*read_words(argv, ["config_path"]))


def load_words(
    words: dict[str, str],
    problems: list[Problem],
    own: Iterable[str] = (),
    warn: Callable[[str], object] = lambda sentence: None,
) -> Experiment:
    """Return the experiment of `words`: option -> word, the settings and `config_path`.

    `problems` are those of the command line, and `own` the names of other options of the verb, for
    hints. `warn` is called with a sentence for settings of the file that are dropped, since the
    command line names another component. Raises ConfigError as `load` does.
    """
    path, implied = _named(words.pop("config_path", None))
    file = YamlFile("" if path is None else read_text(path))
    for setting, word in implied.items():
        _put(file.data, setting, word)
    sections = {field.name for field in dataclasses.fields(Experiment)}
    settings = {name: word for name, word in words.items() if name.split(".")[0] in sections}
    others = [name for name in words if name not in settings]
    problems += unknown_options(others, ["config_path", *own, *setting_paths(Experiment)])
    problems += file.problems
    dropped = list(drop_replaced(file, settings))
    for setting, word in settings.items():
        problems += _override(file.data, setting, word)
    config = _build(file.data, problems)
    if problems:
        raise _error(problems, file, path, settings, " (command line)")
    for sentence in dropped:
        warn(f"{path}: {sentence}")
    return config


def load_file(path: str | Path, /, **overrides: Any) -> Experiment:
    """Return the experiment of a YAML file. `overrides`: dotted setting -> plain value.

    Raises ConfigError with a line for each problem of the file and the settings.
    """
    file = YamlFile(read_text(path))
    problems = list(file.problems)
    list(drop_replaced(file, overrides))
    for setting, value in overrides.items():
        _put(file.data, setting, value)
    config = _build(file.data, problems)
    if problems:
        raise _error(problems, file, str(path), overrides)
    return config


def _named(word: str | None) -> tuple[str | None, dict[str, Any]]:
    """Return the YAML file that `word` stands for, if any, and the settings that it implies.

    A run's folder stands for the experiment in it, whose name and root are where the folder is, and
    the place of a class for the defaults with that component. Raises ConfigError.
    """
    if word is None:
        return None, {}
    if PLACE.fullmatch(word) and not os.path.exists(word):
        return None, _component(word)
    if word.endswith(".py"):
        raise ConfigError(f"{word} is no experiment; a class in it is {word}:ItsName")
    if not os.path.isdir(word):
        return word, {}
    folder = Path(os.path.abspath(word))  # not resolved: logs/ may be a link
    if not (folder / "config.yaml").is_file() or folder.parent.name != "logs":
        raise ConfigError(f"{word} is not the folder of a run: logs/<run> with a config.yaml")
    root = folder.parents[1]
    place = "." if root == Path(os.path.abspath(".")) else str(root)
    return str(Path(word) / "config.yaml"), {"name": folder.name, "root": place}


def _component(place: str) -> dict[str, Any]:
    """Return the settings of an experiment with the class at `place`, a component of any kind.

    A world with few tasks trains on three quarters of them. Raises ConfigError.
    """
    try:
        found = load_class(place)
        for setting, registry in PLUGGED.items():
            if issubclass(found, load_class(registry.base)):
                return {setting: place}
        if not issubclass(found, World | gymnasium.Env):
            kinds = ", ".join(registry.kind for registry in PLUGGED.values())
            raise ConfigError(f"{place} is none of these: world, {kinds}")
        default, tasks = SplitConfig().num_train_tasks, make_base(place).all_tasks()
    except (ValueError, TypeError) as error:  # TypeError: an environment that needs arguments
        raise ConfigError(f"{place} cannot be used: {error}") from None
    return {"env.id": place, "split.num_train_tasks": min(default, max(1, 3 * len(tasks) // 4))}


def read_text(path: str | Path) -> str:
    """Return the text of a YAML file. Raises ConfigError if it cannot be read."""
    try:
        with Path(path).open("rb") as file:
            return file.read(MAX_BYTES + 1).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file (UTF-8)") from None
    except FileNotFoundError:
        folder = Path(path).parent
        siblings = [*folder.glob("*.yaml"), *(folder / "configs").glob("*.yaml")]
        by_name = {sibling.stem: sibling for sibling in siblings}
        hint = suggestion(Path(path).stem, by_name)
        raise ConfigError(f"there is no file {path}{hint}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", error)
        raise ConfigError(f"{path} cannot be read: {reason}") from None


def _override(data: Any, path: str, word: str) -> list[Problem]:
    """Set the dotted `path` of `data` to `word`, read as YAML unless the setting is text."""
    kind = Experiment  # the declared type of the setting, None if there is none
    for name in path.split("."):
        known = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
        kind = {field.name: field.type for field in known}.get(name)
    if kind is str or not word.strip():
        _put(data, path, word)
        return []
    value = YamlFile(word)
    _put(data, path, value.data)
    return [Problem(join(path, problem.path), problem.text) for problem in value.problems]


def _put(data: Any, path: str, value: Any) -> None:
    """Set the dotted `path` of nested `data`; what is no section becomes one, without the value.

    So `validate` reports a path below a setting that has no parts.
    """
    if not isinstance(data, dict):
        return
    *sections, name = path.split(".")
    for section in sections:
        inner = data.get(section)
        data[section] = inner if isinstance(inner, dict) else {}
        data = data[section]
    data[name] = value


def _build(data: Any, problems: list[Problem]) -> Experiment:
    """Return the experiment of the valid settings in `data`; append all others to `problems`."""
    env = data.get("env") if isinstance(data, dict) else None
    if isinstance(env, dict) and isinstance(env.get("id"), str):  # of a preset or not
        env.setdefault("episode_length", resolve_length(env["id"]))
    refused = {problem.path for problem in problems}
    problems += [found for found in validate(Experiment, data) if found.path not in refused]
    if not isinstance(data, dict):
        return Experiment()
    bad = {problem.path for problem in problems}
    config = pyrallis.decode(Experiment, _without(data, bad))
    problems += CONSTRAINTS.violations(config, bad)
    is_sound = not problems
    for section in COMPONENTS:
        config = _complete_settings(config, section, problems)
    if is_sound:
        bad = {problem.path for problem in problems}
        problems += COMPONENT_CONSTRAINTS.violations(config, bad)
    return config


def _without(data: dict, bad: set[str], path: str = "") -> dict:
    """Return `data` without the settings at the paths in `bad` and without empty sections."""
    good = {name: value for name, value in data.items() if join(path, name) not in bad}
    return {
        name: _without(value, bad, join(path, name)) if isinstance(value, dict) else value
        for name, value in good.items()
        if path or value is not None
    }


def _complete_settings(config: Experiment, section: str, problems: list[Problem]) -> Experiment:
    """Return `config` with the defaults of the section's chosen class; append to `problems`."""
    registry, name = COMPONENTS[section]
    part, path = getattr(config, section), f"{section}.settings"
    if any(overlaps(problem.path, f"{section}.{name}") for problem in problems):
        return config  # the class is unknown
    if problems and not part.settings:
        return config  # spares the import of the class
    try:
        group = settings_class(registry, getattr(part, name))
        found = list(validate(group, part.settings, path))
        if not found:
            part = dataclasses.replace(part, settings=_completed(group, part.settings))
    except ValueError as error:  # another package's Settings may raise it for their values
        found = [Problem(f"{section}.{name}", f"cannot be used: {error}")]
    problems += found
    return dataclasses.replace(config, **{section: part})


def _completed(group: type[Dataclass], settings: dict) -> dict:
    """Return valid `settings` with the defaults of `group`, but for added ones that have theirs."""
    values = pyrallis.encode(pyrallis.decode(group, settings))
    entries = dataclasses.fields(group)
    unused = {entry.name for entry in entries if is_unused(entry, values[entry.name])}
    return {name: value for name, value in values.items() if name not in unused}


def _error(
    problems: list[Problem],
    file: YamlFile,
    path: str | None,
    overrides: Iterable[str],
    origin: str = "",
) -> ConfigError:
    """Return an error with a line for each problem: the setting, where it was set, what is wrong.

    `path`: the path of `file`. `origin`: where the settings `overrides` were set.
    """

    def place(setting: str) -> str:
        if any(overlaps(setting, other) for other in overrides):
            return origin
        line = file.lines.get(setting)
        return f" ({path}, line {line})" if path and line else ""

    lines = [f"{name}{place(name)} {text}" if name else f"{path} {text}" for name, text in problems]
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError("\n  ".join([f"{len(lines)} problems, nothing was written:", *lines]))
