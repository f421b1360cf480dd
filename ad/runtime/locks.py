"""Locks on folders, so that one process writes at a time.

The operating system drops the lock of a process that dies.
"""

from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ad.errors import LockedError
from ad.runtime.files import remove_leftovers


@contextmanager
def locked(folder: Path, wait: bool = False) -> Generator[None]:
    """Hold the lock of `folder`, which need not exist, and remove the leftovers of dead processes.

    Raises LockedError if the lock is held elsewhere; with `wait`, waits for its release. The lock
    is a file beside the folder, so that the folder may be emptied.
    """
    with _held(_lock_file(folder), folder, wait):
        remove_leftovers(folder)
        yield


@contextmanager
def locked_files(folder: Path) -> Generator[None]:
    """Wait for the lock of the files in `folder`, hold it, and remove their leftovers.

    Folders in it have locks of their own: other processes may be writing there. The lock is a file
    in the folder.
    """
    with _held(folder / ".files.lock", folder, wait=True):
        remove_leftovers(folder, is_recursive=False)
        yield


@contextmanager
def locked_all(folders: Iterable[Path], wait: bool = False) -> Generator[None]:
    """Hold the locks of several folders, as `locked` does.

    They are taken in the order of the paths, so that two processes never wait for each other.
    """
    with ExitStack() as locks:
        for folder in sorted(folders, key=Path.resolve):
            locks.enter_context(locked(folder, wait))
        yield


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of `folder`."""
    if not _lock_file(folder).exists():
        return False
    try:
        with locked(folder):  # which leaves no file, unlike a lock that is only tried
            return False
    except LockedError:
        return True


@contextmanager
def _held(path: Path, folder: Path, wait: bool) -> Generator[None]:
    """Hold the lock whose file is `path`. Raises LockedError, which names `folder`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(f"another process is writing to {folder}: let it finish") from None
    try:
        yield
    finally:
        # While the lock is held: filelock >= 3.25 discards a removed file and tries again.
        path.unlink(missing_ok=True)
        lock.release()


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")
