"""Locks on folders, so that one process writes at a time.

The operating system drops the lock of a process that dies.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ad.config.schema import Experiment
from ad.errors import MachineError
from ad.runtime.files import remove_leftovers


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of `folder`, which need not exist, and remove the leftovers of dead processes.

    Raises MachineError if the lock is held elsewhere; with `wait`, waits for its release. The lock
    is a file beside the folder, so that the folder may be emptied.
    """
    path = folder.with_name(f".{folder.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        sentence = f"another process is writing to {folder}: let it finish"
        raise MachineError(sentence) from None
    try:
        remove_leftovers(folder)
        yield
    finally:
        # While the lock is held: filelock >= 3.25 discards a removed file and tries again.
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def locked_runs(configs: Sequence[Experiment]) -> Iterator[None]:
    """Hold the locks of the folders of the runs of `configs`."""
    with ExitStack() as locks:
        for config in configs:
            locks.enter_context(locked(config.folder))
        yield
