"""What a configuration of somebody else names outside the suite, whose code an import would run."""

import re
from collections.abc import Iterator
from typing import Any

# The place of a class (file.py:Class, module:Class), or a module with an id of Gymnasium.
PLACE = re.compile(r"\S+:[^\W\d]\S*")


def places(data: Any) -> list[str]:
    """Return each text in plain `data` that is the place of a class or of a Gymnasium id."""
    return list(filter(PLACE.fullmatch, _texts(data)))


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _texts(value)
