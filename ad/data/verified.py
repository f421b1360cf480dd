"""A record of which files of a dataset were verified, so that a training does not read them again.

`verified.json` lies beside the histories. For each file it has the size, the times of the last
change of content and of status, and the inode at which its SHA-256 was that of the manifest. A file
for which one of them differs, or the hash in the manifest, is read again. What no write has changed
the record does not notice, as a disk that loses bits: `scripts.verify` always reads everything.
"""

import contextlib
import os
import time
from pathlib import Path

from ad.data.manifest import check_file
from ad.runtime.files import read_checked_json, write_checked_json

VERIFIED = "verified.json"
CLOCK_TICK = 2 * 10**9  # nanoseconds: the coarsest times of file systems


class VerifiedFiles:
    """The files in the folder of a dataset that are known to be what was written."""

    def __init__(self, dataset: Path):
        self.path, self.found = dataset / VERIFIED, {}
        try:
            self.known = read_checked_json(self.path)
        except (OSError, ValueError):  # none, or a damaged one: everything is read
            self.known = {}

    def check(self, path: Path, entry: dict) -> None:
        """Raise ValueError unless a file is what its entry says, as `check_file` does. OSError."""
        status = path.lstat()
        name, state = f"{path.parent.name}/{path.name}", _state(status, entry)
        if self.known.get(name) == state:
            return
        check_file(path, entry)
        # A later change within a tick of the clock would leave the times as they are.
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > CLOCK_TICK:
            self.found[name] = state

    def save(self) -> None:
        """Add the files that `check` read to the record, unless its folder cannot be written to."""
        if self.found:
            with contextlib.suppress(OSError):
                write_checked_json(self.path, self.known | self.found)


def _state(status: os.stat_result, entry: dict) -> str:
    """Return what must not change for a file to stay verified."""
    times = f"{status.st_mtime_ns} {status.st_ctime_ns}"
    return f"{status.st_size} {times} {status.st_ino} {entry['sha256']}"
