"""Train steps of the quickstart's and a wider shape, and the growth of their cost."""

import itertools
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, partial

import numpy as np
import torch

from ad.collection.collect import collect
from ad.config.parser import load
from ad.config.schema import Experiment
from ad.data.dataset import to_device
from ad.methods import build_model
from ad.runtime.run import Run
from ad.training.optimizer import FlatAdamW, loss_and_grad
from ad.training.precision import uses_bfloat16
from ad.training.trainer import Trainer
from scripts.benchmark import peers, show
from scripts.benchmark.measure import (
    MATRIX_SIZE,
    Effort,
    Measurement,
    Work,
    alternate,
    matrix_product,
    median,
    operations,
)

# Shapes are batch size x context length.
WIDE = ("--data.context_length", "256")
ACTOR_STEPS = 20_000  # transitions of each of a source agent's ten actors
CONTEXTS, WIDTHS = (64, 128, 256, 512, 1024), (32, 64, 128, 256)


def quickstart(effort: Effort) -> Measurement:
    """Measure the quickstart's steps against a GPT-2 of its shape on the same batches."""
    name, count = "quickstart shape, 32 x 64", effort.scaled(48, 8)
    return _against_gpt2(name, _trainer(effort), count, effort)


def wide(effort: Effort) -> Measurement:
    """Measure steps on windows of 256 transitions against a GPT-2 on the same batches."""
    return _against_gpt2("32 x 256", _trainer(effort, *WIDE), effort.scaled(12, 2), effort)


def growth(effort: Effort) -> Measurement | None:
    """Measure steps of equally many transitions by context length, and steps by model width."""
    if effort.quick:
        return None
    rates = {}
    for context in CONTEXTS:
        batch = max(32 * 256 // context, 1)
        options = ("--data.context_length", str(context), "--training.batch_size", str(batch))
        rates[f"context {context}"] = _rates(options, effort)
    for width in WIDTHS:
        options = ("--model.width", str(width), "--model.feed_forward", str(4 * width))
        rates[f"width {width}"] = _rates(options, effort)
    result = Measurement("train", "growth", "transitions", median(rates["context 256"]), rates)
    costs = {name: round(1e6 / median(values), 2) for name, values in rates.items()}
    result.detail[show.TRAINING_COST] = costs
    return result


def _against_gpt2(name: str, trainer: Trainer, count: int, effort: Effort) -> Measurement:
    contenders = {"ours": steps(trainer, count), **_limit(trainer)}
    if peers.installed("transformers"):
        for precision in ("bfloat16", "float32"):
            contenders[f"GPT-2, {precision}"] = gpt2_steps(trainer, max(count // 3, 1), precision)
    return _measure(name, trainer, contenders, effort)


def new_trainer(*options: str, actor_steps: int = ACTOR_STEPS) -> Trainer:
    """Return a trainer on histories that it collects, `actor_steps` transitions an actor.

    They are deleted when the process ends.
    """
    root, numbers = _root()
    short = ["--source.env_steps", str(10 * actor_steps), "--data.history_stride", "1"]
    name = f"benchmark-{next(numbers)}"
    config = load([*options, *short, "--root", root.name, "--name", name])
    run = Run.open(config)
    collect(run)
    return Trainer(run)


def _trainer(effort: Effort, *options: str) -> Trainer:
    """Return a trainer on histories of the length that `effort` allows; its steps cost the same."""
    return new_trainer(*options, actor_steps=effort.scaled(ACTOR_STEPS, ACTOR_STEPS // 4))


@cache
def _root() -> tuple[tempfile.TemporaryDirectory, Iterator[int]]:
    """Return the folder of all trainers, and the numbers of their runs."""
    return tempfile.TemporaryDirectory(), itertools.count()


def steps(trainer: Trainer, count: int) -> Work:
    """Return work that takes `count` train steps; its unit is a transition."""

    def work() -> float:
        for _ in range(count):
            trainer.train_step()
        return float(count * _transitions(trainer.config))

    return work


def gpt2_steps(trainer: Trainer, count: int, precision: str) -> Work:
    """Return work that takes `count` train steps of a GPT-2 on batches of the trainer's data."""
    settings = trainer.config.training
    config = replace(trainer.config, training=replace(settings, precision=precision))
    model = peers.GPT2(trainer.new_model(), trainer.config.data.context_length)
    model.to(trainer.device).train()
    optimizer, bfloat16 = FlatAdamW(model, settings), uses_bfloat16(config, trainer.device)

    def loss(batch: dict, _: slice) -> torch.Tensor:
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=bfloat16):
            return model.loss(batch)

    def work() -> float:
        for step in range(count):
            batch = trainer.data.train.sample(np.random.default_rng(step), settings.batch_size)
            batch_loss = partial(loss, to_device(batch, trainer.device))
            value, gradient = loss_and_grad(optimizer, batch_loss, [slice(None)])
            optimizer.update(gradient, value, settings.learning_rate)
        return float(count * _transitions(config))

    return work


def _rates(options: tuple[str, ...], effort: Effort) -> list[float]:
    trainer = new_trainer(*options)
    work = {"ours": steps(trainer, effort.scaled(3))}
    return alternate(work, min(effort.repeats, 2), trainer.device.type)["ours"]


def _transitions(config: Experiment) -> int:
    return config.training.batch_size * config.data.context_length


def _operations(trainer: Trainer) -> float:
    """Return the floating-point operations of the matrix products in a train step.

    They are counted on one window and on two: every further window adds the difference.
    """
    model = build_model(trainer.method, trainer.data.spec, trainer.config, trainer.device)
    batch = to_device(trainer.batch(), trainer.device)

    def counted(count: int) -> float:
        some = {name: values[:count] for name, values in batch.items()}
        # By `backward`: the counter's hooks are not made for `torch.autograd.grad`.
        return operations(lambda: trainer.loss(model, some)[0].backward())

    one, two = counted(1), counted(2)
    return one + (len(batch["valid"]) - 1) * (two - one)


def _limit(trainer: Trainer) -> dict[str, Work]:
    """Return the contender that is the limit: a matrix product in the precision of training."""
    bfloat16 = uses_bfloat16(trainer.config, trainer.device)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    name = f"{MATRIX_SIZE}³ matrix product, {str(dtype).removeprefix('torch.')}"
    return {name: matrix_product(dtype, trainer.device.type)}


def _measure(
    name: str, trainer: Trainer, contenders: dict[str, Work], effort: Effort
) -> Measurement:
    """Measure `contenders`: ours, the limit and the peers, the fastest of which is kept."""
    peak: list[int] = []
    rates = alternate(contenders, effort.repeats, trainer.device.type, peak)
    flops = _operations(trainer) / _transitions(trainer.config)
    ours, limit, *others = rates
    result = Measurement("train", name, "transitions", median(rates[ours]), rates)
    result.limit_name, result.limit = limit, median(rates[limit]) / flops
    for other in others:
        if result.peer is None or median(rates[other]) > result.peer:
            result.peer_name, result.peer = other, median(rates[other])
    result.detail["floating-point operations per transition"] = flops
    result.detail["matrix product, GFLOP/s"] = round(median(rates[limit]) / 1e9, 1)
    result.peak_memory = next(iter(peak), None)
    return result


BENCHMARKS = [quickstart, wide, growth]
