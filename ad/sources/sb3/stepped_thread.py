"""A function that is stepped by its caller, in a thread and with random generators of its own.

Libraries whose training is one call with no way out, as `learn` of Stable-Baselines3, are stepped
from outside with it. Only one of the two threads runs at a time. The library draws from the global
generators of torch, NumPy and Python; each function has its own states of them, so that what it
draws depends on no other function of the process.
"""

import random
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch

_CLOSED = object()


class _Closed(BaseException):
    """Ends the function from inside `ask`; no `except Exception` of a library stops it."""


class SteppedThread:
    """Runs `function(ask)`; `ask(question)` hands over to the caller and returns its answer.

    `start` and `advance` return the next question, None once the function has returned. They raise
    what the function raises. They share a `rng_swap`. `generators` are the states of the
    random generators with which the function begins.
    """

    def __init__(self, function: Callable[[Callable], None], generators: dict, rng_swap: "RNGSwap"):
        self.generators, self.rng_swap = generators, rng_swap
        self._questions, self._answers = SimpleQueue(), SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(function,), daemon=True)

    def start(self) -> Any:
        """Run up to the first question."""
        self.rng_swap.enter(self)
        self._thread.start()
        return self._next()

    def advance(self, answer: Any) -> Any:
        """Return `answer` to the function and run up to its next question."""
        self.rng_swap.enter(self)
        self._answers.put(answer)
        return self._next()

    def close(self) -> None:
        """End the function at its next question, and its thread."""
        if self._thread.is_alive():
            self._answers.put(_CLOSED)
            self._thread.join()

    def _run(self, function: Callable[[Callable], None]) -> None:
        try:
            torch.set_num_threads(1)  # of this thread: bits depend on the number of threads
            function(self._ask)
            self._questions.put((None, None))
        except _Closed:
            pass
        except BaseException as error:
            self._questions.put((None, error))

    def _ask(self, question: Any) -> Any:
        self._questions.put((question, None))
        answer = self._answers.get()
        if answer is _CLOSED:
            raise _Closed
        return answer

    def _next(self) -> Any:
        question, error = self._questions.get()
        if error is not None:
            raise error
        return question


class RNGSwap:
    """Installs the random generators of one `SteppedThread` at a time; outside, of the process."""

    def __init__(self):
        self.present, self.outside = None, {}

    def enter(self, thread: SteppedThread) -> None:
        """Install the generators of `thread`, unless they are."""
        if self.present is thread:
            return
        self._save()
        self.present = thread
        set_generators(thread.generators)

    def leave(self) -> None:
        """Install the generators that the process had before."""
        if self.present is not None:
            self._save()
            self.present = None
            set_generators(self.outside)

    def _save(self) -> None:
        if self.present is None:
            self.outside = get_generators()
        else:
            self.present.generators = get_generators()


def get_generators() -> dict:
    """Return the states of the global generators of torch, NumPy and Python."""
    return {
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(legacy=False),
        "python": random.getstate(),
    }


def set_generators(states: dict) -> None:
    """Set the states that `get_generators` returned."""
    torch.set_rng_state(states["torch"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])
