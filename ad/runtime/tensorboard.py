"""The numbers of a training for TensorBoard. Each call may raise anything."""

import shutil
import threading
from pathlib import Path


class TensorBoard:
    """Scalars in `tensorboard/` of `folder`."""

    def __init__(self, folder: Path):
        self.events, self._writer = folder / "tensorboard", None

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add `values` (tag -> number) at `step`."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            threading.excepthook = _without_tensorboard
            self._writer = SummaryWriter(str(self.events), purge_step=step)
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.events, ignore_errors=True)

    def close(self) -> None:
        """Flush and close the files."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _without_tensorboard(args: threading.ExceptHookArgs) -> None:
    """Print no traceback for tensorboard's writer thread: the next write raises its error."""
    if type(args.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(args)
