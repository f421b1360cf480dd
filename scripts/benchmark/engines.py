"""The cost of making the runs of a sweep in a job of each launcher, against one plain process."""

import tempfile
from pathlib import Path

import yaml

from ad.registry import LAUNCHERS
from scripts.benchmark import peers
from scripts.benchmark.end_to_end import run_verb
from scripts.benchmark.measure import Effort, Measurement, alternate, median, named

STEPS = 2000  # train steps of a run
PLAN = {
    "worlds": {"room": {"experiment": "configs/smoke.yaml"}},
    "methods": {
        "distillation": {},
        "clone": {"settings": {"method.name": "behavior_cloning", "model.reward": "none"}},
    },
}
BOARD = {"worlds": ["room"], "methods": list(PLAN["methods"]), "seeds": [0, 1]}
RUNS = 4


def launching(launcher: str, effort: Effort) -> Measurement | None:
    """Measure a sweep in one job of `launcher` against the same sweep in one process.

    None without the package of the launcher.
    """
    package = LAUNCHERS.load(launcher).package
    if package and not peers.installed(package, package):
        return None
    steps = effort.scaled(STEPS, 20)
    # On this machine alone, whatever cluster there is.
    settings = "{jobs: 1, cluster: local}" if launcher == "submitit" else "{jobs: 1}"
    words = ["--launcher", launcher, "--launcher_settings", settings]
    contenders = {
        "ours": lambda: make_board(steps, *words),
        "one process": lambda: make_board(steps),
    }
    rates = alternate(contenders, effort.repeats)
    result = Measurement("engines", f"--launcher {launcher}", "runs", median(rates["ours"]), rates)
    result.peer_name, result.peer = "one process", median(rates["one process"])
    result.detail["wall time, s"] = round(RUNS / result.ours, 1)
    result.detail["cost over one process, %"] = round(100 * (result.peer / result.ours - 1), 1)
    return result


def make_board(steps: int, *words: str) -> float:
    """Make the runs of a small board of `steps` train steps each; return their number."""
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "plan.yaml"
        board = BOARD | {"settings": {"training.steps": steps, "device": "cpu"}}
        plan.write_text(yaml.safe_dump(PLAN | {"boards": {"core": board}}), encoding="utf-8")
        options = ["--file", str(plan), "--records", f"{folder}/records/leaderboard.csv"]
        run_verb("leaderboard", [*options, "--root", f"{folder}/runs", *words])
    return RUNS


BENCHMARKS = [named(launching, name) for name in LAUNCHERS]
