"""Further places for the numbers of a training: TensorBoard, and Weights & Biases if configured.

A sink has a `name`, `write(step, values)`, `discard()` and `close()`. Each may raise anything:
`ad.runtime.metrics_log` makes a warning of it.
"""

import os
import shutil
import threading
from pathlib import Path
from typing import Any


class TensorBoard:
    """Scalars in `tensorboard/` of `folder`."""

    name = "tensorboard"

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


class WeightsAndBiases:
    """A run of Weights & Biases (package wandb) in `wandb/` of `root`.

    It is written offline, so that no login and no network can delay a training: `wandb sync
    wandb/offline-run-*` uploads it. The variable WANDB_MODE=online uploads it at once. A training
    that is resumed is a further run of the same group, since runs written offline cannot be
    continued. `name` is shown, and `group` must be that of one configuration.
    """

    name = "wandb"

    def __init__(self, root: str, project: str, name: str, group: str, config: dict[str, Any]):
        self.arguments = {"dir": root, "project": project, "name": name, "group": group}
        self.arguments["config"] = config
        self._run = None

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log `values` (tag -> number) at the train step `step`."""
        if self._run is None:
            self._run = self._start()
        self._run.log({**values, "train_step": step})

    def discard(self) -> None:
        """Leave what was written: it may be uploaded already, and has its own name and time."""

    def close(self) -> None:
        """Finish the run."""
        run, self._run = self._run, None
        if run is not None:
            run.finish()

    def _start(self):
        import wandb

        run = wandb.init(
            **self.arguments,
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )
        # A resumed training begins at the train step of its checkpoint.
        run.define_metric("*", step_metric="train_step")
        return run


def _without_tensorboard(args: threading.ExceptHookArgs) -> None:
    """Print no traceback for tensorboard's writer thread: the next write raises its error."""
    if type(args.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(args)
