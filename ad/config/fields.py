"""How a setting is declared, and the strict check of plain data against such declarations.

A group of settings is a dataclass. A field's type is bool, int, float, str, dict, list[...],
Optional[...] or another such dataclass (a section); its limits are given to `setting`; the comment
on its line is its help text. Pyrallis turns plain data into the dataclass, but it also turns 2.7
into 2 and "maybe" into True, so `check` looks first.
"""

import copy
import dataclasses
import difflib
import operator
import typing
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

LIMITS = {
    "at_least": (operator.ge, "at least"),
    "above": (operator.gt, "above"),
    "at_most": (operator.le, "at most"),
    "below": (operator.lt, "below"),
    "choices": (lambda value, choices: value in choices, "one of"),
}
KINDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a group of settings (key: value)",
}
LARGEST_INT = 2**63 - 1  # what an int64 array can hold


class Problem(NamedTuple):
    """What is wrong (`text`, the end of a sentence) with the setting at the dotted `path`."""

    path: str
    text: str


def setting(default: Any, *, free: bool = False, **limits: Any) -> Any:
    """A dataclass field with a default, limits (the keys of `LIMITS`) and `free`.

    A free setting cannot change a result (a device, a pace of logging): it takes no part in the
    configuration's hash, and may differ when a run is resumed.
    """
    if unknown := limits.keys() - LIMITS.keys():
        raise TypeError(f"setting() knows no limit {unknown}")
    return dataclasses.field(
        default_factory=lambda: copy.deepcopy(default),
        metadata={"free": free, **limits},
    )


def check(group: type, data: Any, path: str = "") -> Iterator[Problem]:
    """Every problem of plain `data`, found at `path`, as settings of the dataclass `group`."""
    if not isinstance(data, dict):
        yield Problem(path, f"must be {KINDS[dict]}, not {shown(data)}")
        return
    fields = {field.name: field for field in dataclasses.fields(group)}
    for name, value in data.items():
        here = join(path, name)
        if name not in fields:
            hint = did_you_mean(name, _paths(group)) or f" (known: {', '.join(fields)})"
            yield Problem(here, f"is not a setting{hint}")
        elif dataclasses.is_dataclass(fields[name].type):
            yield from check(fields[name].type, {} if value is None else value, here)
        elif text := _misfit(value, fields[name]):
            yield Problem(here, text)


def _misfit(value: Any, field: dataclasses.Field) -> str:
    """Why `value` does not fit `field`; an empty string if it does."""
    if not _is_a(value, field.type):
        return f"must be {_kind(field.type)}, not {shown(value)}{_quote_hint(value, field.type)}"
    if type(value) is int and abs(value) > LARGEST_INT:
        return f"is too large a number: {shown(value)}"
    for name, (holds, words) in LIMITS.items():
        limit = field.metadata.get(name)
        if limit is not None and not holds(value, limit):
            bound = limit if name != "choices" else ", ".join(limit)
            return f"must be {words} {bound}, not {shown(value)}"
    return ""


def _is_a(value: Any, kind: Any) -> bool:
    """Whether plain `value` is of the type `kind` without any conversion but int to float."""
    if typing.get_origin(kind) is typing.Union:
        return any(_is_a(value, option) for option in typing.get_args(kind))
    if typing.get_origin(kind) is list:
        (item,) = typing.get_args(kind)
        return type(value) is list and all(_is_a(entry, item) for entry in value)
    return type(value) is kind or (kind is float and type(value) is int)


def _kind(kind: Any) -> str:
    """The type `kind` in words, for "must be ..."."""
    if typing.get_origin(kind) is typing.Union:
        return " or ".join(_kind(option) for option in typing.get_args(kind))
    if kind is type(None):
        return "null"
    if typing.get_origin(kind) is list:
        return f"{KINDS[list]} whose entries are each {_kind(typing.get_args(kind)[0])}"
    return KINDS[kind]


def _quote_hint(value: Any, kind: Any) -> str:
    bare_word = kind is str and not isinstance(value, dict | list)
    return " (in quotes it is text)" if bare_word else ""


def shown(value: Any, length: int = 60) -> str:
    """`value` as the user wrote it, in YAML's words, cut at `length` characters."""
    words = {True: "true", False: "false", None: "null"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' if `name` is close to the last word of a `known` path, else ''."""
    last_words = {path.rpartition(".")[2]: path for path in reversed(list(known))}
    near = difflib.get_close_matches(name, last_words, n=1)
    return f"; did you mean {last_words[near[0]]}?" if near else ""


def _paths(group: type, path: str = "") -> list[str]:
    """The dotted paths of all settings of the dataclass `group`, the nested ones last."""
    deep = [(join(path, field.name), field.type) for field in dataclasses.fields(group)]
    inside = [
        inner
        for here, kind in deep
        if dataclasses.is_dataclass(kind)
        for inner in _paths(kind, here)
    ]
    return [here for here, _ in deep] + inside


def join(path: str, name: str) -> str:
    """The dotted path of `name` inside `path`; either may be empty."""
    return f"{path}.{name}" if path and name else path or name


def touches(path: str, other: str) -> bool:
    """Whether one dotted path is the other or lies inside it."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")
