"""Data-parallel training: processes that torchrun starts train one model on slices of each batch.

All processes draw the batch of a train step by its number, take the gradient of their own slice of
its windows, and add the gradients up (`torch.distributed.all_reduce`). Then all take the same
optimizer step. So the batches are those of one process, the loss is that of one process but for
rounding, and a checkpoint may be resumed by another number of processes. Dropout is drawn as in one
process with as many micro-batches (`training.micro_batches`).

Only the first process, of rank 0, writes: the lock, config.yaml, the log, checkpoints and messages.
What is known to one process alone, as the newest checkpoint or a signal, is agreed on before it is
acted on, since a process that takes another step than the others would wait for them forever.
"""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from ad.config.schema import Experiment
from ad.errors import ADError, ConfigError, MachineError
from ad.registry import METHODS
from ad.runtime import console, signals
from ad.runtime.metrics_log import MetricsLog
from ad.runtime.run import Run
from ad.training.optimizer import FlatTensors, Metrics

Value = TypeVar("Value")
TORCHRUN_VARIABLES = ("RANK", "MASTER_ADDR", "MASTER_PORT")
STORE_TIMEOUT = timedelta(seconds=5)  # of a process that fails


class SingleProcess:
    """A training in one process. `rank` numbers the `size` processes of a training from 0."""

    rank, size = 0, 1

    def batch_slice(self, num_windows: int) -> slice:
        """Return the slice of a batch of `num_windows` windows that this process trains on."""
        return slice(0, num_windows)

    def all_reduce(self, metrics: Metrics, gradient: FlatTensors) -> tuple[Metrics, FlatTensors]:
        """Return the sums of `metrics` and `gradient` over all processes."""
        return metrics, gradient

    def broadcast(self, function: Callable[..., Value], *args) -> Value:
        """Call the function in the first process; return its value, or raise its error, in all."""
        return function(*args)

    def on_first(self, function: Callable[..., object], *args) -> None:
        """Call the function in the first process, without waiting for it in the others."""
        function(*args)

    def barrier(self) -> None:
        """Wait until all processes have come to this call."""

    def stop_requested(self) -> bool:
        """Return whether a signal to any process asks to stop."""
        return signals.stop_requested()

    def run(self, config: Experiment) -> Run:
        """Return the run of `config`, whose folder the first process has opened."""
        return Run(config)


class ManyProcesses(SingleProcess):
    """A training in processes of a torch.distributed group, from inside one of them.

    Raises MachineError from every call if another process ended or does not answer within
    `seconds`.
    """

    def __init__(self, store: distributed.Store, rank: int, size: int, seconds: float):
        self.store, self.rank, self.size, self.seconds = store, rank, size, seconds

    def batch_slice(self, num_windows: int) -> slice:
        """Return the slice of a batch of `num_windows` windows that this process trains on."""
        count = num_windows // self.size
        return slice(self.rank * count, (self.rank + 1) * count)

    def all_reduce(self, metrics: Metrics, gradient: FlatTensors) -> tuple[Metrics, FlatTensors]:
        """Return the sums of `metrics` and `gradient` over all processes, by one all-reduce."""
        parts = [torch.stack([value.float() for value in metrics.values()]), *gradient]
        flat = torch.cat(parts)
        with self._others():
            distributed.all_reduce(flat)
        numbers, *gradient = flat.split([len(part) for part in parts])
        return dict(zip(metrics, numbers, strict=True)), gradient

    def broadcast(self, function: Callable[..., Value], *args) -> Value:
        """Call the function in the first process; return its value, or raise its error, in all.

        The error must be an ADError, the value one that pickle can write.
        """
        told: list = [None, None]
        if self.rank == 0:
            try:
                told[0] = function(*args)
            except ADError as error:
                told[1] = error
        with self._others():
            distributed.broadcast_object_list(told, src=0, device=torch.device("cpu"))
        value, error = told
        if error is not None:
            raise error
        return value

    def on_first(self, function: Callable[..., object], *args) -> None:
        """Call the function in the first process, without waiting for it in the others."""
        if self.rank == 0:
            function(*args)

    def barrier(self) -> None:
        """Wait until all processes have come to this call."""
        self._largest(0)

    def stop_requested(self) -> bool:
        """Return whether a signal to any process asks to stop; all processes must ask."""
        return signals.agree(self._largest)

    def run(self, config: Experiment) -> Run:
        """Return the run of `config`, in all but the first process as one that writes nothing."""
        return Run(config) if self.rank == 0 else ReadRun(config)

    def is_first_to_fail(self) -> bool:
        """Return whether no other process has asked this; true if it cannot be known."""
        try:
            self.store.set_timeout(STORE_TIMEOUT)
            return self.store.add("failed", 1) == 1
        except RuntimeError:  # the process that held the store is gone
            return True

    def _largest(self, number: int) -> int:
        """Return the largest `number` of all processes."""
        value = torch.tensor(number)
        with self._others():
            distributed.all_reduce(value, distributed.ReduceOp.MAX)
        return int(value)

    @contextmanager
    def _others(self) -> Generator[None]:
        """Turn an error of the communication with the other processes into a MachineError."""
        try:
            yield
        except RuntimeError as error:
            signals.ignore()  # torchrun will terminate the processes that are left
            late = "imed out" in str(error)
            what = f"does not answer within {self.seconds:g} s" if late else "has ended"
            raise MachineError(
                f"another of the {self.size} processes {what}: run the same command to resume"
            ) from error


ALONE = SingleProcess()


class ReadRun(Run):
    """A run whose folder another process writes to."""

    def __init__(self, config: Experiment):
        super().__init__(config)
        self.log = NoLog(self.folder)

    def discard_training(self) -> None:
        """Leave it to the process that writes."""

    def add_timing(self, name: str, seconds: float, reset: bool = False) -> None:
        """Leave it to the process that writes."""


class NoLog(MetricsLog):
    """A log that is written by another process."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write nothing."""

    def truncate_after(self, step: int) -> None:
        """Remove nothing."""

    def sync(self) -> None:
        """Flush nothing."""


def check_processes(config: Experiment, world_size: str) -> None:
    """Raise ConfigError unless `world_size` processes can train the model of `config` together.

    `world_size` is the value of the variable WORLD_SIZE.
    """
    if not world_size.isdecimal() or not int(world_size):
        raise ConfigError(f"the variable WORLD_SIZE must be a whole number, not {world_size!r}")
    settings, size, problems = config.training, int(world_size), []
    if not METHODS.load(config.method.name).reads_histories:
        problems.append(f"method.name must not be {config.method.name}, which learns in the worlds")
    if settings.rows % size:
        of_rows = " / training.segments" if settings.segments > 1 else ""
        problems.append(
            f"training.batch_size{of_rows} must be a multiple of their number, not {settings.rows}"
        )
    if problems:
        raise ConfigError(f"for {size} processes {', and '.join(problems)}")


@contextmanager
def joined(config: Experiment) -> Generator[ManyProcesses]:
    """Join the group of the processes that torchrun started, for a training of `config`.

    Raises ConfigError if torchrun has not said where the others are, and MachineError if they
    cannot be reached within `training.process_timeout`. Of several processes that fail, the first
    one alone says why.
    """
    processes = _join(config)
    if processes.rank > 0:
        console.silence(True)
        signals.silence()
    try:
        yield processes
    except BaseException:
        signals.ignore()  # torchrun terminates all processes where one has ended
        console.silence(not processes.is_first_to_fail())
        raise
    distributed.destroy_process_group()


def _join(config: Experiment) -> ManyProcesses:
    if missing := [name for name in TORCHRUN_VARIABLES if name not in os.environ]:
        raise ConfigError(
            f"the variable WORLD_SIZE is set, but not {', '.join(missing)}: start the processes "
            "with torchrun"
        )
    seconds = config.training.process_timeout
    timeout = timedelta(seconds=seconds)
    uses_gpu = _take_gpu(config)
    try:
        store, rank, size = next(distributed.rendezvous("env://", timeout=timeout))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if uses_gpu else "gloo",
            **{"store": store, "rank": rank, "world_size": size, "timeout": timeout},
        )
    except (RuntimeError, ValueError) as error:
        rank, address, port = (os.environ[name] for name in TORCHRUN_VARIABLES)
        raise MachineError(
            f"the process of rank {rank} cannot reach the others of {os.environ['WORLD_SIZE']} at "
            f"{address}:{port} within {seconds:g} s (training.process_timeout)"
        ) from error
    return ManyProcesses(store, rank, size, seconds)


def _take_gpu(config: Experiment) -> bool:
    """Return whether the training runs on GPUs, and make that of this process the current one.

    Raises MachineError if this machine has fewer GPUs than processes.
    """
    if config.device == "cpu" or not torch.cuda.is_available():
        return False
    number, count = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= count:
        raise MachineError(
            f"the process of local rank {number} finds {count} GPUs, and each process needs one: "
            "start fewer, or use --device cpu"
        )
    torch.cuda.set_device(number)
    return True
