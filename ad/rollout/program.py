"""A policy that is a program: it answers the calls of a rollout over a pipe, in lines of JSON.

    {"call": "start", "num_envs": 2, "num_actions": 5, "episode_length": 20, "action_mask": null}
    {"call": "act", "observation": [40, 40], "time": [0, 0]}      <- [[0, 1, 0, 0, 0], [...]]
    {"call": "observe", "action": [1, 4], "reward": [0.0, 1.0], "terminated": [false, true],
     "truncated": [false, false], "next_observation": [41, 40]}
    {"call": "select", "envs": [1]}

Each list has an entry for each environment; an observation of several parts is an object of such
lists. `act` alone is answered, with the logits of all actions. `select` keeps the environments
whose indices it has, in this order. `action_mask`, [N, A], is null unless tasks lack actions. The
calls are those of `ad.methods.policy.Policy`.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import IO

import numpy as np
import torch

from ad.errors import ConfigError, printable
from ad.methods.policy import Observation, Policy

SECONDS = 20.0  # that a program may take for an answer
MOST_NUMBER = 64  # bytes of a number in an answer


class ProgramPolicy(Policy):
    """The policy of a rollout of `num_envs` environments that a Python program in `path` has.

    The program is a process of its own, which ends with this object. It has no environment
    variables and no site packages but those of this interpreter. Raises ConfigError where it ends,
    or does not answer with the logits of all actions within `seconds`.
    """

    def __init__(
        self,
        path: Path,
        num_envs: int,
        num_actions: int,
        episode_length: int,
        seconds: float = SECONDS,
    ):
        self._seconds, self._shape = seconds, (num_envs, num_actions)
        start = {"call": "start", "num_envs": num_envs, "num_actions": num_actions}
        self._start: dict | None = start | {"episode_length": episode_length, "action_mask": None}
        self._rest, self._errors = b"", tempfile.TemporaryFile()  # noqa: SIM115 - as long as self
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(path.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=path.absolute().parent,
            env={},
            bufsize=0,
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # pipes
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        weakref.finalize(self, _end, self._process, self._errors)

    def act(self, observation: Observation, time: torch.Tensor) -> torch.Tensor:
        """Return action logits [N, A], float64."""
        if self._start is not None:  # not before the mask is known
            self._send(self._start)
            self._start = None
        self._send({"call": "act", "observation": _plain(observation), "time": time.tolist()})
        line = self._answer()
        try:
            logits = np.array(json.loads(line), np.float64)
        except (ValueError, TypeError, RecursionError, OverflowError):
            logits = np.zeros(0)
        if logits.shape != self._shape or not np.isfinite(logits).all():
            n, actions = self._shape
            raise ConfigError(
                f"the program answers {line[:60].decode(errors='replace')!r} to act: it must be a "
                f"line with a list of {n} lists of {actions} finite numbers"
            )
        return torch.from_numpy(logits)

    def observe(self, action, reward, terminated, truncated, next_observation) -> None:
        """Tell the program the outcome of the last decision."""
        named = {"action": action, "reward": reward, "terminated": terminated}
        named |= {"truncated": truncated, "next_observation": next_observation}
        self._send({"call": "observe", **{name: _plain(value) for name, value in named.items()}})

    def select(self, envs: torch.Tensor) -> None:
        """Keep the environments `envs`, int64 [M], in this order; indices may repeat."""
        self._shape = len(envs), self._shape[1]
        self._send({"call": "select", "envs": envs.tolist()})

    def set_action_mask(self, mask: torch.Tensor) -> None:
        """Tell the program which actions each environment has, bool [N, A]."""
        self._start = {**(self._start or {}), "action_mask": mask.tolist()}

    def _send(self, message: dict) -> None:
        line = memoryview(json.dumps(message).encode() + b"\n")
        try:
            while line:
                self._wait([], [self._stdin])
                line = line[os.write(self._stdin, line) :]
        except BrokenPipeError:
            raise self._ended() from None

    def _answer(self) -> bytes:
        """Return the next line of the program's output."""
        most = MOST_NUMBER * (1 + np.prod(self._shape))
        while b"\n" not in self._rest:
            if len(self._rest) > most:
                raise ConfigError(f"the program answers with a line of more than {most} bytes")
            self._wait([self._stdout], [])
            if not (part := os.read(self._stdout, 2**16)):
                raise self._ended()
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _wait(self, readable: list[int], writable: list[int]) -> None:
        if not any(select.select(readable, writable, [], self._seconds)):
            what = "gives no answer" if readable else "does not read its input"
            raise ConfigError(f"the program {what} for {self._seconds:g} s")

    def _ended(self) -> ConfigError:
        """Return the error of a program that has ended, with the last line of its stderr."""
        try:
            code = self._process.wait(1)
        except subprocess.TimeoutExpired:
            return ConfigError("the program has closed its input or its output")
        self._errors.seek(-min(1000, self._errors.seek(0, os.SEEK_END)), os.SEEK_END)
        last = self._errors.read().decode(errors="replace").strip().rpartition("\n")[2]
        text = f": {printable(last)}" if last else ""
        return ConfigError(f"the program ended with exit code {code}{text}")


def _plain(values: Observation) -> list | dict[str, list]:
    if isinstance(values, dict):
        return {name: part.tolist() for name, part in values.items()}
    return values.tolist()


def _end(process: subprocess.Popen, errors: IO) -> None:
    with errors, process:  # leaving the block closes the pipes and waits for the process
        process.kill()
