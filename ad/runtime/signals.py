"""SIGINT and SIGTERM: the first signal waits for the end of a step, a second one does not.

`ad.cli` installs the handlers. Work that can be resumed runs in a `defer_signals` section and
asks between its steps whether to stop:

    with defer_signals() as stop_requested:
        while step < steps and not stop_requested():
            step += 1
        save()

The signal is raised where the section ends. Outside of such a section it is raised at once. In a
process of torchrun a second signal does nothing: it is the first one, passed on.
"""

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn


class Terminated(BaseException):
    """SIGTERM was received; the counterpart of KeyboardInterrupt, which stands for SIGINT."""


EXCEPTIONS: dict[int, type[BaseException]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
}
MESSAGE = b"\nstopping after this step"
SECOND = b"; a second signal stops at once"


@dataclass
class _Signals:
    """The number of open `defer_signals` sections, and the signal that waits for their end.

    `agreed` is a signal that a process of the same training has received. `from_torchrun` says
    whether torchrun started this process, which then receives each signal more than once, and
    `prints_message` whether this process prints that it stops.
    """

    sections: int = 0
    waiting: int | None = None
    agreed: int | None = None
    from_torchrun: bool = False
    prints_message: bool = True


_signals = _Signals()


def install() -> None:
    """Install the handlers of SIGINT and SIGTERM. A signal that is ignored stays ignored.

    torchrun, which sets WORLD_SIZE, passes the signals of the terminal on to its processes: each of
    them receives a signal twice.
    """
    _signals.from_torchrun = "WORLD_SIZE" in os.environ
    for number in EXCEPTIONS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as SIGINT is in a shell's background job
            signal.signal(number, _handle)


@contextmanager
def defer_signals() -> Generator[Callable[[], bool]]:
    """Open a section in which the first signal only makes `stop_requested()` true.

    The signal is raised at the end of the outermost section. Yields `stop_requested`.
    """
    _signals.sections += 1
    waiting = agreed = None
    try:
        yield stop_requested
    finally:
        _signals.sections -= 1
        if not _signals.sections:
            waiting, _signals.waiting = _signals.waiting, None
            agreed, _signals.agreed = _signals.agreed, None
    if number := agreed or waiting:
        _stop(number)


def stop_requested() -> bool:
    """Return whether a signal waits for the end of the section."""
    return _signals.waiting is not None


def agree(largest: Callable[[int], int]) -> bool:
    """Return whether a signal waits in any of several processes, which all ask at the same time.

    `largest` returns the largest of the numbers that the processes call it with. The signal is
    raised at the end of the section in all of them.
    """
    _signals.agreed = largest(_signals.waiting or 0) or None
    return _signals.agreed is not None


def ignore() -> None:
    """Ignore signals from now on: this process ends already."""
    for number in EXCEPTIONS:
        signal.signal(number, signal.SIG_IGN)


def silence() -> None:
    """Print nothing when a signal is received: another process does."""
    _signals.prints_message = False


def _handle(number: int, _: object) -> None:
    if not _signals.sections:
        _stop(number)
    if not stop_requested():
        _signals.waiting = number
        if _signals.prints_message:
            second = b"" if _signals.from_torchrun else SECOND
            os.write(2, MESSAGE + second + b"\n")  # this handler could interrupt a print
    elif not _signals.from_torchrun:
        _stop(number)


def _stop(number: int) -> NoReturn:
    if _signals.from_torchrun:
        ignore()  # it is still to come again
    raise EXCEPTIONS[number]
