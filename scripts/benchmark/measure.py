"""Timing as ratios: contenders take turns in one process.

Machines are shared and noisy: a rate means something only beside another one of the same minute.
The contenders of a measurement alternate (A B A B), and each is reported as its median.
"""

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

Work = Callable[[], float]  # does some work and returns its amount, in the measurement's unit
MATRIX_SIZE = 2048  # rows and columns of the matrix product that is the limit of the hardware


@dataclass
class Measurement:
    """Rates of one benchmark in `unit` per second, each the median of alternating repeats."""

    part: str
    name: str
    unit: str
    ours: float
    repeats: dict[str, list[float]]  # contender -> its rates, in the order they were measured
    peer_name: str = ""
    peer: float | None = None
    limit_name: str = ""
    limit: float | None = None  # the highest rate that the hardware allows
    peak_memory: int | None = None  # largest resident size of the process, in bytes, under `ours`
    detail: dict = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Return our rate over the peer's."""
        return self.ours / self.peer if self.peer else None

    @property
    def share(self) -> float | None:
        """Return our rate over the limit."""
        return self.ours / self.limit if self.limit else None

    def as_dict(self) -> dict:
        """Return the measurement and its ratios in plain types."""
        return {**vars(self), "ratio": self.ratio, "share_of_limit": self.share}


@dataclass(frozen=True)
class Effort:
    """The number of repeats and the size of each."""

    repeats: int
    scale: float  # of the work of one repeat
    quick: bool

    def scaled(self, amount: int, minimum: int = 1) -> int:
        """Return `amount` times `scale`, rounded, but at least `minimum`."""
        return max(round(amount * self.scale), minimum)


Benchmark = Callable[[Effort], Measurement | None]  # None where it does not apply
FULL, QUICK = Effort(3, 1.0, False), Effort(1, 0.25, True)


def alternate(
    contenders: dict[str, Work], repeats: int, device: str = "cpu", peak: list[int] | None = None
) -> dict[str, list[float]]:
    """Return `repeats` rates of each contender, taken in turn after one turn to warm up.

    The peak of resident memory in the first contender's warm-up, in bytes, is appended to `peak`.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    if peak is not None:
        with peak_memory() as measured:
            timed(next(iter(contenders.values())), device)
        peak += measured
    for turn in range(repeats + 1):
        for number, (name, work) in enumerate(contenders.items()):
            if turn == number == 0 and peak is not None:
                continue  # it is warm
            amount, seconds = timed(work, device)
            if turn:
                rates[name].append(amount / seconds)
    return rates


def timed(work: Work, device: str = "cpu") -> tuple[float, float]:
    """Return the amount of `work` and its seconds, on a GPU by two events."""
    if device == "cpu":
        start = time.perf_counter()
        return work(), time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    amount = work()
    end.record()
    torch.cuda.synchronize()
    return amount, begin.elapsed_time(end) / 1e3


def median(rates: list[float]) -> float:
    """Return the median of `rates`."""
    return statistics.median(rates)


def matrix_product(
    dtype: torch.dtype, device: str = "cpu", shape: tuple[int, int, int] = (MATRIX_SIZE,) * 3
) -> Work:
    """Return work that multiplies a matrix [m, k] by one [k, n], `shape` being (m, k, n).

    Its unit is a floating-point operation.
    """
    m, k, n = shape
    a, b = torch.randn(m, k, device=device).to(dtype), torch.randn(k, n, device=device).to(dtype)
    times = max(round(MATRIX_SIZE**3 / (m * k * n)), 1)

    def work() -> float:
        for _ in range(times):
            a @ b
        return 2.0 * m * k * n * times

    return work


def operations(call: Callable[[], object]) -> float:
    """Return the floating-point operations of the matrix products in `call`, backward included."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Measure the peak of this process's resident memory in the block.

    The list that is yielded holds it, in bytes, after the block. It stays empty except on Linux.
    """
    result: list[int] = []
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # memory that was freed before would still count
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    yield result
    if peak := resident_peak("self"):
        result.append(peak)


def resident_peak(process: int | str) -> int:
    """Return the peak of a process's resident memory in bytes, 0 except on Linux.

    `getrusage` does not serve: in it a child process begins with the peak of its parent.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def progress(benchmarks: Sequence[Benchmark], label: str) -> Iterator[Benchmark]:
    """Yield `benchmarks` under a progress bar that names the present one."""
    with tqdm(benchmarks, desc=label, unit=" benchmarks", disable=None) as bar:
        for benchmark in bar:
            bar.set_postfix_str(benchmark.__name__.replace("_", " "))
            yield benchmark
