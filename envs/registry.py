"""Components by name: a table holds name -> "module:Class" and imports nothing."""

import difflib
import importlib
from collections.abc import Iterable


class Registry(dict):
    """A dict of name -> "module:Class" for one kind of component."""

    def __init__(self, kind: str, entries: dict[str, str]):
        super().__init__(entries)
        self.kind = kind

    def load(self, name: str) -> type:
        """Import and return the class called `name`. Raises ValueError for an unknown name."""
        if name not in self:
            raise ValueError(f"unknown {self.kind} {name!r}{self.suggest(name)}")
        module, attribute = self[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def suggest(self, name: str) -> str:
        """Return '; did you mean ...?' if a known name is close to `name`, else all known names."""
        return did_you_mean(str(name), self) or f" (known: {', '.join(self)})"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return '; did you mean ...?' if `name` is close to a known one, or ''.

    Only the last word of a dotted path in `known` is compared.
    """
    last_words = {path.rpartition(".")[2]: path for path in reversed(list(known))}
    near = difflib.get_close_matches(name, last_words, n=1)
    return f"; did you mean {last_words[near[0]]}?" if near else ""
