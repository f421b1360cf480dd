"""Names of components of a transformer: heads, MLPs and neurons."""

import re
from typing import NamedTuple

from ad.errors import ConfigError
from ad.models.transformer import Transformer

HEAD, MLP, NEURON = "blocks.{}.attn.hook_z", "blocks.{}.hook_mlp_out", "blocks.{}.mlp.hook_post"


class Component(NamedTuple):
    """A set of coordinates that one point of a layer writes; all of them where `index` is None."""

    point: str
    index: int | None = None


Components = tuple[Component, ...]  # components that are ablated together


def parse_components(name: str, transformer: Transformer) -> Components:
    """Return the components called `name`: "1.0" (layer and head), "mlp 1", "neuron 1.37".

    A + between them makes a set. Raises ConfigError for a name that is none, and for a layer, head
    or neuron that is not there.
    """
    return tuple(_parse_component(word.strip(), transformer) for word in name.split("+"))


def _parse_component(name: str, transformer: Transformer) -> Component:
    kinds = {
        r"(\d+)\.(\d+)": (HEAD, "heads", transformer.heads),
        r"mlp (\d+)": (MLP, "", 0),
        r"neuron (\d+)\.(\d+)": (NEURON, "neurons", transformer.feed_forward),
    }
    for form, (point, plural, count) in kinds.items():
        if match := re.fullmatch(form, name):
            layer, *index = map(int, match.groups())
            if layer >= (layers := len(transformer.blocks)):
                raise ConfigError(
                    f"there is no component {name}: the model has {layers} layers, from 0"
                )
            if index and index[0] >= count:
                raise ConfigError(
                    f"there is no component {name}: a layer has {count} {plural}, from 0"
                )
            return Component(point.format(layer), *index)
    raise ConfigError(f"{name!r} is no component: write 1.0 (a head), mlp 1 or neuron 1.37")
