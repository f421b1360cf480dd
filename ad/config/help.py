"""The help text of the verbs, made from the dataclasses of the configuration."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping

from ad.config.fields import as_yaml, join, settings_class
from ad.config.parser import COMPONENTS
from ad.config.schema import Experiment
from ad.registry import LAUNCHERS, METHODS
from envs import REGISTRY
from envs.presets import PRESETS
from envs.registry import Registry

HEAD = """\
usage: ad <verb> [--config_path FILE.yaml] [--section.field value ...] [--fresh true]
or from the root of a checkout: python -m scripts.<verb> ...

A setting that the file leaves out has the default below. An option overrides the file.
A world, source, method, encoder, ... can also be a class: module:Class or path/to/file.py:Class.
"""


def help_text(options: Mapping[str, str] | None = None) -> str:
    """Return every option with its default and meaning, with those of all sources and methods.

    A class that `options` name, e.g. {"method.name": "path/to/file.py:Class"}, is among them.
    """
    lines = [
        _line("config_path FILE.yaml", "the experiment, see configs/"),
        _line("fresh true", "discard what the verb has written before and start again"),
        _line("repair true", "verify only: collect damaged histories again"),
        *_section(Experiment, ""),
        f"\nworlds: {', '.join(REGISTRY.names())}, any Gymnasium id",
        *_presets(),
    ]
    for section, (registry, field) in COMPONENTS.items():
        named = (options or {}).get(f"{section}.{field}")
        for name in dict.fromkeys([*registry.names(), *filter(None, [named])]):
            lines += [f"\nif {section}.{field} is {name}"]
            try:
                lines += _section(settings_class(registry, name), f"{section}.settings")
                if registry is METHODS:
                    policy = settings_class(registry, name, "PolicySettings")
                    lines += _section(policy, "evaluation.policy")
            except (ValueError, OSError) as error:  # OSError: its source is not there
                lines += [f"  it cannot be loaded: {error}"]
    return "\n".join([HEAD, *lines])


def launcher_help() -> str:
    """Return the settings of every launcher with their defaults and meanings."""
    lines = []
    for name in LAUNCHERS.names():
        lines += [f"\nif --launcher is {name}, --launcher_settings '{{setting: value}}' has:"]
        lines += [line for line in _section(settings_class(LAUNCHERS, name), "") if line[0] == " "]
    return "\n".join([*lines, ""]).replace("  --", "  ")


def _presets() -> Iterator[str]:
    """Yield the presets of each world, which has the settings and the episode length of a paper."""
    yield "\npresets, with the settings and the episode length of a paper:"
    for world in dict.fromkeys(preset.world for preset in PRESETS.values()):
        names = ", ".join(name for name, preset in PRESETS.items() if preset.world == world)
        yield textwrap.fill(
            f"{world}: {names}",
            100,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )


def _section(group: type, path: str) -> Iterator[str]:
    """Yield a title, then a line for each setting of the dataclass `group` at the dotted `path`."""
    yield f"\n{path}: {group.__doc__.splitlines()[0]}".removeprefix("\n: ")
    default, meanings = group(), _meanings(group)
    for entry in dataclasses.fields(group):
        here, value = join(path, entry.name), getattr(default, entry.name)
        if dataclasses.is_dataclass(value):
            yield from _section(entry.type, here)
        else:
            known = entry.metadata.get("choices", ())
            choices = ", ".join(known.names() if isinstance(known, Registry) else known)
            text = meanings.get(entry.name, "") + (f" ({choices})" if choices else "")
            yield _line(f"{here} {value if isinstance(value, str) else as_yaml(value)}", text)


def _meanings(group: type) -> dict[str, str]:
    """Return name -> the string below the setting, for each setting of a dataclass."""
    meanings = {}
    for base in filter(dataclasses.is_dataclass, reversed(group.__mro__)):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        meanings |= {
            setting.target.id: below.value.value
            for setting, below in zip(definition.body, definition.body[1:], strict=False)
            if isinstance(setting, ast.AnnAssign) and isinstance(below, ast.Expr)
        }
    return meanings


def _line(option: str, text: str) -> str:
    return f"  --{option:<44} {text}"
