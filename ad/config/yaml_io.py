"""Read YAML as plain data with strict rules, and write it.

Plain data are dicts with text keys, lists, text, numbers, booleans and null. Reported as problems
are aliases (they can grow without bound), tags, repeated keys, dates, numbers in base 8 or 60, NaN
and infinity. YAML 1.1 reads 1e-3 as text: here it is a number.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from ad.config.fields import as_yaml, join
from ad.errors import Problem

MAX_BYTES = 1_000_000
SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)?(\.[0-9_]*)?([eE][-+]?[0-9]+)?")
EXPONENT = re.compile(r"[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+")


class _Loader(yaml.SafeLoader):
    """The safe loader without aliases."""

    def compose_node(self, parent: yaml.Node, index: Any) -> yaml.Node:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="an alias (*name) is not allowed", problem_mark=mark)
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """The safe dumper without aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))


class YamlFile:
    """A parsed YAML text: plain `data`, `problems`, and `lines`: dotted path -> line from 1."""

    def __init__(self, text: str):
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}
        self.data = self._parse(text)

    def _parse(self, text: str) -> Any:
        if len(text) > MAX_BYTES:
            return self._refuse("", f"is larger than {MAX_BYTES} bytes")
        try:
            self._loader = _Loader(text)
            node = self._loader.get_single_node()
            return {} if node is None else self._convert(node, "")
        except RecursionError:
            return self._refuse("", "is nested too deeply")
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            words = getattr(error, "problem", None) or str(error).splitlines()[0]
            place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
            return self._refuse("", f"is not YAML: {words}{place}")

    def _convert(self, node: yaml.Node, path: str) -> Any:
        """Return the plain data of a node and note the line of each path in it."""
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
            return [self._convert(child, path) for child in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
            return dict(self._items(node, path))
        return self._scalar(node, path)

    def _items(self, node: yaml.MappingNode, path: str) -> Iterator[tuple[str, Any]]:
        """Yield the key and plain value of each entry whose key is text and not repeated."""
        keys = set()
        for key_node, value in node.value:
            key = str(key_node.value)
            here = join(path, key)
            if not key_node.tag.endswith(":str"):
                self._refuse(here, "is not a plain text key (in quotes it is)")
            elif key in keys:
                self._refuse(here, "is set twice")
            else:
                keys.add(key)
                yield key, self._convert(value, here)

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        if node.tag not in SCALARS:
            return self._refuse(path, f"has a value of the unsupported type {node.tag}")
        try:
            value = self._loader.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError):
            return self._refuse(path, f"has a value that cannot be read: {as_yaml(node.value)}")
        if type(value) in (int, float) and not DECIMAL.fullmatch(node.value):
            return self._refuse(path, f"must be written in base 10 and be finite, not {node.value}")
        if value in (math.inf, -math.inf):
            return self._refuse(path, f"is too large a number: {node.value}")
        return value

    def _refuse(self, path: str, text: str) -> None:
        self.problems.append(Problem(path, text))


def dump_yaml(data: Any) -> str:
    """Return plain data as YAML text; keys keep their order."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
