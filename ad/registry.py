"""Names to classes, imported when asked for: a configuration is checked without torch."""

import difflib
import importlib


class Registry(dict):
    """A dict of name -> "module:Class"; `load` imports the class, `suggest` helps with typos."""

    def __init__(self, kind: str, entries: dict[str, str]):
        super().__init__(entries)
        self.kind = kind

    def load(self, name: str) -> type:
        """The class registered under `name`. Raises ValueError, with a suggestion, without one."""
        if name not in self:
            raise ValueError(f"unknown {self.kind} {name!r}{self.suggest(name)}")
        module, attribute = self[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def suggest(self, name: str) -> str:
        """', did you mean ...?' for a near miss, else the list of known names."""
        near = difflib.get_close_matches(str(name), self, n=1)
        return f", did you mean {near[0]!r}?" if near else f" (known: {', '.join(self)})"
