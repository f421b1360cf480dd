"""End to end: the time to a trained model, and memory with long histories, of whole processes."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ad.errors import MachineError
from scripts.benchmark.measure import Effort, Measurement, resident_peak

CHECKOUT = Path(__file__).parents[2]
SPLIT_SEED = 100  # no published table uses this split


def minute_experiment(effort: Effort) -> Measurement | None:
    """Measure the wall time of configs/minute.yaml from an empty folder to its report."""
    if effort.quick:
        return None
    with tempfile.TemporaryDirectory() as root:
        options = ["--config_path", "configs/minute.yaml", "--split.split_seed", str(SPLIT_SEED)]
        seconds, peak = run_verb("run", [*options, "--root", root])
        folder = Path(root) / "logs/minute"
        results, timing = (
            json.loads((folder / name).read_text(encoding="utf-8"))
            for name in ("results.json", "timing.json")
        )
    scores = results["splits"]["held_out"]
    name = f"from nothing to NAUC {scores['nauc']:.2f} and a report: {seconds:.0f} s"
    rate = 1 / seconds
    result = Measurement("end_to_end", name, "runs", rate, {"ours": [rate]}, peak_memory=peak)
    rounded = {verb: round(value, 1) for verb, value in timing.items()}
    result.detail["seconds"] = rounded | {"all": round(seconds, 1)}
    result.detail |= {name: scores[name] for name in ("nauc", "ci95", "success_last10")}
    return result


def seed_histories(effort: Effort) -> Measurement | None:
    """Collect 57 histories of 800,000 steps, and measure the memory of training on them."""
    if effort.quick:
        return None
    with tempfile.TemporaryDirectory() as root:
        options = ["--root", root, "--source.env_steps", "800000"]
        options += ["--source.settings.learning_rate", "1e-4", "--data.history_stride", "1"]
        options += ["--training.steps", "30", "--training.eval_every", "30"]
        options += ["--training.warmup_steps", "1"]
        collect_seconds, collect_peak = run_verb("collect", options)
        train_seconds, train_peak = run_verb("train", options)
    name, rate = "seed histories, 57 x 800,000", 57 * 800_000 / collect_seconds
    result = Measurement("end_to_end", name, "steps", rate, {"ours": [rate]})
    result.peak_memory = train_peak
    result.detail |= {"collect, s": collect_seconds, "30 training steps, s": train_seconds}
    result.detail["collect, peak bytes (with memory-mapped files)"] = collect_peak
    return result


def run_verb(verb: str, options: list[str]) -> tuple[float, int]:
    """Run `python -m scripts.<verb>` and return its seconds and its peak of resident bytes.

    The seconds include the start of Python. Raises MachineError if it fails.
    """
    command = [sys.executable, "-m", f"scripts.{verb}", *options]
    begin, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=output, stderr=output)
        while process.poll() is None:
            peak = max(peak, resident_peak(process.pid))
            time.sleep(0.1)
        seconds = time.perf_counter() - begin
        if process.returncode:
            output.seek(0)
            raise MachineError(f"{' '.join(command)} failed: {output.read().strip()}")
    return seconds, peak


BENCHMARKS = [seed_histories, minute_experiment]
