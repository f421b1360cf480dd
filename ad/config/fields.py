"""Declare the settings of an experiment, and validate plain data against the declarations.

A group of settings is a frozen dataclass. The type of a setting is bool, int, float, str, dict,
list[...], Optional[...] or another such dataclass (a section). `field` declares its default and
limits; the string below it is its line in `--help`. Pyrallis converts plain data to the dataclass,
but it also converts 2.7 to 2 and "maybe" to True, so `validate` runs first.
"""

import copy
import dataclasses
import operator
import typing
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol, TypeGuard

import pyrallis

from ad.errors import Problem
from envs.registry import Registry, did_you_mean


class Dataclass(Protocol):
    """A group of settings."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]


LIMITS = {
    "at_least": (operator.ge, "at least"),
    "above": (operator.gt, "above"),
    "at_most": (operator.le, "at most"),
    "below": (operator.lt, "below"),
    "choices": (lambda value, choices: value in choices, "one of"),
}
TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a group of settings (key: value)",
}
MAX_INT = 2**63 - 1  # the largest int64


def field(default: Any, *, affects_results: bool = True, added: bool = False, **limits: Any) -> Any:
    """Return a dataclass field with a default and limits (the keys of `LIMITS`).

    A setting that does not affect results (a device, a logging interval) is left out of the hash
    of the configuration and may change when a run is resumed. One that was `added` when there were
    records already is left out of the hash while it has its default, which changes nothing: the
    records keep their hashes. Raises TypeError for a limit that is not in `LIMITS`.
    """
    if unknown := limits.keys() - LIMITS.keys():
        raise TypeError(f"field() has no limit {unknown}")
    return dataclasses.field(
        default_factory=lambda: copy.deepcopy(default),
        metadata={"affects_results": affects_results, "added": added, **limits},
    )


def is_unused(entry: dataclasses.Field, value: Any) -> bool:
    """Return whether a setting was added later and has its default."""
    default = entry.default_factory
    return entry.metadata.get("added", False) and callable(default) and value == default()


def validate(group: type[Dataclass], data: Any, path: str = "") -> Iterator[Problem]:
    """Yield every problem of plain `data`, set at the dotted `path`, as the dataclass `group`."""
    if not isinstance(data, dict):
        yield Problem(path, f"must be {TYPE_NAMES[dict]}, not {as_yaml(data)}")
        return
    fields = {entry.name: entry for entry in dataclasses.fields(group)}
    for name, value in data.items():
        here = join(path, name)
        if name not in fields:
            hint = did_you_mean(name, setting_paths(group)) or f" (known: {', '.join(fields)})"
            yield Problem(here, f"is not a setting{hint}")
        elif is_section(kind := fields[name].type):
            yield from validate(kind, {} if value is None else value, here)
        elif text := value_problem(value, kind, fields[name].metadata):
            yield Problem(here, text)


def is_section(kind: Any) -> TypeGuard[type[Dataclass]]:
    """Return whether the type of a setting is a dataclass, whose settings are nested."""
    return dataclasses.is_dataclass(kind)


def value_problem(value: Any, kind: Any, limits: Mapping[str, Any]) -> str:
    """Return why `value` is not of the type `kind` or breaks one of `limits`, '' if it is fine."""
    if not _has_type(value, kind):
        is_bare_word = kind is str and not isinstance(value, dict | list)  # such as 7 or true
        hint = " (in quotes it is text)" if is_bare_word else ""
        return f"must be {_type_name(kind)}, not {as_yaml(value)}{hint}"
    if type(value) is int and abs(value) > MAX_INT:
        return f"is too large a number: {as_yaml(value)}"
    for name, (holds, words) in LIMITS.items():
        limit = limits.get(name)
        if limit is not None and value is not None and not holds(value, limit):
            if isinstance(limit, Registry):
                return _component_problem(value, limit)
            bound = limit if name != "choices" else ", ".join(limit)
            return f"must be {words} {bound}, not {as_yaml(value)}"
    return ""


def _component_problem(name: str, registry: Registry) -> str:
    """Return why no component is called `name`, '' if one from outside the project is."""
    if not registry.has(name):
        return f"is not a known {registry.kind}: {as_yaml(name)}{registry.suggest(name)}"
    try:
        registry.load(name)
    except ValueError as error:
        return f"cannot be loaded: {error}"
    return ""


def settings_class(registry: Registry, name: str, attribute: str = "Settings") -> type[Dataclass]:
    """Return the settings of a component, the dataclass that is its `attribute`.

    Raises ValueError unless all its defaults are valid.
    """
    group = getattr(registry.load(name), attribute)
    if name in registry:
        return group
    try:
        types = typing.get_type_hints(group)
        for entry in dataclasses.fields(group):
            entry.type = types[entry.name]  # a text, if the file postpones its annotations
        problems = [" ".join(found) for found in validate(group, pyrallis.encode(group()))]
    except Exception as error:  # another package's class may be anything
        problems = [" ".join(str(error).split())]
    if problems:
        raise ValueError(f"the {attribute} of {name} are no group of settings: {problems[0]}")
    return group


def _has_type(value: Any, kind: Any) -> bool:
    """Return whether plain `value` is of the type `kind`; the only conversion is int to float."""
    if typing.get_origin(kind) is typing.Union:
        return any(_has_type(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        (item,) = typing.get_args(kind)
        return type(value) is list and all(_has_type(entry, item) for entry in value)
    return type(value) is kind or (kind is float and type(value) is int)


def _type_name(kind: Any) -> str:
    """Return the type `kind` in words that follow "must be"."""
    if typing.get_origin(kind) is typing.Union:
        return " or ".join(_type_name(option) for option in typing.get_args(kind))
    if kind is type(None):
        return "null"
    if typing.get_origin(kind) is list:
        return f"{TYPE_NAMES[list]} whose entries are each {_type_name(typing.get_args(kind)[0])}"
    return TYPE_NAMES.get(kind) or f"declared with another type than {kind}"


def as_yaml(value: Any, max_length: int = 60) -> str:
    """Return plain `value` as a user writes it in YAML, cut at `max_length` characters."""
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= max_length else text[: max_length - 3] + "..."


def label(value: Any) -> str:
    """Return the text of a setting's value in a table."""
    if isinstance(value, str):
        return value
    return f"{value:g}" if isinstance(value, float) else as_yaml(value)


def setting_paths(group: type[Dataclass], path: str = "") -> list[str]:
    """Return the dotted paths of all settings of the dataclass `group`, the nested ones last."""
    own = [(join(path, entry.name), entry.type) for entry in dataclasses.fields(group)]
    nested = [
        inner for here, kind in own if is_section(kind) for inner in setting_paths(kind, here)
    ]
    return [here for here, _ in own] + nested


def join(path: str, name: str) -> str:
    """Return the dotted path of `name` inside `path`; either may be empty."""
    return f"{path}.{name}" if path and name else path or name


def merged(settings: Mapping[str, Any], by: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings at dotted paths, with those of `by` in place of all at or below them."""
    kept = {
        path: value
        for path, value in settings.items()
        if not any(f"{path}.".startswith(f"{other}.") for other in by)
    }
    return kept | dict(by)


def overlaps(path: str, other: str) -> bool:
    """Return whether two dotted paths are equal or one lies inside the other."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")
