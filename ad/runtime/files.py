"""Files that appear whole or not at all: write aside, flush to the disk, rename."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ad.errors import ConfigError, MachineError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which takes `path`'s place when the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # a full disk does not say which file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` whole."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def replace_between(path: Path, mark: str, text: str) -> None:
    """Put `text` between the lines `<!-- mark -->` and `<!-- /mark -->` of a file.

    Raises ConfigError if it does not have them.
    """
    begin, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    try:
        before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file") from None
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ConfigError(f"{path} has no lines {begin} and {end} to put the table between")
    write_text(path, f"{before}{begin}\n\n{text}\n{end}{after}")


def write_json(path: Path, value: dict) -> None:
    """Write `value` as indented JSON; NaN is refused (ValueError), since JSON has none."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_checked_json(path: Path, value: dict) -> None:
    """Write `value` as JSON with a hash of itself, so that any change to it can be seen."""
    write_json(path, value | {"seal": _seal(value)})


def read_checked_json(path: Path) -> dict:
    """Read what `write_checked_json` wrote. Raises ValueError if it is not that, OSError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(value, dict) or value.pop("seal", None) != _seal(value):
        raise ValueError(f"{path.name} is not what was written")
    return value


def _seal(value: dict) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def atomic_rename_dir(temporary: Path, folder: Path) -> None:
    """Give a finished temporary folder its name; a folder already there is replaced."""
    for file in temporary.iterdir():
        sync(file)
    sync(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)
    sync(folder.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that died left half written in and below `folder`."""
    for path in list(folder.rglob(".*.tmp")):
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def require_disk_space(folder: Path, needed: int, what: str) -> None:
    """MachineError unless `needed` bytes are free on the disk of `folder`, which may not exist."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise MachineError(
            f"{what} needs {needed / 1e6:.1f} MB, but the disk of {existing} has only "
            f"{free / 1e6:.1f} MB free"
        )


def sync(path: Path) -> None:
    """Flush a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
