"""Write HDF5 files: a full disk raises an error and does not crash the process."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ad.runtime.files import atomic_write, remove_leftovers_of


class _Sink:
    """A file for h5py that keeps its first error and goes on as if there were none.

    The HDF5 library crashes when it frees a file that it could not write.
    """

    def __init__(self, file):
        self.file, self.error = file, None
        self.seek, self.tell = file.seek, file.tell
        self.read, self.readinto = file.read, file.readinto

    def write(self, content) -> int:
        """Write all of `content` unless there was an error. Returns its length."""
        left = memoryview(content).cast("B")
        while len(left) and self.error is None:
            try:
                left = left[self.file.write(left) :]
            except OSError as error:
                self.error = error
        return len(content)

    def truncate(self, size: int | None = None) -> None:
        """Set the size of the file unless there was an error."""
        try:
            if self.error is None:
                self.file.truncate(size)
        except OSError as error:
            self.error = error

    def flush(self) -> None:
        """Do nothing: the file has no buffer."""

    def check(self) -> None:
        """Raise the error of an earlier operation, if there was one."""
        if self.error is not None:
            raise self.error


@contextmanager
def new_file(path: Path) -> Generator[tuple]:
    """Yield (file, check) of an HDF5 file that replaces `path` if the block succeeds.

    `check()` raises the error of a write so far: the library does not see it. Raises OSError.
    """
    import h5py

    remove_leftovers_of(path)
    with atomic_write(path) as temporary, open(temporary, "w+b", buffering=0) as raw:
        sink = _Sink(raw)
        with h5py.File(sink, "w") as file:
            yield file, sink.check
        sink.check()
