"""The cost of making the runs of a sweep in two shards or in a job of each launcher.

The peer is one plain process.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import yaml

from ad.registry import LAUNCHERS
from scripts.benchmark import peers
from scripts.benchmark.end_to_end import run_verb
from scripts.benchmark.measure import Effort, Measurement, alternate, median, named

STEPS = 2000  # train steps of a run
PLAN = {
    "experiment": "configs/smoke.yaml",
    "seeds": [0, 1],
    "rows": {
        "distillation": {},
        "clone": {"settings": {"method.name": "behavior_cloning", "model.reward": "none"}},
    },
}
RUNS = 4


def launching(launcher: str, effort: Effort) -> Measurement | None:
    """Measure a sweep in one job of `launcher` against the same sweep in one process.

    None without the package of the launcher.
    """
    package = LAUNCHERS.load(launcher).package
    if package and not peers.installed(package, package):
        return None
    # On this machine alone, whatever cluster there is.
    settings = "{jobs: 1, cluster: local}" if launcher == "submitit" else "{jobs: 1}"
    words = ["--launcher", launcher, "--launcher_settings", settings]
    return against_one_process(f"--launcher {launcher}", [words], effort)


def sharing(effort: Effort) -> Measurement:
    """Measure a sweep that two processes share against the same sweep in one process."""
    return against_one_process("two shards", [["--shard", f"{n}/2"] for n in (1, 2)], effort)


def against_one_process(title: str, processes: list[list[str]], effort: Effort) -> Measurement:
    """Measure a sweep in processes with these options against the same sweep in one process."""
    steps = effort.scaled(STEPS, 20)
    contenders = {
        "ours": lambda: make_board(steps, processes),
        "one process": lambda: make_board(steps, [[]]),
    }
    rates = alternate(contenders, effort.repeats)
    result = Measurement("engines", title, "runs", median(rates["ours"]), rates)
    result.peer_name, result.peer = "one process", median(rates["one process"])
    result.detail["wall time, s"] = round(RUNS / result.ours, 1)
    result.detail["cost over one process, %"] = round(100 * (result.peer / result.ours - 1), 1)
    return result


def make_board(steps: int, processes: list[list[str]]) -> float:
    """Make the runs of a small board of `steps` train steps each; return their number.

    They are made by processes at the same time, one for each list of further options.
    """
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.yaml"
        settings = {"training.steps": steps, "device": "cpu"}
        plan.write_text(yaml.safe_dump(PLAN | {"settings": settings}), encoding="utf-8")
        options = ["--file", str(plan), "--root", f"{folder}/runs"]
        with ThreadPoolExecutor(len(processes)) as pool:
            list(pool.map(lambda words: run_verb("sweep", [*options, *words]), processes))
    return RUNS


BENCHMARKS = [sharing, *(named(launching, name) for name in LAUNCHERS)]
