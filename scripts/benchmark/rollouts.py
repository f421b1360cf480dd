"""Rollouts of a frozen model with a KV cache, against a full forward pass for each decision."""

import numpy as np
import torch

import envs
from ad.config.parser import load
from ad.data.spec import make_spec
from ad.methods import build_method, build_model
from ad.methods.context_policy import ContextPolicy
from ad.methods.contexts import SlidingWindow
from ad.registry import MEMORIES
from ad.rollout.rollout import rollout, sampled
from ad.runtime.devices import choose_device
from ad.runtime.run import Run
from scripts.benchmark.measure import (
    Effort,
    Measurement,
    Work,
    alternate,
    matrix_product,
    median,
    operations,
)

NUM_ENVS = 115  # 23 tasks x 5 seeds
GROWTH = (1, 23, 115, 460)  # environments
WINDOW = 256  # transitions
LENGTHS = (128, 1024, 4096)  # transitions in the window of a memory


class RecomputedWindow(SlidingWindow):
    """A sliding window that is read as a whole at each decision, without the cache."""

    def hidden(self) -> torch.Tensor:
        """Return the hidden states [N, C] of the present decision."""
        return self.model.hidden(self.window())[:, -1]


def cached(effort: Effort) -> Measurement:
    """Measure rollouts of 115 environments with the cache and without."""
    model, config = frozen_model()
    filled = _episodes_of_a_window(config)
    episodes = effort.scaled(60, filled + 2)
    few = -(-NUM_ENVS // 10) if effort.quick else NUM_ENVS  # each env costs as much as in NUM_ENVS
    limit = "2048³ matrix product, float32"
    contenders = {
        "ours": play(model, config, NUM_ENVS, episodes),
        "full recompute": play(model, config, few, filled, RecomputedWindow),
        limit: matrix_product(torch.float32, _device(model)),
    }
    peak: list[int] = []
    rates = alternate(contenders, 1 if effort.quick else 2, _device(model), peak)
    name = f"{NUM_ENVS} environments, window {WINDOW}"
    result = Measurement("rollout", name, "steps", median(rates["ours"]), rates)
    result.peer_name, result.peer = "full recompute", median(rates["full recompute"])
    result.limit_name, result.limit = limit, median(rates[limit]) / _operations(config)
    result.peak_memory = next(iter(peak), None)
    return result


def growth(effort: Effort) -> Measurement:
    """Measure rollouts by the number of environments."""
    model, config = frozen_model()
    rates = {}
    for num_envs in GROWTH[: 3 if effort.quick else None]:
        work = play(model, config, num_envs, effort.scaled(30, _episodes_of_a_window(config)))
        rates[str(num_envs)] = alternate({"ours": work}, 1)["ours"]
    result = Measurement("rollout", "growth", "steps", median(rates[str(NUM_ENVS)]), rates)
    costs = {num_envs: round(1e6 / median(values), 1) for num_envs, values in rates.items()}
    result.detail["cost per step, µs"] = costs
    return result


def memories(effort: Effort) -> Measurement:
    """Measure rollouts of 23 environments, their speed and memory, by memory and length of window.

    A rollout has as many decisions as a window and a half. A memory that can carries its state.
    """
    rates, peaks = {}, {}
    for name, memory in ((name, MEMORIES.load(name)) for name in MEMORIES):
        for length in LENGTHS[: 2 if effort.quick else None]:
            segments = ["--training.segments", "2"] if memory.carries else []
            words = "--model.memory", name, "--data.context_length", str(length), *segments
            model, config = frozen_model(*words)
            work = play(model, config, 23, 3 * length // 2 // config.env.episode_length)
            peak: list[int] = []
            rates[f"{name}, {length}"] = alternate({"ours": work}, 1, peak=peak)["ours"]
            peaks |= {f"{name}, {length}": round(size / 2**20) for size in peak}
    length = LENGTHS[1]
    ours, peer = (median(rates[f"{name}, {length}"]) for name in ("min_gru", "transformer"))
    result = Measurement("rollout", f"memories, windows of {length:,}", "steps", ours, rates)
    result.peer_name, result.peer = "min_gru against the transformer", peer
    costs = {name: round(1e6 / median(values), 1) for name, values in rates.items()}
    result.detail |= {"cost per step, µs": costs, "peak of memory, MiB": peaks}
    return result


def play(model, config, num_envs: int, episodes: int, context_class=SlidingWindow) -> Work:
    """Return work that plays `episodes` episodes in each environment; its unit is an env step."""

    def work() -> float:
        env, seeds = _environments(config, num_envs), np.arange(num_envs, dtype=np.uint64)
        context = context_class(model, num_envs, config.data.context_length)
        return rollout(ContextPolicy(model, context), env, seeds, episodes, sampled()).env_steps

    return work


def _episodes_of_a_window(config) -> int:
    """Return how many episodes of full length fill the window once."""
    return -(-config.data.context_length // config.env.episode_length)


def frozen_model(*options: str):
    """Return a random frozen model with a window of WINDOW, and its configuration."""
    config = load(["--data.context_length", str(WINDOW), *options])
    return _frozen_model(config), config


def _frozen_model(config):
    torch.manual_seed(0)
    spec = make_spec(Run(config).world, config.env.episode_length, np.array([0.0, 1.0]))
    model = build_model(build_method(config.method), spec, config, choose_device(config))
    return model.eval().requires_grad_(False)


def _environments(config, num_envs: int):
    tasks = np.resize(envs.make_base(config.env.id).all_tasks(), (num_envs, 2))
    return envs.make_vec(config.env.id, tasks, config.env.episode_length)


def _device(model) -> str:
    return model.head.weight.device.type


def _operations(config) -> float:
    """Return the floating-point operations of one environment's step with the cache.

    The window is three quarters full, which is the average of a cache that is refilled with half of
    it.
    """
    model = _frozen_model(config)
    policy = ContextPolicy(model, SlidingWindow(model, 1, config.data.context_length))
    zeros = torch.zeros(1, dtype=torch.int64, device=model.head.weight.device)
    never = zeros > 0

    def step() -> None:
        policy.act(zeros, zeros)
        policy.observe(zeros, zeros.float(), never, never, zeros)

    with torch.inference_mode():
        for _ in range(3 * config.data.context_length // 4):
            step()
        return operations(step)


BENCHMARKS = [cached, growth, memories]
