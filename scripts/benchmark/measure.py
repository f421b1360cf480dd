"""Timing as ratios: contenders take turns in one process, and a row keeps what they did.

Machines are shared and noisy, so a figure means something only beside another of the same minute:
the contenders of a row alternate (A B A B), and the row has the median of each.
"""

import contextlib
import ctypes
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

Work = Callable[[], float]  # does some work and returns how much, in the row's unit
PRODUCT = 2048  # rows and columns of the bare matrix product


@dataclass
class Row:
    """One line of the benchmark: rates in `unit` per second, the median of alternating repeats."""

    part: str
    name: str
    unit: str
    ours: float
    repeats: dict[str, list[float]]  # contender -> its rates, in the order they were measured
    peer_name: str = ""
    peer: float | None = None
    limit_name: str = ""  # what the machine could do at most
    limit: float | None = None
    target: str = ""  # what the project wants of it, in words
    met: bool | None = None
    peak_memory: int | None = None  # bytes resident at most, while ours ran
    detail: dict = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        return self.ours / self.peer if self.peer else None

    @property
    def share(self) -> float | None:
        """Ours over the machine's limit."""
        return self.ours / self.limit if self.limit else None

    def as_dict(self) -> dict:
        """The row with its ratios, in plain types."""
        return {**vars(self), "ratio": self.ratio, "share_of_limit": self.share}


@dataclass(frozen=True)
class Effort:
    """How much a run of the benchmark does: `full` in ten minutes at most, `quick` in one."""

    repeats: int
    scale: float  # of the work of one repeat
    quick: bool

    def of(self, amount: int, least: int = 1) -> int:
        """`amount` of the full benchmark, scaled."""
        return max(round(amount * self.scale), least)


FULL, QUICK = Effort(3, 1.0, False), Effort(1, 0.25, True)


def alternate(
    contenders: dict[str, Work], repeats: int, device: str = "cpu", peak: list[int] | None = None
) -> dict[str, list]:
    """Rates of each contender, `repeats` of them in turn, after one turn to warm up.

    `peak` gets the most bytes that were resident while the first of them warmed up.
    """
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    if peak is not None:
        with peak_memory() as most:
            timed(next(iter(contenders.values())), device)
        peak += most
    for turn in range(repeats + 1):
        for number, (name, work) in enumerate(contenders.items()):
            if turn == number == 0 and peak is not None:
                continue  # it is warm
            amount, seconds = timed(work, device)
            if turn:
                rates[name].append(amount / seconds)
    return rates


def timed(work: Work, device: str = "cpu") -> tuple[float, float]:
    """What `work` did and the seconds it took; on a GPU between two events."""
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
    """The middle one."""
    return statistics.median(rates)


def matrix_product(
    dtype: torch.dtype, device: str = "cpu", shape: tuple[int, int, int] = (PRODUCT,) * 3
) -> Work:
    """A bare product [m, k] @ [k, n]; its work is counted in floating-point operations."""
    m, k, n = shape
    a, b = torch.randn(m, k, device=device).to(dtype), torch.randn(k, n, device=device).to(dtype)
    times = max(round(PRODUCT**3 / (m * k * n)), 1)

    def work() -> float:
        for _ in range(times):
            a @ b
        return 2.0 * m * k * n * times

    return work


def operations(call: Callable[[], object]) -> float:
    """Floating-point operations of the matrix products in `call`, backward ones included."""
    with FlopCounterMode(display=False) as counter:
        call()
    return float(counter.get_total_flops())


@contextlib.contextmanager
def peak_memory() -> Iterator[list[int]]:
    """A list that holds, after the block, the most bytes that were resident in it (Linux)."""
    result: list[int] = []
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before would still count
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    yield result
    if peak := resident_peak("self"):
        result.append(peak)


def resident_peak(process: int | str) -> int:
    """The most bytes that a process had resident so far; 0 where nobody tells (Linux does).

    Not by `getrusage`: there a child begins with the peak of its parent.
    """
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def progress(steps: list[tuple[str, Callable]], label: str) -> Iterator[tuple[str, Callable]]:
    """The `steps` one by one under a progress bar that names each."""
    with tqdm(steps, desc=label, unit=" rows", disable=None) as bar:
        for name, step in bar:
            bar.set_postfix_str(name)
            yield name, step
