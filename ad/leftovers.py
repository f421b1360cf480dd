"""Temporary files that a process left behind when it was killed."""

import os
import re
import shutil
from pathlib import Path

TEMPORARY = re.compile(r"\..+\.(\d+)\.tmp")  # as ad.files.replacing names them: the process's id


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files in `folder` whose process is gone."""
    for path in folder.glob(".*.tmp"):
        match = TEMPORARY.fullmatch(path.name)
        if match and not _lives(int(match[1])):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return process != os.getpid()  # our own id can only be that of a dead one before us
