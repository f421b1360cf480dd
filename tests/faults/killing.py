"""Processes that run verbs and are killed, forked from a server with the imports done."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEAVY = ["ad.pipeline"]
HEAVY += ["ad.collection.collect", "ad.sources.sb3.agent", "ad.training.trainer"]
HEAVY += ["ad.evaluation.evaluate", "ad.evaluation.summary"]
# Python's audit events of changes in a folder, and which argument is the path.
CHANGES = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "shutil.rmtree": 0, "os.truncate": 0}
BESIDE = ("tensorboard", "source")  # copies for tensorboard, written in the background


@dataclass
class Crash:
    """A SIGKILL right before the `number`-th change of files under `root` (0: none).

    The process writes its changes to the file `log`, one a line.
    """

    root: Path
    log: Path
    number: int = 0


def server():
    """Return a multiprocessing context that forks a process which has imported `HEAVY`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


def work(verb: str, words: list[str], largest: int | None = None, crash: Crash | None = None):
    """Run a verb as the command line does, and exit with its code; the code of a child process.

    No file can grow beyond `largest` bytes.
    """
    import resource

    import torch

    from ad.cli import VERBS, exit_code
    from ad.runtime.parallel import limit_threads

    torch.set_num_threads(1)
    limit_threads(1)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    if crash is not None:
        die_at(crash)
    sys.exit(exit_code(VERBS[verb], words))


def die_at(crash: Crash) -> None:
    """Log the changes of files that this process makes, and kill it as `crash` says."""
    log = os.open(crash.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    count = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal count
        if event not in CHANGES:
            return
        path = Path(os.fsdecode(arguments[CHANGES[event]]))
        if not path.is_relative_to(crash.root) or set(BESIDE) & set(path.parts):
            return
        count += 1
        os.write(log, f"{event} {path.relative_to(crash.root)}\n".encode())
        if count == crash.number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


class Killer:
    """Start verbs in processes and kill them."""

    def __init__(self, seed: int):
        self.rng, self.context = np.random.default_rng(seed), server()

    def run(self, verb: str, words: list[str], code: int = 0, largest: int | None = None) -> float:
        """Run a verb to its end, assert its exit `code`, and return its seconds."""
        began = time.monotonic()
        process = self.start(verb, words, largest)
        process.join()
        assert process.exitcode == code
        return time.monotonic() - began

    def run_with_kills(self, verb: str, words: list[str], seconds: float, most: int) -> int:
        """Run a verb to its end, killing and restarting it up to `most` times; return the kills.

        A process is killed after a time drawn uniformly up to `seconds`. The last must exit with 0.
        """
        for kills in range(most):
            process = self.start(verb, words)
            process.join(self.rng.uniform(0, seconds))
            if process.exitcode is not None:
                assert process.exitcode == 0
                return kills
            process.kill()
            process.join()
        self.run(verb, words)
        return most

    def changes(self, verb: str, words: list[str], crash: Crash) -> list[str]:
        """Run a verb until `crash` kills it, or to its end; return the changes that it made.

        Whether verified.json is written depends on the age of the files: a verb may come to its end
        with fewer changes than it made before.
        """
        process = self.start(verb, words, None, crash)
        process.join()
        changes = crash.log.read_text().splitlines()
        is_over = not crash.number or len(changes) < crash.number
        assert process.exitcode == (0 if is_over else -signal.SIGKILL)
        return changes

    def start(self, *arguments) -> multiprocessing.Process:
        """Start a process that runs `work` with `arguments`."""
        process = self.context.Process(target=work, args=arguments)
        process.start()
        return process


def campaign(ledger, kind: str, kills: int, trial: Callable[[int], tuple[int, object]]) -> None:
    """Run trials until `kills` faults of a kind are tried.

    `trial(number)` returns its number of kills, which may be 0, and their damage.
    """
    number = done = 0
    while done < kills:
        hits, lost = trial(number)
        ledger.count(kind, lost, hits)
        number, done = number + 1, done + hits
