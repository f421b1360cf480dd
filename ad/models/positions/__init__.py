"""Positions: how a token tells where in its episode, window or history it stands.

A position is built as `Position(spec, width, entries)` (`entries`: the length of its table) and is
called as `position(window, start)`. It returns a list of vectors, [B, T, C] or [1, T, C], that are
added to the tokens of the decisions of a window; `start` is the number of the first decision where
the window is the end of a longer one. `rotate(x, start)`, if it is not None, rotates queries and
keys instead, from token `start` on. Both also take one start for each sequence, int64 [B, 1], which
is negative for padding before an episode. `term`, "position" if it is missing, names the vectors
among the terms of a token. To add one: a file here and a line in `ad/registry.py`.

A full context drops its oldest half and encodes the rest anew as a window of its own. The indices
then begin at 0 again (window, rotary), continue (history), or come from the environment (env_time),
so every position is the same with a cache as without one.
"""

import torch

# The number of the first decision (in `rotate`, token), of all sequences or int64 [B, 1].
Start = int | torch.Tensor
