"""Positions: how a token tells where it stands. One file and one line add another.

A position is built as `Position(spec, width, entries)` (`entries`: of a table, where it has one)
and is called as `position(window, start)` for what is added to the tokens of the decisions of a
window: look-ups (`embedding.py`) by [B, T] or [1, T], or none. `start` is the place of its first
decision in the window of a memory that reads only the newest part. `rotate(x, start)`, if it is not
None, turns queries and keys instead, from token `start` on.

A memory that is full drops its oldest half and reads the rest again from the beginning, as a window
of its own: the indices begin at 0 again there (window, rotary), go on (history), or come from the
world (env_time). So each of them is the same with a cache as without.
"""
