"""The log of a training run: metrics.jsonl, and the same numbers for TensorBoard.

No result depends on the log. If it cannot be written, one warning says so and training continues.
"""

import json
import shutil
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

from ad.runtime.console import warn
from ad.runtime.files import sync, write_text

TENSORBOARD = "tensorboard"  # in a warning
ASKED = "evaluate/asked/"  # tags of the returns achieved for `evaluation.asked_returns`


class MetricsLog:
    """Appends to `metrics.jsonl` in `folder`, and writes to TensorBoard."""

    def __init__(self, folder: Path):
        self.path, self.events = folder / "metrics.jsonl", folder / "tensorboard"
        self._writer = None  # of TensorBoard, each call of which may raise anything
        self._is_cut = False  # whether the last line may be incomplete
        self._warned: set[str] = set()  # what could not be written, after the warning

    def write(self, step: int, values: dict[str, float]) -> None:
        """Append `values` (tag -> number) at `step`; a number that is not finite is null."""
        numbers = ((tag, float(value)) for tag, value in values.items())
        line = {"step": step} | {tag: x if np.isfinite(x) else None for tag, x in numbers}
        before, self._is_cut = "\n" if self._is_cut else "", True
        with self._warning_once(self.path.name):
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(before + json.dumps(line) + "\n")
            self._is_cut = False
        if TENSORBOARD not in self._warned:
            with self._warning_once(TENSORBOARD, Exception):
                if self._writer is None:
                    from torch.utils.tensorboard import SummaryWriter

                    threading.excepthook = _without_tensorboard
                    self._writer = SummaryWriter(str(self.events), purge_step=step)
                for tag, value in values.items():
                    self._writer.add_scalar(tag, value, step)

    def truncate_after(self, step: int) -> None:
        """Remove the lines after `step`, and a last line that was cut off."""
        with self._warning_once(self.path.name), suppress(FileNotFoundError):
            text = self.path.read_text(encoding="utf-8", errors="replace")
            kept = [line for line in text.splitlines() if _step(line) <= step]
            rest = "".join(line + "\n" for line in kept)
            if rest != text:
                write_text(self.path, rest)

    def discard(self) -> None:
        """Remove metrics.jsonl and what TensorBoard reads."""
        self.close()
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.events, ignore_errors=True)

    def sync(self) -> None:
        """Flush metrics.jsonl to the disk, before the checkpoint that it belongs to."""
        with self._warning_once(self.path.name), suppress(FileNotFoundError):
            sync(self.path)

    def close(self) -> None:
        """Flush and close the files for TensorBoard."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with self._warning_once(TENSORBOARD, Exception):
                writer.close()

    @contextmanager
    def _warning_once(self, what: str, kind: type[Exception] = OSError) -> Generator[None]:
        """Warn, the first time, that `what` cannot be written if the block raises a `kind`."""
        try:
            yield
        except kind as error:
            if what not in self._warned:
                self._warned.add(what)
                warn(f"{what} cannot be written ({error}); training continues without it")


def _without_tensorboard(args: threading.ExceptHookArgs) -> None:
    """Print no traceback for tensorboard's writer thread: the next write raises its error."""
    if type(args.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(args)


def value_at(folder: Path, tag: str, step: int, within: int = 1) -> float | None:
    """Return the newest value of `tag` in the last `within` train steps up to `step`, or None."""
    near = (entry for entry in _entries(folder) if step - within < entry["step"] <= step)
    values = [entry[tag] for entry in near if tag in entry]
    return values[-1] if values else None


def series(folder: Path, prefix: str) -> tuple[list[int], dict[str, list[float | None]]]:
    """Return the train steps at which tags that begin with `prefix` were logged, and their values.

    The values are by the rest of the tag, None where a step lacks one.
    """
    logged: dict[int, dict[str, float]] = {}
    for entry in _entries(folder):
        if own := {tag: value for tag, value in entry.items() if tag.startswith(prefix)}:
            logged[entry["step"]] = own
    tags = dict.fromkeys(tag for own in logged.values() for tag in own)
    values = {tag: [own.get(tag) for own in logged.values()] for tag in tags}
    return list(logged), {tag.removeprefix(prefix): own for tag, own in values.items()}


def _entries(folder: Path) -> list[dict]:
    """Return the lines of the metrics.jsonl in `folder`; one that an interruption cut is left out.

    There are none if it cannot be read.
    """
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [json.loads(line) for line in lines.splitlines() if np.isfinite(_step(line))]


def _step(line: str) -> float:
    """Return the step of a line of metrics.jsonl; infinity if an interruption cut the line."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return np.inf
