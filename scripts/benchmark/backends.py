"""The compiled backend of the transformer against the plain one: training steps and rollouts."""

from ad.registry import BACKENDS
from scripts.benchmark import training
from scripts.benchmark.measure import Benchmark, Effort, Measurement, Work, alternate, median
from scripts.benchmark.rollouts import NUM_ENVS, WINDOW, frozen_model, play

SHAPES = {"32 x 64": (), "32 x 256": training.WIDE}  # batch size x context length -> options
STEPS = {"32 x 64": 24, "32 x 256": 6}  # in a repeat


def training_steps(shape: str) -> Benchmark:
    """Return the benchmark of training steps on batches of `shape`, a key of SHAPES."""

    def benchmark(effort: Effort) -> Measurement:
        count = effort.scaled(STEPS[shape], 2)
        contenders = {
            "ours": _steps(shape, count),
            "torch, bfloat16": _steps(shape, count, "torch", "bfloat16"),
            "torch, float32": _steps(shape, count, "torch", "float32"),
        }
        rates = alternate(contenders, effort.repeats)
        return _measurement(f"training, {shape}", "transitions", rates)

    benchmark.__name__ = f"training {shape}"
    return benchmark


def rollouts(effort: Effort) -> Measurement:
    """Measure rollouts of 115 environments with a window of 256, in float32."""
    contenders = {}
    for backend in BACKENDS:
        model, method, config = frozen_model("--backend", backend)
        work = play(model, method, config, NUM_ENVS, effort.scaled(40, 13))
        contenders["ours" if backend == "compiled" else f"{backend}, float32"] = work
    rates = alternate(contenders, effort.repeats)
    return _measurement(f"rollout, {NUM_ENVS} environments, window {WINDOW}", "steps", rates)


def _steps(shape: str, count: int, backend: str = "auto", precision: str = "auto") -> Work:
    options = ("--backend", backend, "--training.precision", precision)
    return training.steps(training.new_trainer(*SHAPES[shape], *options), count)


def _measurement(name: str, unit: str, rates: dict[str, list[float]]) -> Measurement:
    """Return the measurement; its peer is the fastest of the others, its details have every ratio.

    `rates` begins with "ours".
    """
    result = Measurement("backends", name, unit, median(rates["ours"]), rates)
    for other in list(rates)[1:]:
        rate = median(rates[other])
        result.detail[f"ratio to {other}"] = round(result.ours / rate, 2)
        if result.peer is None or rate > result.peer:
            result.peer_name, result.peer = other, rate
    return result


BENCHMARKS = [*map(training_steps, SHAPES), rollouts]
