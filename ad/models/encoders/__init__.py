"""Observation encoders: how a part of an observation becomes a vector.

An encoder is built as `Encoder(part, width)` for one part, a `Discrete` or an `Array` of
`envs.spaces`, and maps its values [..., *shape] to vectors [..., C]. `supports(part)` says whether
it can. The vectors of all parts are added. To add one: a file here and a line in `ad/registry.py`.
"""
