"""Rollouts: lanes of a frozen model with cached keys, against reading the window at every step."""

import copy
import time

import numpy as np
import torch

import envs
from ad.config.parser import load
from ad.data.spec import make_spec
from ad.methods import build_method
from ad.methods.context_memory import ContextMemory
from ad.models.sequence_model import build_model
from ad.rollout.rollout import rollout, sampled
from ad.runtime.devices import choose_device
from ad.runtime.run import Run
from scripts.benchmark.measure import (
    Effort,
    Row,
    Work,
    alternate,
    matrix_product,
    median,
    operations,
)

LANES, GROWTH = 115, (1, 23, 115, 460)  # 23 tasks x 5 seeds
WINDOW = 256


class Recomputed(ContextMemory):
    """A context that reads its whole window for each decision: the plain way, and the reference."""

    def _logits(self, start: int) -> torch.Tensor:
        return self.model(self.window())[:, -1]


class Plain:
    """A method whose context is `Recomputed`."""

    def begin(self, model, num_envs: int, context_length: int) -> Recomputed:
        """Return an empty context for a rollout of `num_envs` environments."""
        return Recomputed(model, num_envs, context_length)


def cached(effort: Effort) -> Row:
    """115 lanes of a wide window: the same game with the cache and without."""
    model, method, config = frozen_model()
    ours, plain = effort.of(60, 15), 13  # episodes; 13 of 20 steps fill the window once
    few = -(-LANES // 10) if effort.quick else LANES  # as fast a lane
    product = matrix_product(torch.float32, _device(model))
    contenders = {
        "ours": playing(model, method, config, LANES, ours),
        "full recompute": playing(model, Plain(), config, few, plain),
        "2048³ product, float32": product,
    }
    peak: list[int] = []
    rates = alternate(contenders, 1 if effort.quick else 2, _device(model), peak)
    row = Row("rollout", f"{LANES} lanes, window {WINDOW}", "steps", median(rates["ours"]), rates)
    row.peer_name, row.peer = "full recompute", median(rates["full recompute"])
    row.limit_name = "2048³ product, float32"
    row.limit = median(rates[row.limit_name]) / _operations(model, config)
    row.target = "30 x recompute, 40 k steps/s"
    row.met = row.ratio >= 30 and row.ours >= 40e3
    row.peak_memory = next(iter(peak), None)
    return row


def late_steps(effort: Effort) -> Row:
    """A step after many episodes against one after few: what was played does not slow it down."""
    model, method, config = frozen_model()
    seconds = _stretches(model, method, config, stretches=effort.of(12, 4))
    early, late = LANES * WINDOW / seconds[1], LANES * WINDOW / seconds[-1]
    row = Row("rollout", f"the last {WINDOW} steps of many", "steps", late, {"ours": [late]})
    row.peer_name, row.peer = f"the second {WINDOW}", early
    row.target, row.met = "no slower (within 15 %)", late >= 0.85 * early
    row.detail[f"seconds per {WINDOW} steps"] = [round(s, 3) for s in seconds]
    return row


def growth(effort: Effort) -> Row:
    """Steps a second by the number of lanes."""
    model, method, config = frozen_model()
    rates = {
        str(n): alternate({"ours": playing(model, method, config, n, effort.of(30, 13))}, 1)["ours"]
        for n in GROWTH[: 3 if effort.quick else None]
    }
    row = Row("rollout", "growth", "steps", median(rates[str(LANES)]), rates)
    row.detail["cost per step, µs"] = {k: round(1e6 / median(v), 1) for k, v in rates.items()}
    return row


def playing(model, method, config, lanes: int, episodes: int) -> Work:
    """Plays so many episodes in each lane; the work is the steps of all lanes."""

    def work() -> float:
        env = _lanes(config, lanes)
        seeds = np.arange(lanes, dtype=np.uint64)
        length = config.data.context_length
        return rollout(model, method, env, seeds, episodes, length, sampled()).env_steps

    return work


def frozen_model(*words: str):
    """Return a random frozen model with a window of WINDOW, its method and its configuration."""
    config = load(["--data.context_length", str(WINDOW), *words]).config
    torch.manual_seed(0)
    spec = make_spec(Run(config).world, config.env.episode_length, np.array([0.0, 1.0]))
    model = build_model(spec, config, choose_device(config))
    return model.eval().requires_grad_(False), build_method(config.method), config


def _lanes(config, count: int):
    tasks = np.resize(envs.make_base(config.env.id).all_tasks(), (count, 2))
    return envs.make_vec(config.env.id, tasks, config.env.episode_length)


def _device(model) -> str:
    return model.head.weight.device.type


def _stretches(model, method, config, stretches: int) -> list[float]:
    """Seconds for every WINDOW decisions of one long rollout, without the world."""
    device = model.head.weight.device
    memory = method.begin(model, LANES, config.data.context_length)
    zeros = torch.zeros(LANES, dtype=torch.int64, device=device)
    seconds = []
    with torch.inference_mode():
        for _ in range(stretches):
            begin = time.perf_counter()
            for _ in range(WINDOW):
                memory.act(zeros, zeros).argmax(1).cpu()
                memory.observe(zeros, zeros.float(), zeros)
            seconds.append(time.perf_counter() - begin)
    return seconds


def _operations(model, config) -> float:
    """Floating-point operations of one cached step of a lane, with the window three quarters full.

    A cache that is refilled with half of it is that full on average. Counted on the plain path, as
    nobody sees into the compiled one.
    """
    capacity, model = config.data.context_length, copy.deepcopy(model).double()
    memory = build_method(config.method).begin(model, 1, capacity)
    zeros = torch.zeros(1, dtype=torch.int64, device=model.head.weight.device)

    def step() -> None:
        memory.act(zeros, zeros)
        memory.observe(zeros, zeros.float(), zeros)

    with torch.inference_mode():
        for _ in range(3 * capacity // 4):
            step()
        return operations(step)


ROWS = [cached, late_steps, growth]
