"""The log of a training run: metrics.jsonl, and the same numbers for tensorboard.

No result depends on the log. If it cannot be written, one warning says so and training continues.
"""

import json
import shutil
import threading
from pathlib import Path

import numpy as np

from ad.runtime.console import warn
from ad.runtime.files import sync, write_text


class MetricsLog:
    """Appends to `metrics.jsonl` and `tensorboard/` in `folder`."""

    def __init__(self, folder: Path):
        self.path, self.events = folder / "metrics.jsonl", folder / "tensorboard"
        self._writer = None
        self._is_cut = False  # whether the last line may be incomplete
        self._warned: set[str] = set()  # what could not be written, after the warning

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append `values` (tag -> number) at `step`; a number that is not finite is null."""
        line = {"step": step} | {tag: _finite_or_none(value) for tag, value in values.items()}
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                if self._is_cut:
                    file.write("\n")
                file.write(json.dumps(line) + "\n")
            self._is_cut = False
        except OSError as error:
            self._is_cut = True
            self._warn_once(self.path.name, error)
        self._write_event(step, values)

    def truncate_after(self, step: int) -> None:
        """Remove the lines after `step`, and a last line that was cut off."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
            kept = [line for line in text.splitlines() if _step(line) <= step]
            rest = "".join(line + "\n" for line in kept)
            if rest != text:
                write_text(self.path, rest)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._warn_once(self.path.name, error)

    def discard(self) -> None:
        """Remove metrics.jsonl and the tensorboard files."""
        self.close()
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.events, ignore_errors=True)

    def sync(self) -> None:
        """Flush metrics.jsonl to the disk, before the checkpoint that it belongs to."""
        try:
            sync(self.path)
        except FileNotFoundError:
            pass  # nothing is logged yet
        except OSError as error:
            self._warn_once(self.path.name, error)

    def close(self) -> None:
        """Flush and close the tensorboard files."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.close()
        except Exception as error:
            self._warn_once("tensorboard", error)

    def _write_event(self, step: int, values: dict[str, float]) -> None:
        if "tensorboard" in self._warned:
            return
        try:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                threading.excepthook = _without_tensorboard
                self._writer = SummaryWriter(str(self.events), purge_step=step)
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)
        except Exception as error:  # tensorboard's thread raises anything
            self._warn_once("tensorboard", error)

    def _warn_once(self, what: str, error: Exception) -> None:
        if what not in self._warned:
            self._warned.add(what)
            warn(f"{what} cannot be written ({error}); training continues without it")


def _without_tensorboard(args: threading.ExceptHookArgs) -> None:
    """Print no traceback for tensorboard's writer thread: the next write raises its error."""
    if type(args.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(args)


def _step(line: str) -> float:
    """Return the step of a line of metrics.jsonl; infinity if an interruption cut the line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return np.inf


def _finite_or_none(value: float) -> float | None:
    value = float(value)
    return value if np.isfinite(value) else None
