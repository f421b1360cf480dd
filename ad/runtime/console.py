"""What a person reads while the work goes on: results on stdout, warnings on stderr.

Neither is worth a computation: where a stream is closed (`| head -1`, `2>&-`), the work goes on.
"""

import contextlib
import os
import sys

from tqdm import tqdm


def info(sentence: str) -> None:
    """Print one line to stdout; if nobody reads it, warn once and be silent from then on."""
    try:
        print(sentence, flush=True)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - until the process ends
        warn(f"stdout cannot be written ({error}); the work goes on without it")


def warn(sentence: str) -> None:
    """Print one line to stderr, above any progress bar; a stderr that is gone stops nothing."""
    error(f"warning: {' '.join(sentence.split())}")


def error(text: str) -> None:
    """Print `text` to stderr, above any progress bar."""
    with contextlib.suppress(OSError, ValueError):
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()
