"""Atomic writes: a file is written under a temporary name, flushed to the disk and renamed."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from ad.errors import ConfigError, MachineError

CONTENT_HASH = "content_sha256"  # key of the SHA-256 of the other entries of a checked JSON file


@contextmanager
def atomic_write(path: Path) -> Generator[Path]:
    """Yield a temporary path to write to; it replaces `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        error.filename = error.filename or str(path)  # the error of a full disk names no file
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def replace_between(path: Path, texts: dict[str, str]) -> None:
    """Put each text, by its mark, between the lines `<!-- mark -->` and `<!-- /mark -->` of a file.

    Raises ConfigError, and writes nothing, if the file does not have the lines of every mark.
    """
    page = read_marked(path, texts)
    for mark, text in texts.items():
        begin, end = _mark_lines(mark)
        before, _, rest = page.partition(begin)
        after = rest.partition(end)[2]
        page = f"{before}{begin}\n\n{text}\n{end}{after}"
    write_text(path, page)


def read_marked(path: Path, marks: Iterable[str]) -> str:
    """Return the text of a file. Raises ConfigError if it does not have the lines of every mark."""
    try:
        page = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not a text file") from None
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    for mark in marks:
        if not _has_mark(page, mark):
            begin, end = _mark_lines(mark)
            raise ConfigError(f"{path} has no lines {begin} and {end} to put the table between")
    return page


def is_marked(path: Path, mark: str) -> bool:
    """Return whether a file has the lines `<!-- mark -->` and `<!-- /mark -->`."""
    return path.is_file() and _has_mark(path.read_text(encoding="utf-8"), mark)


def _has_mark(page: str, mark: str) -> bool:
    begin, end = _mark_lines(mark)
    return end in page.partition(begin)[2]


def _mark_lines(mark: str) -> tuple[str, str]:
    return f"<!-- {mark} -->", f"<!-- /{mark} -->"


def write_json(path: Path, value: dict) -> None:
    """Write `value` as indented JSON. Raises ValueError for NaN, which JSON does not have."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_checked_json(path: Path, value: dict) -> None:
    """Write `value` as JSON with the SHA-256 of its content, so that a later change is detected."""
    write_json(path, value | {CONTENT_HASH: _content_hash(value)})


def read_checked_json(path: Path) -> dict:
    """Return the content of a file of `write_checked_json`. Raises OSError.

    Raises ValueError if the file is not JSON or its hash differs.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(value, dict) or value.pop(CONTENT_HASH, None) != _content_hash(value):
        raise ValueError(f"{path.name} is not what was written")
    return value


def _content_hash(value: dict) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def atomic_rename_dir(temporary: Path, folder: Path) -> None:
    """Flush the files in `temporary` to the disk and rename it to `folder`, replacing that."""
    for file in temporary.iterdir():
        sync(file)
    sync(temporary)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(temporary, folder)
    sync(folder.parent)


def remove_leftovers(folder: Path, is_recursive: bool = True) -> None:
    """Remove the temporary files that dead processes left in `folder`.

    If `is_recursive`, those in the folders below it, too.
    """
    for path in list(folder.rglob(".*.tmp") if is_recursive else folder.glob(".*.tmp")):
        if re.fullmatch(r"\..+\.\d+\.tmp", path.name):
            remove(path)


def remove_leftovers_of(path: Path) -> None:
    """Remove the temporary files that dead processes left of the file `path`."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        remove(leftover)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content. Does nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def require_disk_space(folder: Path, needed: int, what: str) -> None:
    """Raise MachineError unless `needed` bytes are free on the disk of `folder`.

    `folder` need not exist. `what` is the subject of the message.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise MachineError(
            f"{what} needs {needed / 1e6:.1f} MB, but the disk of {existing} has only "
            f"{free / 1e6:.1f} MB free"
        )


def sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
