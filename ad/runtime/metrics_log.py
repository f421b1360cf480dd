"""The log of a training: metrics.jsonl (the source of truth) and tensorboard, a view of it.

Neither is needed to compute a result: where one cannot be written, a warning says so once and the
training goes on.
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
        self._cut = False  # whether the last line may be half a one
        self._silent: set[str] = set()  # what has failed and was told of

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append `values` (tag -> number) at `step`; a number that is not finite is null."""
        line = {"step": step} | {tag: _number(value) for tag, value in values.items()}
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("\n" * self._cut + json.dumps(line) + "\n")
            self._cut = False
        except OSError as error:
            self._cut = True
            self._failed(self.path.name, error)
        self._show(step, values)

    def truncate_after(self, step: int) -> None:
        """Drop what was logged after `step`, and a last line that was cut off."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
            kept = [line for line in text.splitlines() if _step(line) <= step]
            rest = "".join(line + "\n" for line in kept)
            if rest != text:
                write_text(self.path, rest)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._failed(self.path.name, error)

    def discard(self) -> None:
        """Remove all of it."""
        self.close()
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.events, ignore_errors=True)

    def sync(self) -> None:
        """Put the lines on the disk, before a checkpoint says that they are there."""
        try:
            sync(self.path)
        except FileNotFoundError:
            pass  # nothing is logged yet
        except OSError as error:
            self._failed(self.path.name, error)

    def close(self) -> None:
        """Flush tensorboard."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.close()
        except Exception as error:
            self._failed("tensorboard", error)

    def _show(self, step: int, values: dict[str, float]) -> None:
        if "tensorboard" in self._silent:
            return
        try:
            if self._writer is None:
                from torch.utils.tensorboard import SummaryWriter

                threading.excepthook = _without_tensorboard
                self._writer = SummaryWriter(str(self.events), purge_step=step)
            for tag, value in values.items():
                self._writer.add_scalar(tag, value, step)
        except Exception as error:  # a library's thread hands over whatever it died of
            self._failed("tensorboard", error)

    def _failed(self, what: str, error: Exception) -> None:
        if what not in self._silent:
            self._silent.add(what)
            warn(f"{what} cannot be written ({error}); training goes on without it")


def _without_tensorboard(args: threading.ExceptHookArgs) -> None:
    """Leave the death of tensorboard's thread to the next write, which raises what it died of."""
    if type(args.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(args)


def _step(line: str) -> float:
    """The step of a line of metrics.jsonl; infinite where an interruption cut the line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return np.inf


def _number(value: float) -> float | None:
    value = float(value)
    return value if np.isfinite(value) else None
