"""Further places for the numbers of a training: TensorBoard, and Weights & Biases if asked for.

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
    """A run of Weights & Biases (package wandb) in `wandb/` of the folder of a run.

    It is written offline, so that no login and no network can delay a training: `wandb sync
    <folder>/wandb/offline-run-*` uploads it. The variable WANDB_MODE=online uploads it at once. A
    training that is resumed continues the same run of Weights & Biases, which is found by the name
    `name` and the hash `key` of its settings `config`.
    """

    name = "wandb"

    def __init__(self, folder: Path, project: str, name: str, key: str, config: dict[str, Any]):
        self.folder, self._run = folder, None
        self.about = {"project": project, "name": name, "id": f"{name}-{key}", "config": config}

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log `values` (tag -> number) at the train step `step`."""
        if self._run is None:
            self._run = self._start()
        self._run.log({**values, "train_step": step})

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self.folder / "wandb", ignore_errors=True)

    def close(self) -> None:
        """Finish the run."""
        run, self._run = self._run, None
        if run is not None:
            run.finish()

    def _start(self):
        import wandb

        run = wandb.init(
            **self.about,
            dir=str(self.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            reinit="create_new",  # seeds that train side by side have a run each
            settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
        )
        # A resumed training writes train steps again: they are an axis, not the run's own steps.
        run.define_metric("*", step_metric="train_step")
        return run


def _without_tensorboard(args: threading.ExceptHookArgs) -> None:
    """Print no traceback for tensorboard's writer thread: the next write raises its error."""
    if type(args.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(args)
