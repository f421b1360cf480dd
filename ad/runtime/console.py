"""Messages to the user: results on stdout, warnings and errors on stderr.

A stream that is closed (`| head -1`, `2>&-`) does not stop the process.
"""

import contextlib
import os
import sys

from tqdm import tqdm

_silent = False


def silence(silent: bool) -> None:
    """Print nothing from now on, or again if `silent` is false: one of many processes speaks."""
    global _silent
    _silent = silent


def info(sentence: str) -> None:
    """Print one line to stdout. If stdout cannot be written, warn once and print nothing more."""
    if _silent:
        return
    try:
        print(sentence, flush=True)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        warn(f"stdout cannot be written ({error}); the process continues without it")


def warn(sentence: str) -> None:
    """Print `sentence` as one line "warning: ..." to stderr, above any progress bar."""
    error(f"warning: {' '.join(sentence.split())}")


def error(text: str) -> None:
    """Print `text` to stderr, above any progress bar. Does nothing if stderr is closed."""
    if _silent:
        return
    with contextlib.suppress(OSError, ValueError):
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()
