"""Messages to the user: results on stdout, warnings and errors on stderr.

A stream that is closed (`| head -1`, `2>&-`) does not stop the process.
"""

import contextlib
import os
import sys

from tqdm import tqdm


def info(sentence: str) -> None:
    """Print one line to stdout. If stdout cannot be written, warn once and print nothing more."""
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
    with contextlib.suppress(OSError, ValueError):
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()
