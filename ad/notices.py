"""Warnings: what went wrong beside the work, a line each on stderr, while the work goes on."""

import contextlib
import sys

from tqdm import tqdm


def notice(sentence: str) -> None:
    """Print one line to stderr, above any progress bar; a stderr that is gone stops nothing."""
    line = f"warning: {' '.join(sentence.split())}"
    with contextlib.suppress(OSError, ValueError, AttributeError):
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()
