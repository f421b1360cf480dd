"""Processes that run verbs and are killed, from a server that has imported what is heavy once."""

import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

HEAVY = ["scripts.train", "scripts.evaluate", "ad.training", "ad.evaluation", "ad.summary"]


def server():
    """A multiprocessing context whose children are forks of a process that has imported `HEAVY`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    return context


def work(verb: str, words: list[str], largest: int | None = None) -> None:
    """What a child does: the verb as the command line runs it, up to its exit code.

    No file can grow beyond `largest` bytes.
    """
    import importlib
    import resource

    import torch

    from scripts.cli import exit_code

    torch.set_num_threads(1)
    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    sys.exit(exit_code(importlib.import_module(f"scripts.{verb}").main, words))


@dataclass
class Killer:
    """Starts verbs and kills them at random moments."""

    rng: np.random.Generator
    tried: int = 0
    by_verb: dict[str, int] = field(default_factory=dict)

    def __post_init__(self):
        self.context = server()

    def run(self, verb: str, words: list[str], code: int = 0, largest: int | None = None) -> float:
        """Run a verb to its end, which must be with exit code `code`; its seconds."""
        began = time.monotonic()
        process = self._start(verb, words, largest)
        process.join()
        assert process.exitcode == code
        return time.monotonic() - began

    def run_under_fire(self, verb: str, words: list[str], seconds: float, most: int) -> None:
        """Run a verb to its end, killed with SIGKILL up to `most` times on the way.

        Each time it lives for up to `seconds`, uniformly. It must end with 0.
        """
        for _ in range(most):
            process = self._start(verb, words)
            process.join(self.rng.uniform(0, seconds))
            if process.exitcode is not None:
                assert process.exitcode == 0
                return
            process.kill()
            process.join()
            self.tried += 1
            self.by_verb[verb] = self.by_verb.get(verb, 0) + 1
        self.run(verb, words)

    def _start(self, *arguments) -> multiprocessing.Process:
        process = self.context.Process(target=work, args=arguments)
        process.start()
        return process


def campaign(killer: Killer, kills: int, trial: Callable[[int], list[str]]) -> tuple[int, int]:
    """Trials until `kills` faults are tried: (faults survived, faults lost).

    `trial(number)` runs one under fire and names what came out otherwise than without faults. The
    faults of a trial with any such difference count as lost.
    """
    survived = lost = number = 0
    while killer.tried < kills:
        before, differences = killer.tried, trial(number)
        survived, lost = (
            (survived, lost + killer.tried - before)
            if differences
            else (survived + killer.tried - before, lost)
        )
        print(f"trial {number}: {killer.tried - before} kills, different: {differences or 'none'}")
        number += 1
    return survived, lost
