"""`.npy` files of a known type and shape: made whole before they are filled, checked before mapped.

Writing to a mapped file that the disk has no room for, or reading one that is shorter than it says,
kills the process (SIGBUS) without a word; so the room is taken first, and sizes come before maps.
"""

import io
import math
import os
import resource
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

FORMAT = np.lib.format
LONGEST_HEADER = 1000  # characters; those of the store have less than 128
OTHER_FILES = 100  # that a process has open beside maps: libraries, logs, the terminal


class LazyArrays(Mapping[str, np.ndarray]):
    """The arrays of a folder by name, each mapped anew for reading whenever it is asked for.

    A map keeps its file open, and a process may have 1024 of them: not seven of 150 histories.
    `stop`: the columns [:stop] of each; None is all.
    """

    def __init__(self, folder: Path, names: tuple[str, ...], stop: int | None = None):
        self.folder, self.names, self.stop = folder, names, stop

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        array = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array[:, : self.stop]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def max_open_maps() -> int:
    """How many maps a process may hold at a time, at least one."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = most == resource.RLIM_INFINITY
    return 2**20 if unlimited else max(most - OTHER_FILES, 1)


def create_memmap(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """A new file of zeros as a writable map; it has its room on the disk. Raises OSError."""
    header = _header_bytes(np.dtype(dtype), shape)
    with open(path, "wb") as file:
        file.write(header)
        file.flush()
        _allocate(file.fileno(), _size(header, dtype, shape))
    return np.load(path, mmap_mode="r+", allow_pickle=False)


def open_memmap(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """A file that `create_memmap` made, as a writable map again. Raises ValueError, OSError."""
    header = _header_bytes(np.dtype(dtype), shape)
    with open(path, "rb") as file:
        found = file.read(len(header)), path.stat().st_size
    if found != (header, _size(header, dtype, shape)):
        raise ValueError(f"{path.name} is not a file of {np.dtype(dtype)} {shape}")
    return np.load(path, mmap_mode="r+", allow_pickle=False)


def check_header(path: Path, dtype: str, shape: tuple[int, ...], any_order: bool = False) -> None:
    """ValueError unless the file says that it has this type and shape, and is as long as that.

    Its order must be C's, or with `any_order` may be Fortran's.
    """
    with open(path, "rb") as file:
        try:
            version = FORMAT.read_magic(file)
            read = {(1, 0): FORMAT.read_array_header_1_0, (2, 0): FORMAT.read_array_header_2_0}
            found_shape, fortran, found = read[version](file, max_header_size=LONGEST_HEADER)
        except Exception as error:  # NumPy evaluates a header as Python: anything may come of it
            raise ValueError(f"{path.name} has no sound header") from error
        size = file.tell() + math.prod(shape) * found.itemsize
    if (str(found), found_shape) != (dtype, shape) or (fortran and not any_order):
        raise ValueError(f"{path.name} has {found} {found_shape}, not {dtype} {shape}")
    if path.stat().st_size != size:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {size}")


def _header_bytes(dtype: np.dtype, shape: tuple[int, ...]) -> bytes:
    """What `np.save` begins a file with."""
    header = {"descr": FORMAT.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    buffer = io.BytesIO()
    FORMAT.write_array_header_1_0(buffer, header)
    return buffer.getvalue()


def _size(header: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> int:
    """Bytes of a whole file."""
    return len(header) + math.prod(shape) * np.dtype(dtype).itemsize


def _allocate(handle: int, size: int) -> None:
    """Make the file `size` bytes long, with room on the disk where the system can promise it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:  # macOS: the room was only looked for before
        os.ftruncate(handle, size)
