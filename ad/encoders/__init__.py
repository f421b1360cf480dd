"""Observation encoders: how an observation becomes a vector. One file and one line add another.

An encoder is built as `Encoder(spec, width)` (see `ad.tokens.Spec`) and is called without arguments
for the vectors of all S observations and, in the last row, of "no observation": [S + 1, C]. A
look-up in it encodes a window; `moved(window)` may change that first.
"""

from ad.registry import Registry

ENCODERS = Registry(
    "observation encoder",
    {
        "table": "ad.encoders.table:TableEncoder",
        "factored": "ad.encoders.factored:FactoredEncoder",
        "offsets": "ad.encoders.offsets:OffsetEncoder",
    },
)
ANY_SIZE = {"offsets"}  # those whose vectors belong to no size of the world
