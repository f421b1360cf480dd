"""From nothing to knowing, and in how little memory: whole verbs in processes of their own."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ad.errors import MachineError
from scripts.benchmark.measure import Effort, Row, resident_peak

HOME = Path(__file__).parents[2]
LIMIT_S, NAUC = 60, 0.75
SPLIT_SEED = 100  # not one of the table's
LIMIT_BYTES = 2 * 10**9


def knowing(effort: Effort) -> Row | None:
    """configs/minute.yaml from an empty folder to its report: wall time of the whole command."""
    if effort.quick:
        return None
    with tempfile.TemporaryDirectory() as root:
        words = ["--config_path", "configs/minute.yaml", "--split.split_seed", str(SPLIT_SEED)]
        total, peak = run_verb("run", [*words, "--root", root])
        folder = Path(root) / "logs/minute"
        results, timing = (
            json.loads((folder / name).read_text(encoding="utf-8"))
            for name in ("results.json", "timing.json")
        )
    scores = results["splits"]["held_out"]
    name = f"from nothing to NAUC {scores['nauc']:.2f} and a report: {total:.0f} s"
    row = Row("end_to_end", name, "runs", 1 / total, {"ours": [1 / total]}, peak_memory=peak)
    row.target = f"held-out NAUC {NAUC} within {LIMIT_S} s (aim 30 s)"
    row.met = total <= LIMIT_S and scores["nauc"] >= NAUC
    row.detail["seconds"] = {k: round(v, 1) for k, v in timing.items()} | {"all": round(total, 1)}
    row.detail |= {name: scores[name] for name in ("nauc", "ci95", "success_last10")}
    return row


def seed_histories(effort: Effort) -> Row | None:
    """57 histories of 800,000 steps: collected, and trained on in a process that is measured."""
    if effort.quick:
        return None
    with tempfile.TemporaryDirectory() as root:
        words = ["--root", root, "--source.env_steps", "800000", "--source.settings.learning_rate"]
        words += ["1e-4", "--data.history_stride", "1", "--training.steps", "30"]
        words += ["--training.eval_every", "30", "--training.warmup_steps", "1"]
        collect, written = run_verb("collect", words)
        train, peak = run_verb("train", words)
    rate = 57 * 800_000 / collect
    row = Row("end_to_end", "seed histories, 57 x 800,000", "steps", rate, {"ours": [rate]})
    row.peak_memory = peak
    row.target, row.met = "trains in 2 GB resident", 0 < peak < LIMIT_BYTES
    row.detail |= {"collect, s": collect, "30 steps of training, s": train}
    row.detail["collect, peak bytes (with the files that it maps)"] = written
    return row


def run_verb(verb: str, words: list[str]) -> tuple[float, int]:
    """Wall time of `python -m scripts.<verb>`, start of Python included, and its peak in bytes."""
    command = [sys.executable, "-m", f"scripts.{verb}", *words]
    begin, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, cwd=HOME, stdout=said, stderr=said)
        while process.poll() is None:
            peak = max(peak, resident_peak(process.pid))
            time.sleep(0.1)
        seconds = time.perf_counter() - begin
        if process.returncode:
            said.seek(0)
            raise MachineError(f"{' '.join(command)} failed: {said.read().strip()}")
    return seconds, peak


ROWS = [seed_histories, knowing]
