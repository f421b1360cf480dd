"""Observation encoders: how an observation becomes a vector. One file and one line add another.

An encoder is built as `Encoder(spec, width)` (see `Spec`) and is called without arguments
for the vectors of all S observations and, in the last row, of "no observation": [S + 1, C]. A
look-up in it encodes a window; `moved(window)` may change that first.
"""
