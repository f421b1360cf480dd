"""Data-parallel training in two processes against one process."""

import json
import tempfile
from pathlib import Path

from scripts.benchmark.end_to_end import run_module, run_verb
from scripts.benchmark.measure import Effort, Measurement, median
from scripts.benchmark.training import WIDE

STEPS = 40  # train steps of a repeat
BATCH = 32
TORCHRUN = ("torch.distributed.run", "--nproc-per-node", "2", "-m", "scripts.train")
CONTENDERS = {  # name -> the module that Python runs with its first arguments, and CPU threads
    "ours": (TORCHRUN, 1),
    "one process, 2 threads": (("scripts.train",), 2),
    "one process, 1 thread": (("scripts.train",), 1),
}


def two_processes(effort: Effort) -> Measurement:
    """Measure two processes of one thread against one process of two and of one thread.

    The seconds are those of the training (timing.json), without the start of Python.
    """
    steps = effort.scaled(STEPS, 2)
    rates: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as root:
        options = _options(root, steps)
        run_verb("collect", options)
        for _ in range(effort.repeats):
            for name, (words, threads) in CONTENDERS.items():
                run_module([*words, *options, "--threads", str(threads), "--fresh", "true"])
                timing = json.loads((Path(root) / "logs/processes/timing.json").read_text())
                rates[name].append(steps * BATCH * int(WIDE[1]) / timing["train_s"])
    name = f"2 processes, {BATCH} x {WIDE[1]}"
    result = Measurement("processes", name, "transitions", median(rates["ours"]), rates)
    result.peer_name = "one process, 2 threads"
    result.peer = median(rates[result.peer_name])
    alone = median(rates["one process, 1 thread"])
    result.detail["ratio to one process of 1 thread"] = round(result.ours / alone, 2)
    return result


def _options(root: str, steps: int) -> list[str]:
    """Return settings of a training of `steps` train steps on short histories below `root`."""
    settings = {
        "root": root,
        "name": "processes",
        "device": "cpu",
        "source.algorithm": "noise_distillation",
        "source.env_steps": 20_000,
        "data.history_stride": 1,
        "training.batch_size": BATCH,
        "training.precision": "float32",
        "training.steps": steps,
        "training.warmup_steps": 0,
        "training.eval_episodes": 1,
        "split.num_train_tasks": 2,
        "split.num_held_out": 1,
    }
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return [*words, *WIDE]


BENCHMARKS = [two_processes]
