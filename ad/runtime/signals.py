"""SIGINT and SIGTERM: the first signal waits for the end of a step, a second one does not.

`ad.cli` installs the handlers. Work that can be resumed runs in a `defer_signals` section and
asks between its steps whether to stop:

    with defer_signals() as stop_requested:
        while step < steps and not stop_requested():
            step += 1
        save()

The signal is raised where the section ends. Outside of such a section it is raised at once.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class Terminated(BaseException):
    """SIGTERM was received; the counterpart of KeyboardInterrupt, which stands for SIGINT."""


EXCEPTIONS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: Terminated}
MESSAGE = b"\nstopping after this step; a second signal stops at once\n"


@dataclass
class _Signals:
    """The number of open `defer_signals` sections, and the signal that waits for their end."""

    sections: int = 0
    waiting: int | None = None


_signals = _Signals()


def install() -> None:
    """Install the handlers of SIGINT and SIGTERM. A signal that is ignored stays ignored."""
    for number in EXCEPTIONS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as SIGINT is in a shell's background job
            signal.signal(number, _handle)


@contextmanager
def defer_signals() -> Iterator[Callable[[], bool]]:
    """Open a section in which the first signal only makes `stop_requested()` true.

    The signal is raised at the end of the outermost section. Yields `stop_requested`.
    """
    _signals.sections += 1
    waiting = None
    try:
        yield stop_requested
    finally:
        _signals.sections -= 1
        if not _signals.sections:
            waiting, _signals.waiting = _signals.waiting, None
    if waiting is not None:
        raise EXCEPTIONS[waiting]


def stop_requested() -> bool:
    """Return whether a signal waits for the end of the section."""
    return _signals.waiting is not None


def _handle(number: int, _: object) -> None:
    if not _signals.sections or stop_requested():
        raise EXCEPTIONS[number]
    _signals.waiting = number
    os.write(2, MESSAGE)  # a print could be interrupted by this very handler
