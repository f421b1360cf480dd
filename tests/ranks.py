"""Processes of a data-parallel training, with the variables that torchrun sets.

They are forked from a server that has imported what they need, since an import takes seconds.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from torch.distributed import TCPStore

IMPORTS = [
    *("ad.cli", "ad.config.parser", "ad.pipeline", "ad.sources.noisy_expert"),
    *("ad.methods.algorithm_distillation", "ad.methods.context_policy"),
    *("ad.models.encoders.factored", "ad.models.positions"),
    *("ad.models.memories.transformer", "torch._dynamo", "torch.utils.tensorboard"),
]
DEADLINE = 120  # seconds


@dataclass
class Ranks:
    """The started processes by rank, and the file that all of them print to."""

    processes: list[BaseProcess]
    output: Path
    store: TCPStore  # through which they find each other; torchrun keeps it

    def end(self) -> tuple[list[int | None], str]:
        """Wait for the end of all; return their exit codes and what they printed."""
        for process in self.processes:
            process.join(DEADLINE)
        return [process.exitcode for process in self.processes], self.output.read_text()

    def wait_for(self, path: Path) -> None:
        """Wait until `path` exists."""
        until = time.monotonic() + DEADLINE
        while not path.exists():
            assert all(process.is_alive() for process in self.processes), self.output.read_text()
            assert time.monotonic() < until, f"{path} does not come into being"
            time.sleep(0.02)

    def signal(self, number: int, *ranks: int) -> None:
        """Send a signal to the processes of `ranks`."""
        for rank in ranks:
            os.kill(self.processes[rank].pid, number)


def start(words: Sequence[str], output: Path, size: int = 2, started: int | None = None) -> Ranks:
    """Start scripts.train with `words` in the first `started` of `size` processes, or in all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTS)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": True}
    output.touch()
    processes = []
    for rank in range(size if started is None else started):
        variables = shared | {"RANK": rank, "LOCAL_RANK": rank}
        texts = {name: str(value) for name, value in variables.items()}
        processes.append(context.Process(target=_train, args=(texts, list(words), output)))
    for process in processes:
        process.start()
    return Ranks(processes, output, store)


def _train(variables: dict[str, str], words: list[str], output: Path) -> None:
    from ad.cli import run_script

    os.environ.update(variables)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    sys.argv = ["train", *words]
    run_script("train")
