"""The start of a training: time and memory to its first train step, by the size of the dataset."""

import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ad.cli import run_and_exit
from ad.config.parser import load
from ad.data.load import VERIFIED
from ad.runtime.run import Run
from ad.training.trainer import Trainer
from scripts.benchmark.end_to_end import run_module, run_verb
from scripts.benchmark.measure import Effort, Measurement, median

HISTORIES, FEWER = 1000, 250
ENV_STEPS = 20_000  # of a history
SETTINGS = {
    "env.id": "BernoulliBandit-5arms-10pulls-v1",
    "env.episode_length": 10,
    "source.algorithm": "ucb",
    "source.env_steps": ENV_STEPS,
    "data.history_stride": 1,
    "model.encoder": "table",
    "device": "cpu",
}


def first_step(effort: Effort) -> Measurement:
    """Measure starts with histories that were verified before against starts that verify them.

    A start is a whole process up to its first train step. One with fewer histories tells how its
    memory grows, and one with `data.in_memory: false` what it takes without the transitions.
    """
    count, fewer = (effort.scaled(number, 4) for number in (HISTORIES, FEWER))
    names = "verifies all", "ours"
    rates, busy = ({name: [] for name in names} for _ in range(2))  # of a CPU: seconds
    with tempfile.TemporaryDirectory() as root:
        run_verb("collect", _options(count, root))
        for _ in range(min(effort.repeats, 2)):
            for record in Path(root).glob(f"histories/*/{VERIFIED}"):
                record.unlink()
            for name in names:
                before = _cpu_seconds()
                seconds, peak = _start(count, root)
                rates[name].append(1 / seconds)
                busy[name].append(_cpu_seconds() - before)
        grown = peak - _start(fewer, root)[1]
        in_files = _start(count, root, "--data.in_memory", "false")[1]
        stored = sum(path.stat().st_size for path in Path(root).glob("histories/*/*/*"))
    name = f"first train step, {count:,} histories of {ENV_STEPS:,} steps"
    result = Measurement("start", name, "starts", median(rates["ours"]), rates, peak_memory=peak)
    result.peer_name, result.peer = "verifies all", median(rates["verifies all"])
    result.detail["seconds"] = {
        name: round(1 / median(values), 1) for name, values in rates.items()
    }
    result.detail["CPU seconds"] = {name: round(median(v), 1) for name, v in busy.items()}
    files = stored * (count - fewer) / count
    result.detail["dataset, MB"] = round(stored / 1e6)
    result.detail["further resident bytes for a stored byte"] = round(grown / files, 2)
    result.detail["peak with data.in_memory: false, MB"] = round(in_files / 1e6)
    return result


def take_first_step(words: Sequence[str]) -> None:
    """Take the first train step of the experiment that the command line `words` describes."""
    Trainer(Run.open(load(words))).train_step()


def _start(count: int, root: str, *words: str) -> tuple[float, int]:
    """Return the seconds of a start with `count` histories, and its peak of resident bytes.

    `words` are further options of its command line.
    """
    return run_module(["scripts.benchmark.start", *_options(count, root), *words])


def _cpu_seconds() -> float:
    """Return the CPU time of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _options(count: int, root: str) -> list[str]:
    settings = SETTINGS | {"split.num_train_tasks": count, "name": f"start-{count}", "root": root}
    return [word for path, value in settings.items() for word in (f"--{path}", str(value))]


BENCHMARKS = [first_step]

if __name__ == "__main__":  # a start that `first_step` measures
    run_and_exit(take_first_step)
