"""One writer at a time: a lock on a folder, which the system drops when its process dies."""

import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ad.config.schema import Experiment
from ad.errors import MachineError
from ad.runtime.files import remove_leftovers

LOOK_AGAIN = 0.2  # seconds between looks at a lock that is waited for


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold `folder`, which need not exist, and clear it of what dead processes left half written.

    Raises MachineError if another process, or this one somewhere else, holds it; with `wait`, waits
    until it no longer does. The lock is a file beside the folder, so that it outlives a folder that
    is emptied.
    """
    path = folder.with_name(f".{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = _take(path, folder, wait)
    try:
        remove_leftovers(folder)
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def locked_runs(configs: Sequence[Experiment]) -> Iterator[None]:
    """Hold the locks of the folders of the runs of `configs`."""
    with ExitStack() as locks:
        for config in configs:
            locks.enter_context(locked(config.folder))
        yield


def _take(path: Path, folder: Path, wait: bool) -> int:
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The one who held it may have removed it between the two lines above.
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except BlockingIOError:
            if not wait:
                os.close(handle)
                sentence = f"another process is writing to {folder}: let it finish"
                raise MachineError(sentence) from None
            time.sleep(LOOK_AGAIN)
        os.close(handle)
