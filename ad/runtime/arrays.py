"""`.npy` files of a known dtype and shape, memory-mapped safely.

Writing to a mapped file that the disk has no space for, or reading one that is shorter than its
header says, kills the process by SIGBUS without a message. So a file is allocated in full before
anything is written to its map, and its size is checked before it is mapped for reading.
"""

import io
import math
import os
import resource
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

FORMAT = np.lib.format
MAX_HEADER = 1000  # characters; the headers of the store have less than 128
OTHER_OPEN_FILES = 100  # of a process, in addition to maps: libraries, logs, the terminal


class LazyArrays(Mapping[str, np.ndarray]):
    """The `.npy` files of a folder by name; each access maps the file anew for reading.

    A map keeps its file open, and a process may have about 1024 open files; 150 histories of seven
    arrays would exceed that. `stop` limits each array to its columns [:stop].
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


class FlatArray:
    """An array that is put together from pieces [n, ...], in memory or in a temporary file.

    With a `folder` the file is there, and the system removes it when the array is gone.
    """

    def __init__(self, folder: Path | None = None):
        self.pieces: list[np.ndarray] = []
        self.file = tempfile.TemporaryFile(dir=folder) if folder else None  # noqa: SIM115
        self.length = 0
        self.kind: tuple[np.dtype, tuple[int, ...]] | None = None

    def append(self, piece: np.ndarray) -> None:
        """Add `piece` at the end. Raises OSError, e.g. for a full disk.

        Raises ValueError if it has another dtype or shape [...] than the pieces before it.
        """
        kind = piece.dtype, piece.shape[1:]
        if self.kind not in (None, kind):
            raise ValueError(f"a piece is of {kind}, those before it of {self.kind}")
        self.length, self.kind = self.length + len(piece), kind
        if self.file is None:
            self.pieces.append(piece)
        elif piece.size:
            self.file.write(np.ascontiguousarray(piece).data.cast("B"))

    def close(self) -> np.ndarray:
        """Return all pieces, at least one, as one array; that in a file is mapped for reading."""
        if self.file is None or self.kind is None:
            pieces, self.pieces = self.pieces, []
            return np.concatenate(pieces)
        self.file.flush()
        dtype, shape = self.kind
        return np.memmap(self.file, dtype, "r", shape=(self.length, *shape))


def max_open_maps() -> int:
    """Return the number of maps that the process may hold at a time, at least one."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = limit == resource.RLIM_INFINITY
    return 2**20 if unlimited else max(limit - OTHER_OPEN_FILES, 1)


def create_memmap(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """Create a file of zeros, allocated on the disk, and map it for writing. Raises OSError."""
    array = FORMAT.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):  # elsewhere free space was only checked beforehand
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def open_memmap(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """Map a file that `create_memmap` made for writing. Raises OSError.

    Raises ValueError if the file has another header or size.
    """
    fields = {"descr": FORMAT.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
    header = io.BytesIO()
    FORMAT.write_array_header_1_0(header, fields | {"shape": shape})
    with open(path, "rb") as file:
        # Byte for byte: an array that is resumed must be published as an uninterrupted one is.
        if file.read(header.tell()) != header.getvalue():
            raise ValueError(f"{path.name} is not a file of {np.dtype(dtype)} {shape}")
    check_header(path, str(np.dtype(dtype)), shape)
    return np.load(path, mmap_mode="r+", allow_pickle=False)


def check_header(path: Path, dtype: str, shape: tuple[int, ...], any_order: bool = False) -> None:
    """Raise ValueError unless the file has this dtype and shape in its header, and their size.

    The array must be in C order; with `any_order` it may be in Fortran order.
    """
    with open(path, "rb") as file:
        try:
            version = FORMAT.read_magic(file)
            read = {(1, 0): FORMAT.read_array_header_1_0, (2, 0): FORMAT.read_array_header_2_0}
            actual_shape, fortran, actual = read[version](file, max_header_size=MAX_HEADER)
        except Exception as error:  # NumPy evaluates a header as Python, which may raise anything
            raise ValueError(f"{path.name} has no valid header") from error
        size = file.tell() + math.prod(shape) * actual.itemsize
    if (str(actual), actual_shape) != (dtype, shape) or (fortran and not any_order):
        raise ValueError(f"{path.name} has {actual} {actual_shape}, not {dtype} {shape}")
    if path.stat().st_size != size:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {size}")
