"""The help text of the verbs, made from the configuration's dataclasses and their comments."""

import dataclasses
from collections.abc import Iterator

from pyrallis.wrappers.docstring import get_attribute_docstring

from ad.config.fields import join, shown
from ad.config.parser import COMPONENTS
from ad.config.schema import Experiment

HEAD = """\
usage: ad <verb> [--config_path FILE.yaml] [--section.field value ...] [--fresh true]
or from the root of a checkout: python -m scripts.<verb> ...

A setting that the file leaves out has the default below; an option takes precedence over the file.
"""


def usage() -> str:
    """Every setting with its default and meaning, also of each source algorithm and method."""
    rows = [
        _row("config_path FILE.yaml", "a row of the benchmark, see configs/"),
        _row("fresh true", "discard what the verb has written before and start again"),
        _row("repair true", "verify only: collect damaged histories again"),
        *_rows(Experiment, ""),
    ]
    for section, (registry, field) in COMPONENTS.items():
        for name in registry:
            rows += [f"\nif {section}.{field} is {name}"]
            rows += _rows(registry.load(name).Settings, f"{section}.settings")
    return "\n".join([HEAD, *rows])


def _rows(group: type, path: str) -> Iterator[str]:
    """A title, then an option a line, for the settings of the dataclass `group` at `path`."""
    yield f"\n{path}: {group.__doc__.splitlines()[0]}".removeprefix("\n: ")
    default = group()
    for entry in dataclasses.fields(group):
        here, value = join(path, entry.name), getattr(default, entry.name)
        if dataclasses.is_dataclass(value):
            yield from _rows(entry.type, here)
        else:
            comment = get_attribute_docstring(group, entry.name).comment_inline
            choices = ", ".join(entry.metadata.get("choices", ()))
            text = f"{comment} ({choices})" if choices else comment
            yield _row(f"{here} {value if isinstance(value, str) else shown(value)}", text)


def _row(option: str, text: str) -> str:
    return f"  --{option:<44} {text}"
