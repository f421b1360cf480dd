"""Observation encoders: how an observation becomes a vector.

An encoder is built as `Encoder(spec, width)` and is called without arguments for the vectors of all
S observations and, in the last row, of "no observation": [S + 1, C]. A window is encoded by looking
its observations up there. To add one: a file here and a line in `ad/registry.py`.
"""
