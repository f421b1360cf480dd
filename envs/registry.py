"""Components by name: from a table, from installed packages, or classes of the user's own.

A table holds name -> "module:Class" and imports nothing. An installed package adds a name with an
entry point, e.g. of the group `algorithm_distillation.methods`. A class can also be named by its
place: "package.module:Class" or "path/to/file.py:Class", relative to the working directory.
"""

import difflib
import hashlib
import importlib
import importlib.util
import re
import sys
import threading
from collections.abc import Iterable, Mapping
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

PLACE = re.compile(r"(.+\.py|\w+(?:\.\w+)*):([^\W\d]\w*)")
_importing = threading.RLock()
Component = TypeVar("Component")


class Registry(dict[str, str], Generic[Component]):
    """A dict of name -> "module:Class" for one kind of component.

    `group` is the last word of the group of entry points, which are read when a name is not in the
    dict. A name in the dict wins over an entry point. A class from outside must have the attributes
    `needs` and, if `base` names a class, be a subclass of it, `Component` for a type checker.
    """

    def __init__(
        self,
        kind: str,
        entries: dict[str, str],
        group: str = "",
        needs: tuple[str, ...] = (),
        base: str = "",
    ):
        super().__init__(entries)
        self.kind, self.needs, self.base = kind, needs, base
        self.group = f"algorithm_distillation.{group}"

    @cached_property
    def installed(self) -> dict[str, str]:
        """The components of installed packages, name -> "module:Class", read once.

        A warning on stderr names those that a component of the dict or another package hides.
        """
        found = {}
        for point in entry_points(group=self.group):
            used = self.get(point.name) or found.setdefault(point.name, point.value)
            if used != point.value:
                text = f"the {self.kind} {point.name!r} is {used}, so {point.value} is not used"
                print(f"warning: {text}", file=sys.stderr)
        return found

    def names(self) -> list[str]:
        """Return the names of the dict and of installed packages."""
        return [*self, *self.installed]

    def has(self, name: str) -> bool:
        """Return whether `name` is a known name or the place of a class; imports nothing."""
        return name in self or bool(PLACE.fullmatch(name)) or name in self.installed

    def load(self, name: str) -> type[Component]:
        """Import and return the class called `name`.

        Raises ValueError for an unknown name, and for a class from outside that cannot be imported.
        """
        if name in self:
            module, attribute = self[name].split(":")
            return getattr(importlib.import_module(module), attribute)
        if not self.has(name):
            raise ValueError(f"unknown {self.kind} {name!r}{self.suggest(name)}")
        found = load_class(self.installed.get(name, name))
        if self.base and not issubclass(found, load_class(self.base)):
            raise ValueError(f"{name} is no {self.kind}: it is no subclass of {self.base}")
        if missing := [need for need in self.needs if is_missing(found, need)]:
            raise ValueError(f"{name} is no {self.kind}: it has no {' and no '.join(missing)}")
        return found

    def suggest(self, name: str) -> str:
        """Return '; did you mean ...?' if a known name is close to `name`, else all known names."""
        if str(name).endswith(".py"):
            return f"; a class in that file is {name}:Class"
        return did_you_mean(str(name), self.names()) or f" (known: {', '.join(self.names())})"


def file_hashes(*names: object) -> dict[str, str]:
    """Return the SHA-256 (hex) of the file of each of `names` that is "path/to/file.py:Class"."""
    paths = {name: Path(name.rpartition(":")[0]) for name in names if isinstance(name, str)}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in paths.items()
        if path.suffix == ".py"
    }


def is_missing(found: type, name: str) -> bool:
    """Return whether a class lacks a member, or has it from a base that leaves it open."""
    member = getattr(found, name, None)
    return member is None or getattr(member, "__isabstractmethod__", False)


def error_text(error: BaseException) -> str:
    """Return the class of an error and what it says, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def load_class(place: str) -> type[Any]:
    """Import and return the class at "package.module:Class" or "path/to/file.py:Class".

    Raises ValueError if the module cannot be imported or has no such class.
    """
    module_name, _, attribute = place.rpartition(":")
    is_file = module_name.endswith(".py")
    if is_file and not Path(module_name).is_file():
        raise ValueError(f"there is no file {module_name}")
    try:
        module = _import_file(module_name) if is_file else importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # what a user's module raises, or a call of exit()
        raise ValueError(f"{module_name} cannot be imported: {error_text(error)}") from error
    found = getattr(module, attribute, None)
    if not isinstance(found, type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise ValueError(
            f"{module_name} has no class {attribute}{did_you_mean(attribute, classes)}"
        )
    return found


def _import_file(path: str) -> ModuleType:
    """Return the module of a file, imported once under a name that no other file has."""
    file = Path(path).resolve()
    name = f"{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:16]}"
    with _importing:
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(name, file)
            if spec is None or spec.loader is None:
                raise ImportError(f"{path} is no Python file")
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return '; did you mean ...?' if `name` is close to a known one, or ''.

    Only the last word of a dotted path in `known` is compared.
    """
    return suggestion(name, {path.rpartition(".")[2]: path for path in reversed(list(known))})


def suggestion(name: str, known: Mapping[str, object]) -> str:
    """Return '; did you mean ...?' with the value of the key that is close to `name`, or ''."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {known[near[0]]}?" if near else ""
