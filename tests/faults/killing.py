"""Processes that run verbs and are killed, from a server that has imported what is heavy once."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HEAVY = ["ad.sweeps.pipeline"]
HEAVY += ["ad.collection.collect", "ad.training.trainer"]
HEAVY += ["ad.evaluation.evaluate", "ad.evaluation.summary"]
# What changes a tree of files: the events of Python's audit and which argument is the path.
CHANGES = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0, "shutil.rmtree": 0, "os.truncate": 0}
BESIDE = ("tensorboard", "source")  # views of what is elsewhere, which nothing waits for


@dataclass
class Crash:
    """Die by SIGKILL right before the `number`-th change of the tree `root` (0: never).

    The changes that came are listed in the file `log`, a line each.
    """

    root: Path
    log: Path
    number: int = 0


def server():
    """A multiprocessing context whose children are forks of a process that has imported `HEAVY`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


def work(verb: str, words: list[str], largest: int | None = None, crash: Crash | None = None):
    """What a child does: the verb as the command line runs it, up to its exit code.

    No file can grow beyond `largest` bytes.
    """
    import resource

    import numba
    import torch

    from ad.cli import VERBS, exit_code

    torch.set_num_threads(1)
    numba.set_num_threads(1)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    if crash is not None:
        die_at(crash)
    sys.exit(exit_code(VERBS[verb], words))


def die_at(crash: Crash) -> None:
    """Watch the changes that this process makes, and die as `crash` asks."""
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
    """Starts verbs and kills them."""

    def __init__(self, seed: int):
        self.rng, self.context = np.random.default_rng(seed), server()

    def run(self, verb: str, words: list[str], code: int = 0, largest: int | None = None) -> float:
        """Run a verb to its end, which must be with exit code `code`; its seconds."""
        began = time.monotonic()
        process = self._start(verb, words, largest)
        process.join()
        assert process.exitcode == code
        return time.monotonic() - began

    def run_under_fire(self, verb: str, words: list[str], seconds: float, most: int) -> int:
        """Run a verb to its end, killed with SIGKILL up to `most` times on the way; the kills.

        Each time it lives for up to `seconds`, uniformly. It must end with 0.
        """
        for kills in range(most):
            process = self._start(verb, words)
            process.join(self.rng.uniform(0, seconds))
            if process.exitcode is not None:
                assert process.exitcode == 0
                return kills
            process.kill()
            process.join()
        self.run(verb, words)
        return most

    def changes(self, verb: str, words: list[str], crash: Crash) -> list[str]:
        """Run a verb until `crash` kills it, or to its end; the changes that it came to."""
        process = self._start(verb, words, None, crash)
        process.join()
        assert process.exitcode == (-signal.SIGKILL if crash.number else 0)
        return crash.log.read_text().splitlines()

    def _start(self, *arguments) -> multiprocessing.Process:
        process = self.context.Process(target=work, args=arguments)
        process.start()
        return process


def campaign(ledger, kind: str, kills: int, trial: Callable[[int], tuple[int, object]]) -> None:
    """Trials until `kills` faults of a kind are tried; `trial(number)`: its kills, what they cost.

    A trial in which nothing was hit counts for nothing.
    """
    number = done = 0
    while done < kills:
        hits, lost = trial(number)
        ledger.count(kind, lost, hits)
        number, done = number + 1, done + hits
