"""Ending early but tidily: a first signal waits for the end of a step, a second one does not.

`scripts.cli` installs the handlers. Work that can go on later runs in a `deferred` section and asks
between its steps whether to stop:

    with deferred() as asked:
        while step < steps and not asked():
            step += 1
        save()

The signal is raised where the section ends. Outside of such sections it is raised at once.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Terminated(BaseException):
    """SIGTERM came, as KeyboardInterrupt says that SIGINT (Ctrl-C) did."""


RAISED = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
NOTICE = b"\nstopping after this step; once more stops at once\n"


@dataclass
class _Signals:
    """How many `deferred` sections are open, and the signal that waits for their end."""

    sections: int = 0
    waiting: int | None = None


_signals = _Signals()


def install() -> None:
    """Handle SIGINT and SIGTERM as above from now on; a signal that is ignored stays ignored."""
    for number in RAISED:
        if signal.getsignal(number) != signal.SIG_IGN:  # as SIGINT is in a shell's background job
            signal.signal(number, _arrive)


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """A section in which the first signal only makes `asked()` true; it is raised at the end.

    Sections nest; the outermost one counts.
    """
    _signals.sections += 1
    waiting = None
    try:
        yield asked
    finally:
        _signals.sections -= 1
        if not _signals.sections:
            waiting, _signals.waiting = _signals.waiting, None
    if waiting is not None:
        raise RAISED[waiting]


def asked() -> bool:
    """Whether a signal waits for the end of the section."""
    return _signals.waiting is not None


def _arrive(number: int, _: object) -> None:
    if not _signals.sections or asked():
        raise RAISED[number]
    _signals.waiting = number
    os.write(2, NOTICE)  # a print could be interrupted by this very handler
