"""The help text of the verbs, made from the dataclasses of the configuration."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise

from ad.config.fields import Dataclass, as_yaml, is_section, join, settings_class
from ad.config.options import Option
from ad.config.schema import Experiment
from ad.errors import ConfigError
from ad.registry import LAUNCHERS, METHODS, SOURCES
from envs import REGISTRY
from envs.presets import PRESETS
from envs.registry import Registry, did_you_mean

SECTIONS: dict[str, tuple[type[Dataclass], str]] = {  # name -> its dataclass and its dotted path
    "general": (Experiment, ""),
    **{
        entry.name: (entry.type, entry.name)
        for entry in dataclasses.fields(Experiment)
        if is_section(entry.type)
    },
}
GROUPS = {  # section -> the setting that names a component, and the component's group of settings
    "source": ("source.algorithm", SOURCES, "Settings", "source.settings"),
    "method": ("method.name", METHODS, "Settings", "method.settings"),
    "evaluation": ("method.name", METHODS, "PolicySettings", "evaluation.policy"),
}
EXPERIMENT = """
The experiment's settings: a setting that the file leaves out has its default, and an option
overrides the file, e.g. --training.steps 500. --help SECTION lists a section with its defaults, and
--help all lists every section:
"""
EXPERIMENT_WORD = "a YAML file as in configs/, the folder logs/<run>, or path/to/file.py:Class"
OUTSIDE = """
A world, source, method, encoder, ... can also be a class: module:Class or path/to/file.py:Class.
"""


def verb_help(
    verb: str,
    about: str,
    options: Sequence[Option],
    reads_experiment: bool,
    topic: str = "",
    named: Mapping[str, str] | None = None,
) -> str:
    """Return the help of a verb: its own options, or the settings that belong to `topic`.

    `topic` is a section of the experiment, "launchers" or "all". A class that `named` settings
    name, e.g. {"method.name": "path/to/file.py:Class"}, has its settings among those of its
    section. Raises ConfigError for another topic.
    """
    topics: dict[str, Callable[[], str]] = {}
    if reads_experiment:
        topics |= {name: partial(section_help, name, named or {}) for name in SECTIONS}
    if any(option.name == "launcher" for option in options):
        topics["launchers"] = launcher_help
    if topic and topic != "all":
        if topic not in topics:
            hint = did_you_mean(topic, topics) or f" (topics: {', '.join([*topics, 'all'])})"
            raise ConfigError(f"--help has no topic {topic!r}{hint}")
        return topics[topic]().lstrip()
    bare = [o.name.upper() if o.default is None else f"[{o.name}]" for o in options if o.bare]
    words = " ".join([f"ad {verb}", *(["[experiment]"] if reads_experiment else []), *bare])
    lines = [f"usage: {words} [--option value ...]", "", *about.strip().splitlines(), ""]
    if reads_experiment:
        lines.append(_line("config_path EXPERIMENT", EXPERIMENT_WORD))
    lines += [_line(f"{o.name} {o.default or ''}".strip(), o.about) for o in options]
    if topic == "all":
        return "\n".join([*lines, *(text() for text in topics.values()), OUTSIDE])
    if reads_experiment:
        lines += [EXPERIMENT, *(f"  {name:10} {_title(SECTIONS[name][0])}" for name in SECTIONS)]
    elif topics:
        lines += ["", "--help launchers lists the settings of each launcher."]
    return "\n".join(lines)


def section_help(section: str, named: Mapping[str, str]) -> str:
    """Return the settings of a section of the experiment, with those of its components.

    The section "general" has the settings outside of any other section.
    """
    lines = list(_section(*SECTIONS[section]))
    if section == "env":
        lines += [f"\nworlds: {', '.join(REGISTRY.names())}, any Gymnasium id", *_presets()]
    if section in GROUPS:
        setting, registry, group, path = GROUPS[section]
        for name in dict.fromkeys([*registry.names(), *filter(None, [named.get(setting)])]):
            lines += [f"\nif {setting} is {name}"]
            try:
                own = list(_section(settings_class(registry, name, group), path))[1:]
                lines += own or ["  it has no settings"]
            except (ValueError, OSError) as error:  # OSError: its source is not there
                lines += [f"  it cannot be loaded: {error}"]
    return "\n".join(lines)


def launcher_help() -> str:
    """Return the settings of every launcher with their defaults and meanings."""
    lines = []
    for name in LAUNCHERS.names():
        lines += [f"\nif --launcher is {name}, --launcher_settings '{{setting: value}}' has:"]
        lines += list(_section(settings_class(LAUNCHERS, name), ""))[1:]
    return "\n".join(lines).replace("  --", "  ")


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


def _section(group: type[Dataclass], path: str) -> Iterator[str]:
    """Yield a title, then a line for each setting of the dataclass `group` at the dotted `path`."""
    yield f"\n{path or 'general'}: {_title(group)}"
    default, meanings = group(), _meanings(group)
    for entry in dataclasses.fields(group):
        here, value = join(path, entry.name), getattr(default, entry.name)
        if not dataclasses.is_dataclass(value):
            allowed = entry.metadata.get("choices", ())
            choices = ", ".join(allowed.names() if isinstance(allowed, Registry) else allowed)
            text = meanings.get(entry.name, "") + (f" ({choices})" if choices else "")
            yield _line(f"{here} {value if isinstance(value, str) else as_yaml(value)}", text)


def _title(group: type[Dataclass]) -> str:
    return str(group.__doc__).splitlines()[0]


def _meanings(group: type[Dataclass]) -> dict[str, str]:
    """Return name -> the string below the setting, for each setting of a dataclass."""
    meanings = {}
    for base in [base for base in reversed(group.__mro__) if dataclasses.is_dataclass(base)]:
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        (definition,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
        for pair in pairwise(definition.body):
            match pair:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    meanings[name] = text
    return meanings


def _line(option: str, text: str) -> str:
    return f"  --{option:<44} {text}"
