"""What a configuration of somebody else names outside the suite, whose code an import would run."""

from collections.abc import Iterator
from typing import Any

from envs.registry import PLACE

# What imported histories name: the suite's own classes, which hold no code of others.
SOURCE, WORLD = "ad.exchange.recorded:Recorded", "ad.exchange.recorded:RecordedWorld"


def places(data: dict) -> list[str]:
    """Return the texts in a configuration, as plain data, that name code outside the suite.

    They are the places of classes, and in its section env all texts with a colon, since Gymnasium
    imports the module of an id "module:id".
    """
    of_env = [text for text in _texts(data.get("env")) if ":" in text]
    others = filter(PLACE.fullmatch, _texts(data))
    return [text for text in dict.fromkeys([*of_env, *others]) if text not in (SOURCE, WORLD)]


def _texts(data: Any) -> Iterator[str]:
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _texts(value)
