"""Observation encoders: how an observation becomes a vector. One file and one line add another.

An encoder is built as `Encoder(spec, width)` (see `ad.model.Spec`) and is called without arguments
for the vectors of all S observations and, in row S, of "no observation": [S + 1, C]. A look-up in
it encodes.
"""

from ad.registry import Registry

ENCODERS = Registry(
    "observation encoder",
    {
        "table": "ad.encoders.table:TableEncoder",
        "factored": "ad.encoders.factored:FactoredEncoder",
    },
)
