"""Bytes of a train step by context and width, and what a GPU of 80 GB could hold, from these.

The bytes are those of all tensors that are alive at once. They are counted where they are made, so
they depend neither on an allocator nor on other processes; on a GPU the allocator counts.
"""

import itertools
import weakref
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from unittest.mock import patch

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ad.config.schema import Experiment
from ad.reporting.page import Table
from ad.runtime.run import Run
from ad.training.trainer import Trainer, TrainingData
from scripts.benchmark.measure import Effort, Measurement, alternate, median
from scripts.benchmark.training import new_trainer, steps

CONTEXTS, WIDTHS, LAYERS = (128, 256), (64, 128), (2, 4)
WINDOWS = 16, 32  # enough for activations to be the largest part of the peak
HEAD_DIM = 64
GPU_BYTES, USABLE = 80e9, 0.9  # the rest is for the workspaces of operations and for gaps
STATE_BYTES = 20  # of a parameter: weight, two moments, and two copies of the gradient, float32
# Context length, width, layers: the first is configs/xland_large.yaml.
SHAPES = [(4096, 512, 8), (1024, 512, 8), (4096, 1024, 16), (4096, 2048, 24), (32768, 512, 8)]
OPTIONS = ("--training.precision", "bfloat16", "--data.held_out_actors", "0")
FIT = "bytes of a transition in training, for a unit of width"
HEADER = ["context", "width", "layers", "parameters", "windows in 80 GB", "with checkpointing"]


class PeakBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made in the block, at their peak: `peak`."""

    def __init__(self):
        super().__init__()
        self.present = self.peak = 0
        self.counted: set[int] = set()  # storages that are alive

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        """Call an operation, and count the storages that it made."""
        named = named or {}
        given = _storages((arguments, named))
        result = function(*arguments, **named)
        for key, storage in _storages(result).items():
            if key not in given and key not in self.counted:
                self._count(key, storage)
        return result

    def _count(self, key: int, storage: torch.UntypedStorage) -> None:
        size = storage.nbytes()
        self.counted.add(key)
        self.present += size
        self.peak = max(self.peak, self.present)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self.counted.discard(key)
        self.present -= size


def _storages(values: object) -> dict[int, torch.UntypedStorage]:
    """Return the storages of all tensors in nested `values`, by their address."""
    tensors = (leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))
    return {storage._cdata: storage for storage in (t.untyped_storage() for t in tensors)}


def peak_bytes(call: Callable[[], object], device: str = "cpu") -> int:
    """Return the bytes of the tensors that `call` makes, at their peak."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with PeakBytes() as counted:
        call()
    return counted.peak


def bytes_of_transition(data: TrainingData, run: Run) -> float:
    """Return by how many bytes a transition raises the peak of the forward and backward pass.

    It is the difference between two batches, in which weights and gradients do not count. Attention
    is the fused operation, as on a GPU, also where products are faster on this CPU.
    """
    peaks = []
    for windows in WINDOWS:
        training = replace(run.config.training, batch_size=windows)
        trainer = Trainer(Run(replace(run.config, training=training)), data)
        with patch("ad.models.attention.products_are_faster", lambda q, k: False):
            call = partial(trainer.loss_and_grad, trainer.forward)
            peaks.append(peak_bytes(call, trainer.device.type))
    return (peaks[1] - peaks[0]) / (WINDOWS[1] - WINDOWS[0]) / run.config.data.context_length


def shaped(config: Experiment, width: int, layers: int, recompute: bool) -> Experiment:
    """Return `config` with a model of this shape, with heads of width 64."""
    shape = {"width": width, "layers": layers}
    model = replace(config.model, heads=width // HEAD_DIM, feed_forward=4 * width, **shape)
    training = replace(config.training, activation_checkpointing=recompute)
    return replace(config, model=model, training=training)


def fit(measured: dict[tuple[int, int, int], float]) -> dict[str, float]:
    """Fit width x (a + b x layers) to the bytes of a transition by (context, width, layers).

    Returns a, b, and the largest relative error of the fit in per cent.
    """
    design = np.array([[width, width * layers] for _, width, layers in measured], float)
    target = np.array([*measured.values()])
    (base, layer), *_ = np.linalg.lstsq(design / target[:, None], np.ones(len(target)), rcond=None)
    error = np.abs(design @ [base, layer] / target - 1).max()
    return {"all": round(base, 1), "a layer": round(layer, 1), "error, %": round(100 * error, 1)}


def checkpointing(effort: Effort) -> Measurement:
    """Measure train steps that recompute activations against those that save them, and bytes."""
    measured: dict[bool, dict] = {False: {}, True: {}}
    for context in CONTEXTS:
        trainer = new_trainer(*OPTIONS, "--data.context_length", str(context), actor_steps=2000)
        for width, layers, recompute in itertools.product(WIDTHS, LAYERS, measured):
            run = Run(shaped(trainer.config, width, layers, recompute))
            found = bytes_of_transition(trainer.data, run)
            measured[recompute][context, width, layers] = found
    trainers = [
        Trainer(Run(shaped(trainer.config, WIDTHS[-1], LAYERS[-1], recompute)), trainer.data)
        for recompute in (True, False)
    ]
    names, count = ("ours", "saved activations"), effort.scaled(4)
    contenders = {n: steps(each, count) for n, each in zip(names, trainers, strict=True)}
    rates = alternate(contenders, min(effort.repeats, 2), trainer.device.type)
    name = f"activation checkpointing, 32 x {context}, width {WIDTHS[-1]}"
    result = Measurement("memory", name, "transitions", median(rates["ours"]), rates)
    result.peer_name, result.peer = names[1], median(rates[names[1]])
    result.detail[FIT] = {"saved": fit(measured[False]), "recomputed": fit(measured[True])}
    return result


def capacity_table(measurements: list[Measurement]) -> Table:
    """Return how many windows a GPU of 80 GB could hold at once, computed from the fits."""
    fits = next((m.detail[FIT] for m in measurements if FIT in m.detail), None)
    rows = []
    for context, width, layers in SHAPES if fits else []:
        parameters = 12 * layers * width**2
        free = USABLE * GPU_BYTES - STATE_BYTES * parameters
        windows = [
            free / (context * width * (each["all"] + each["a layer"] * layers))
            for each in (fits["saved"], fits["recomputed"])
        ]
        cells = [f"{context:,}", f"{width:,}", str(layers), f"{parameters / 1e6:.0f} M"]
        rows.append([*cells, *(f"{int(count):,}" for count in windows)])
    return Table(HEADER, rows)


BENCHMARKS = [checkpointing]
