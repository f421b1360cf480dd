"""Settings belong to their component: another one named over a file starts from its defaults.

With `--source.algorithm q_learning` over a file of A2C, the file's `source.settings` are those of
A2C, and none of them is taken over. Settings of a section that every component shares, such as
`source.env_steps`, stay, and so do those of a memory that the new memory has too.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from operator import attrgetter
from typing import Any

from ad.config.fields import as_yaml
from ad.config.schema import Experiment
from ad.config.yaml_io import YamlFile
from ad.registry import MEMORIES
from envs.presets import PRESETS

BELONGING = {  # setting that names a component -> dotted paths of what belongs to the component
    "env.id": ("env.kwargs", "env.tasks", "evaluation.worlds"),
    "source.algorithm": ("source.settings",),
    "model.memory": ("model.heads", "model.attention_dropout"),
    "method.name": (
        *("method.settings", "evaluation.policy", "evaluation.calibration"),
        "evaluation.asked_returns",
    ),
}


def drop_replaced(file: YamlFile, overrides: Mapping[str, Any]) -> Iterator[str]:
    """Remove the settings of components that `overrides` replace by others from `file.data`.

    Yields a sentence about each. A preset that replaces a world brings its own episode length.
    """
    for setting, paths in BELONGING.items():
        old = _get(file.data, setting) or attrgetter(setting)(Experiment())
        new = overrides.get(setting, old)
        if new == old:
            continue
        if setting == "model.memory":
            with suppress(ValueError, TypeError):  # an unknown one is refused later
                unused = MEMORIES.load(new).unused
                paths = [path for path in paths if path.split(".")[1] in unused]
        for path in (*paths, "env.episode_length") if str(new) in PRESETS else paths:
            section, _, name = path.rpartition(".")
            inside = _get(file.data, section)
            value = inside.pop(name, None) if isinstance(inside, dict) else None
            if value not in (None, {}, []):
                place = f" (line {line})" if (line := file.lines.get(path)) else ""
                names = ", ".join(value) if isinstance(value, dict) else as_yaml(value)
                yield f"{path}{place} is for {setting} {old}, not {new}: {names} dropped"


def _get(data: Any, path: str) -> Any:
    """Return the value at the dotted `path` of nested dicts, None if there is none."""
    for name in path.split("."):
        data = data.get(name) if isinstance(data, dict) else None
    return data
