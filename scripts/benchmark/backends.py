"""The compiled backend of the transformer against the plain one: training steps and rollouts."""

from ad.registry import BACKENDS
from scripts.benchmark import rollouts as rollout_benchmarks
from scripts.benchmark import training
from scripts.benchmark.measure import Effort, Row, Work, alternate, median

SHAPES = {"32 x 64": (), "32 x 256": training.WIDE}


def training_steps(name: str):
    """Return the benchmark of training steps on batches of the shape `name`."""

    def row(effort: Effort) -> Row:
        count = effort.of(24 if name == "32 x 64" else 6, 2)
        contenders = {
            "ours": _steps(SHAPES[name], count),
            "torch, bfloat16": _steps(SHAPES[name], count, "torch", "bfloat16"),
            "torch, float32": _steps(SHAPES[name], count, "torch", "float32"),
        }
        rates = alternate(contenders, effort.repeats)
        return _row(f"training, {name}", "transitions", rates)

    row.__name__ = f"training {name}"
    return row


def rollouts(effort: Effort) -> Row:
    """Measure rollouts of 115 environments with a window of 256, in float32."""
    contenders = {}
    for name in BACKENDS:
        model, method, config = rollout_benchmarks.frozen_model("--backend", name)
        work = rollout_benchmarks.playing(
            model, method, config, rollout_benchmarks.LANES, effort.of(40, 13)
        )
        contenders["ours" if name == "compiled" else f"{name}, float32"] = work
    return _row(
        "rollout, 115 environments, window 256", "steps", alternate(contenders, effort.repeats)
    )


def _steps(
    shape: tuple[str, ...], count: int, backend: str = "auto", precision: str = "auto"
) -> Work:
    words = ("--backend", backend, "--training.precision", precision)
    return training.steps(training.new_trainer(*shape, *words), count)


def _row(name: str, unit: str, rates: dict[str, list[float]]) -> Row:
    """Return the row whose peer is the fastest other contender; every ratio is in its details."""
    row = Row("backends", name, unit, median(rates["ours"]), rates)
    for other in list(rates)[1:]:
        row.detail[f"ratio to {other}"] = round(row.ours / median(rates[other]), 2)
        if row.peer is None or median(rates[other]) > row.peer:
            row.peer_name, row.peer = other, median(rates[other])
    return row


ROWS = [*map(training_steps, SHAPES), rollouts]
