"""Training: steps of the quickstart's, a wider and the seed experiment's shape, and their cost."""

import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from ad.collection.collect import collect
from ad.config.parser import load
from ad.config.schema import Experiment
from ad.data.dataset import to_device
from ad.models.sequence_model import build_model
from ad.runtime.devices import choose_device, torch_threads
from ad.runtime.run import Run, with_seed
from ad.training.multi_seed import stacking_is_faster, step_function
from ad.training.optimizer import FlatAdamW, loss_and_grad
from ad.training.precision import uses_bfloat16
from ad.training.trainer import Trainer
from scripts.benchmark import peers, show
from scripts.benchmark.gemm import tiles
from scripts.benchmark.measure import (
    PRODUCT,
    Effort,
    Row,
    Work,
    alternate,
    matrix_product,
    median,
    operations,
)

WIDE = ("--data.context_length", "256")
SEED_SHAPE = ("--config_path", "configs/seed_darkroom.yaml", "--data.env_steps", "0")
STREAM = 20_000  # transitions of each of an agent's ten histories
SEED_STEP = 11.2  # seconds a step of the seed implementation (field notes), not run again here
CONTEXTS, WIDTHS = (64, 128, 256, 512, 1024), (32, 64, 128, 256)


def quickstart(effort: Effort) -> Row:
    """Quickstart steps against a GPT-2 of its shape on the same tokens, and a bare product."""
    row = _against_gpt2("quickstart shape, 32 x 64", _small(effort), effort.of(48, 8), effort)
    return _with_targets(row)


def wide(effort: Effort) -> Row:
    """The same with windows of 256 transitions."""
    row = _against_gpt2("32 x 256", _small(effort, *WIDE), effort.of(12, 2), effort)
    row.detail["profile"] = "logs/benchmark/profile_wide.txt"
    return _with_targets(row)


def _with_targets(row: Row) -> Row:
    row.target = "110 k/s, 3 x the peer, 20 % of the product (aim 40 %)"
    row.met = row.ratio and row.ours >= 110e3 and row.ratio >= 3 and row.share >= 0.2
    return row


def seed(effort: Effort) -> Row:
    """Steps of the seed experiment's shape: 768 separate tokens, feed-forward 2048, dropout."""
    trainer = _small(effort, *SEED_SHAPE)
    contenders = {"ours": steps(trainer, 1), **_product(trainer)}
    row = _row("seed shape", trainer, contenders, replace(effort, repeats=min(effort.repeats, 2)))
    row.peer_name = "seed implementation (its notes, another day)"
    row.peer = _transitions(trainer.config) / SEED_STEP
    row.target, row.met = "12 x the seed's, 25 %", row.ratio >= 12 and row.share >= 0.25
    return row


def seeds(effort: Effort) -> Row:
    """Three training seeds side by side, against one of them alone."""
    trainer = _small(effort)
    others = [Trainer(Run.open(with_seed(trainer.config, n)), trainer.data) for n in range(1, 4)]
    contenders = {"ours": rounds(others, effort.of(24, 4)), "one": steps(trainer, effort.of(48, 8))}
    rates = alternate(contenders, effort.repeats, trainer.device.type)
    row = Row("train", "3 seeds side by side, 32 x 64", "transitions", median(rates["ours"]), rates)
    row.peer_name, row.peer = "one seed alone", median(rates["one"])
    row.detail["steps"] = (
        "stacked" if stacking_is_faster(others) else "in turns, as a CPU is busy with one"
    )
    if trainer.device.type == "cuda":
        row.target = "3 in less time than 2 (1.5 x), 1.5 M transitions/s"
        row.met = row.ratio > 1.5 and row.ours >= 1.5e6
    return row


def compiled_steps(effort: Effort) -> Row | None:
    """torch.compile against eager on a GPU, with its compile time."""
    if effort.quick or choose_device(load([]).config).type == "cpu":
        return None
    eager, trainer = new_trainer(*WIDE), new_trainer(*WIDE)
    begin = time.perf_counter()
    trainer.compile()
    seconds = time.perf_counter() - begin
    rates = alternate({"ours": steps(trainer, 5), "eager": steps(eager, 5)}, effort.repeats)
    row = Row("train", "32 x 256, compiled", "transitions", median(rates["ours"]), rates)
    row.peer_name, row.peer = "eager", median(rates["eager"])
    row.detail["seconds to compile"] = round(seconds, 1)
    return row


def growth(effort: Effort) -> Row | None:
    """Transitions a second by context and by width, at the same number of transitions a step."""
    if effort.quick:
        return None
    rates = {}
    for context in CONTEXTS:
        batch = max(32 * 256 // context, 1)
        words = ("--data.context_length", str(context), "--training.batch_size", str(batch))
        rates[f"context {context}"] = _speed(words, effort)
    for width in WIDTHS:
        words = ("--model.width", str(width), "--model.feed_forward", str(4 * width))
        rates[f"width {width}"] = _speed(words, effort)
    row = Row("train", "growth", "transitions", median(rates["context 256"]), rates)
    costs = {name: round(1e6 / median(values), 2) for name, values in rates.items()}
    row.detail[show.TRAINING] = costs
    return row


def _against_gpt2(name: str, trainer: Trainer, count: int, effort: Effort) -> Row:
    contenders = {"ours": steps(trainer, count), **_product(trainer)}
    if peers.installed("transformers"):
        for precision in ("bfloat16", "float32"):
            contenders[f"GPT-2, {precision}"] = gpt2_steps(trainer, max(count // 3, 1), precision)
    row = _row(name, trainer, contenders, effort)
    row.detail["sampler, share of a step"] = _sampler_share(trainer, row.ours)
    return row


def new_trainer(*words: str, stream: int = STREAM) -> Trainer:
    """A trainer on histories of this process's own, which are gone from the disk when it ends."""
    root, number = _root()
    short = ["--source.env_steps", str(10 * stream), "--data.history_stride", "1"]
    config = load([*words, *short, "--root", root.name, "--name", f"benchmark-{next(number)}"])
    run = Run.open(config.config)
    collect(run)
    return Trainer(run)


def _small(effort: Effort, *words: str) -> Trainer:
    """The same on as much of them as the `effort` asks for; a step costs the same."""
    return new_trainer(*words, stream=effort.of(STREAM, STREAM // 4))


@cache
def _root() -> tuple[tempfile.TemporaryDirectory, Iterator[int]]:
    """The folder of all trainers' histories, and the numbers of their runs."""
    return tempfile.TemporaryDirectory(), itertools.count()


def steps(trainer: Trainer, count: int) -> Work:
    """Takes `count` optimizer steps."""

    def work() -> float:
        for _ in range(count):
            trainer.train_step()
        return float(count * _transitions(trainer.config))

    return work


def rounds(trainers: list[Trainer], count: int) -> Work:
    """Takes `count` steps of each of `trainers`, as `train_seeds` does."""
    take = step_function(stacking_is_faster(trainers))

    def work() -> float:
        for _ in range(count):
            take(trainers)
        return float(count * len(trainers) * _transitions(trainers[0].config))

    return work


def gpt2_steps(trainer: Trainer, count: int, precision: str) -> Work:
    """The same steps with a GPT-2 in place of our transformer, on the trainer's batches."""
    settings = trainer.config.training
    config = replace(trainer.config, training=replace(settings, precision=precision))
    model = peers.GPT2(trainer.new_model(), trainer.config.data.context_length)
    model.to(trainer.device).train()
    optimizer, bfloat16 = FlatAdamW(model, settings), uses_bfloat16(config, trainer.device)

    def loss(batch: tuple, _: slice) -> torch.Tensor:
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=bfloat16):
            return model.loss(*batch)

    def work() -> float:
        for step in range(count):
            batch = trainer.data.train.sample(np.random.default_rng(step), settings.batch_size)
            whole = partial(loss, to_device(batch, trainer.device))
            value, found = loss_and_grad(optimizer, whole, [slice(None)])
            optimizer.update(found, value, settings.learning_rate)
        return float(count * _transitions(config))

    return work


def write_profile(folder: Path) -> None:
    """`profile_<shape>.txt`: the operations that a step's time goes to; on a CPU, of one thread.

    The compiled blocks are `CompiledBlocksFunction` and its backward pass.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # it would say when it starts and stops
    for name, words in (("quickstart", ()), ("wide", WIDE), ("seed", SEED_SHAPE)):
        with torch_threads(1):
            trainer = new_trainer(*words)
            trainer.train_step()
            activities = [ProfilerActivity.CPU]
            if trainer.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            with profile(activities=activities) as profiled:
                trainer.train_step()
        order = f"self_{trainer.device.type}_time_total"
        table = profiled.key_averages().table(sort_by=order, row_limit=25)
        (folder / f"profile_{name}.txt").write_text(table, encoding="utf-8")


def _speed(words: tuple[str, ...], effort: Effort) -> list[float]:
    trainer = new_trainer(*words)
    work = {"ours": steps(trainer, effort.of(3))}
    return alternate(work, min(effort.repeats, 2), trainer.device.type)["ours"]


def _transitions(config: Experiment) -> int:
    return config.training.batch_size * config.data.context_length


def _operations(trainer: Trainer) -> float:
    """Of a step's products, counted where PyTorch sees them: in plain blocks, of few windows."""
    plain = replace(trainer.config, backend="torch")
    model = build_model(trainer.data.spec, plain, trainer.device)
    windows, valid = to_device(trainer.batch(), trainer.device)

    def counted(count: int) -> float:
        some = {name: values[:count] for name, values in windows.items()}
        # By `backward`: the counter's hooks are not made for `torch.autograd.grad`.
        return operations(lambda: trainer.loss(model, some, valid[:count]).backward())

    one, two = counted(1), counted(2)
    return one + (len(valid) - 1) * (two - one)


def _product(trainer: Trainer) -> dict[str, Work]:
    """The bare product in the precision of training."""
    enabled = uses_bfloat16(trainer.config, trainer.device)
    dtype = torch.bfloat16 if enabled else torch.float32
    return {_product_name(dtype): matrix_product(dtype, trainer.device.type)}


def _product_name(dtype: torch.dtype) -> str:
    return f"{PRODUCT}³ product, {str(dtype).removeprefix('torch.')}"


def _row(name: str, trainer: Trainer, contenders: dict[str, Work], effort: Effort) -> Row:
    """Measure: the first contender is ours, the second the product, the others are peers."""
    peak: list[int] = []
    rates = alternate(contenders, effort.repeats, trainer.device.type, peak)
    flops = _operations(trainer) / _transitions(trainer.config)
    ours, product, *others = rates
    row = Row("train", name, "transitions", median(rates[ours]), rates)
    row.limit_name, row.limit = product, median(rates[product]) / flops
    for other in others:  # the faster one is the peer
        if row.peer is None or median(rates[other]) > row.peer:
            row.peer_name, row.peer = other, median(rates[other])
    row.detail["operations a transition"] = flops
    row.detail["product, GFLOP/s"] = round(median(rates[product]) / 1e9, 1)
    row.peak_memory = next(iter(peak), None)
    return row


def _sampler_share(trainer: Trainer, rate: float) -> float:
    settings, rng = trainer.config.training, np.random.default_rng(0)

    def work() -> float:
        to_device(trainer.data.train.sample(rng, settings.batch_size, 0.5), trainer.device)
        return float(_transitions(trainer.config))

    return round(rate / median(alternate({"ours": work}, 20)["ours"]), 4)


ROWS = [quickstart, wide, seed, seeds, compiled_steps, tiles, growth]
