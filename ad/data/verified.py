"""A record of which files of a dataset were verified, so that a training does not read them again.

`verified.json` lies beside the histories. For each file that was found to be what its manifest says
it has the size, the times of the last change of content and of status, the inode, and the entry of
the manifest. The file is read again as soon as one of these differs. Damage that changes none of
them, as by a failing disk, is found by `scripts.verify` only, which always reads every byte.
"""

import contextlib
import json
import os
import time
from functools import cached_property
from pathlib import Path

from ad.data.manifest import check_file
from ad.runtime.files import read_checked_json, write_checked_json

VERIFIED = "verified.json"
CLOCK_TICK = 2 * 10**9  # nanoseconds: the coarsest times of file systems
SAVE_EVERY = 60  # seconds between two savings of the record while files are being read


class VerifiedFiles:
    """The files in the folder of a dataset that are known to be what was written.

    The record is read when the first file is checked, and saved from time to time.
    """

    def __init__(self, dataset: Path):
        self.path, self.found, self.last_save = dataset / VERIFIED, {}, time.monotonic()

    @cached_property
    def known(self) -> dict[str, str]:
        """The states of the verified files by name; empty without a record or for a damaged one."""
        try:
            return read_checked_json(self.path)
        except (OSError, ValueError):
            return {}

    def check(self, path: Path, entry: dict) -> None:
        """Raise ValueError unless a file is what its entry says, as `check_file` does. OSError."""
        now, status = time.time_ns(), path.lstat()
        name, state = f"{path.parent.name}/{path.name}", _state(status, entry)
        if self.known.get(name) == state:
            return
        check_file(path, entry)
        # A write within a tick of the clock after `now` could leave the times as they are.
        is_old = now - max(status.st_mtime_ns, status.st_ctime_ns) > CLOCK_TICK
        if is_old and _state(path.lstat(), entry) == state:
            self.found[name] = state
        if time.monotonic() - self.last_save > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Add the files that `check` read to the record, unless its folder cannot be written to."""
        self.last_save = time.monotonic()
        if self.found:
            self.known, self.found = self.known | self.found, {}
            with contextlib.suppress(OSError):
                write_checked_json(self.path, self.known)


def _state(status: os.stat_result, entry: dict) -> str:
    """Return what must not change for a file to stay verified."""
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{status.st_size} {times} {status.st_ino} {json.dumps(entry, sort_keys=True)}"
