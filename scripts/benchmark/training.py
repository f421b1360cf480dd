"""Training steps of the quickstart's, a wider and the seed experiment's shape, and their growth."""

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
from ad.methods import build_model
from ad.runtime.devices import choose_device, torch_threads
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
SEED_SHAPE = ("--config_path", "configs/seed_darkroom.yaml", "--data.env_steps", "0")
ACTOR_STEPS = 20_000  # transitions of each of a source agent's ten actors
SEED_STEP = 11.2  # seconds per train step that the seed implementation's notes report
CONTEXTS, WIDTHS = (64, 128, 256, 512, 1024), (32, 64, 128, 256)


def quickstart(effort: Effort) -> Measurement:
    """Measure the quickstart's steps against a GPT-2 of its shape on the same batches."""
    name, count = "quickstart shape, 32 x 64", effort.scaled(48, 8)
    return _with_targets(_against_gpt2(name, _trainer(effort), count, effort))


def wide(effort: Effort) -> Measurement:
    """Measure steps on windows of 256 transitions against a GPT-2 on the same batches."""
    result = _against_gpt2("32 x 256", _trainer(effort, *WIDE), effort.scaled(12, 2), effort)
    result.detail["profile"] = "logs/benchmark/profile_wide.txt"
    return _with_targets(result)


def _with_targets(result: Measurement) -> Measurement:
    result.target = "110 k/s, 3 x the peer, 20 % of the limit (aim 40 %)"
    reached = result.ratio and result.ratio >= 3 and result.share >= 0.2
    result.met = reached and result.ours >= 110e3
    return result


def seed(effort: Effort) -> Measurement:
    """Measure steps of the seed experiment's shape: 768 tokens, feed-forward 2048, dropout."""
    trainer, repeats = _trainer(effort, *SEED_SHAPE), min(effort.repeats, 2)
    contenders = {"ours": steps(trainer, 1), **_limit(trainer)}
    result = _measure("seed shape", trainer, contenders, replace(effort, repeats=repeats))
    result.peer_name = "seed implementation (its notes, not measured here)"
    result.peer = _transitions(trainer.config) / SEED_STEP
    result.target = "12 x the peer, 25 % of the limit"
    result.met = result.ratio >= 12 and result.share >= 0.25
    return result


def compiled_steps(effort: Effort) -> Measurement | None:
    """Measure torch.compile against eager steps, and its compile time, on a GPU."""
    device = choose_device(load([])).type
    if effort.quick or device == "cpu":
        return None
    eager, compiled = new_trainer(*WIDE), new_trainer(*WIDE)
    begin = time.perf_counter()
    compiled.compile()
    seconds = time.perf_counter() - begin
    contenders = {"ours": steps(compiled, 5), "eager": steps(eager, 5)}
    rates = alternate(contenders, effort.repeats, device)
    name = "32 x 256, torch.compile"
    result = Measurement("train", name, "transitions", median(rates["ours"]), rates)
    result.peer_name, result.peer = "eager", median(rates["eager"])
    result.detail["seconds to compile"] = round(seconds, 1)
    return result


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
    result = _measure(name, trainer, contenders, effort)
    result.detail["sampler, share of a train step"] = _sampler_share(trainer, result.ours)
    return result


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


def write_profile(folder: Path) -> None:
    """Write `profile_<shape>.txt`, the time of each operation in a train step.

    On a CPU the step has one thread.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # no messages when it starts and stops
    for name, options in (("quickstart", ()), ("wide", WIDE), ("seed", SEED_SHAPE)):
        with torch_threads(1):
            trainer = new_trainer(*options)
            trainer.train_step()
            activities = [ProfilerActivity.CPU]
            if trainer.device.type == "cuda":
                activities.append(ProfilerActivity.CUDA)
            with profile(activities=activities) as profiled:
                trainer.train_step()
        order = f"self_{trainer.device.type}_time_total"
        table = profiled.key_averages().table(sort_by=order, row_limit=25)
        (folder / f"profile_{name}.txt").write_text(table, encoding="utf-8")


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


def _sampler_share(trainer: Trainer, rate: float) -> float:
    """Return the sampler's share of a train step, where `rate` is that of the train steps."""
    settings, rng = trainer.config.training, np.random.default_rng(0)

    def work() -> float:
        to_device(trainer.data.train.sample(rng, settings.batch_size), trainer.device)
        return float(_transitions(trainer.config))

    return round(rate / median(alternate({"ours": work}, 20)["ours"]), 4)


BENCHMARKS = [quickstart, wide, seed, compiled_steps, growth]
