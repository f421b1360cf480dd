"""Names of parts of a transformer: heads, MLPs and neurons."""

import re
from typing import NamedTuple

from ad.errors import ConfigError
from ad.models.transformer import Transformer

HEAD, MLP, NEURON = "blocks.{}.attn.hook_z", "blocks.{}.hook_mlp_out", "blocks.{}.mlp.hook_post"


class Part(NamedTuple):
    """A set of coordinates that one point of a layer writes; all of them where `index` is None."""

    point: str
    index: int | None = None


Parts = tuple[Part, ...]  # parts that are ablated together


def parse_parts(name: str, transformer: Transformer) -> Parts:
    """Return the parts called `name`: "1.0" (layer and head), "mlp 1", "neuron 1.37".

    A + between them makes a set. Raises ConfigError for a name that is none, and for a layer, head
    or neuron that is not there.
    """
    return tuple(_parse_part(word.strip(), transformer) for word in name.split("+"))


def _parse_part(name: str, transformer: Transformer) -> Part:
    kinds = {
        r"(\d+)\.(\d+)": (HEAD, "heads", transformer.heads),
        r"mlp (\d+)": (MLP, "", 0),
        r"neuron (\d+)\.(\d+)": (NEURON, "neurons", transformer.feed_forward),
    }
    for form, (point, plural, count) in kinds.items():
        if match := re.fullmatch(form, name):
            layer, *index = map(int, match.groups())
            if layer >= (layers := len(transformer.blocks)):
                raise ConfigError(f"there is no part {name}: the model has {layers} layers, from 0")
            if index and index[0] >= count:
                raise ConfigError(f"there is no part {name}: a layer has {count} {plural}, from 0")
            return Part(point.format(layer), *index)
    raise ConfigError(f"{name!r} is no part: write 1.0 (a head), mlp 1 or neuron 1.37")
