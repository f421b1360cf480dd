"""A leaderboard of one world and two methods, of which a run takes a second."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import yaml
from processes import ONE_THREAD, ROOT

from ad.sweeps.load import load_sweep
from ad.sweeps.plan import PlannedRun, Sweep
from ad.sweeps.records import read_records
from ad.sweeps.run import new_measure, take_shard

EXPERIMENT = {
    "device": "cpu",
    "threads": 1,
    "env": {"kwargs": {"size": 3}, "episode_length": 5},
    "split": {"num_train_tasks": 5},
    "source": {"algorithm": "noise_distillation", "env_steps": 800, "num_envs": 4},
    "data": {"history_stride": 4, "context_length": 16},
    "model": {"width": 16, "layers": 1, "heads": 2, "feed_forward": 32},
    "training": {
        "steps": 20,
        "batch_size": 8,
        "warmup_steps": 5,
        "eval_every": 20,
        "eval_episodes": 1,
        "checkpoint_every": 5,
        "log_every": 5,
    },
    "evaluation": {"episodes": 4, "eval_seeds": 1},
}
CLONE = {"method.name": "behavior_cloning", "model.reward": "none"}


class SmallBoard:
    """The files of the board in `folder`: its plan with records beside it, and runs in `runs`."""

    def __init__(self, folder: Path, seeds: Sequence[int] = (0, 1), **training: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.plan, self.records = folder / "leaderboard.yaml", folder / "leaderboard.jsonl"
        self.root, self.page_file = folder / "runs", folder / "page.md"
        experiment = EXPERIMENT | {"training": EXPERIMENT["training"] | training}
        (folder / "room.yaml").write_text(yaml.safe_dump(experiment))
        plan = {
            "page": str(self.page_file),
            "groups": {"room": {"experiment": str(folder / "room.yaml")}},
            "rows": {"distillation": {}, "clone": {"settings": CLONE}},
            "baseline": "distillation",
            "seeds": [*seeds],
        }
        self.plan.write_text(yaml.safe_dump(plan, sort_keys=False))

    @property
    def words(self) -> list[str]:
        """The options of scripts.leaderboard that choose these files."""
        return ["--file", str(self.plan), "--root", str(self.root)]

    @property
    def sweep(self) -> Sweep:
        """The plan."""
        return load_sweep(self.plan)

    @property
    def runs(self) -> list[PlannedRun]:
        """The runs of the board: two for each seed."""
        return self.sweep.planned_runs()

    def shard_of(self, name: str) -> str:
        """Return which shard of two has the run called `name`."""
        first = {run.config.name for run in take_shard(new_measure(self.sweep), self.runs, 1, 2)}
        return "1/2" if name in first else "2/2"

    def scores(self) -> dict[str, dict]:
        """Return the records by key without the seconds that they took."""
        records = read_records(self.records)
        assert len(self.records.read_text().splitlines()) == len(records)
        return {key: asdict(replace(record, seconds={})) for key, record in records.items()}

    def page(self) -> str:
        """Return the page of the board as Markdown, without times and the place of its plan."""
        text = self.page_file.read_text().replace(str(self.plan.parent), "")
        return re.sub(r"took [0-9.]+ hours", "", text)


def start_board(board: SmallBoard, *words: str) -> subprocess.Popen:
    """Start python -m scripts.leaderboard on `board`, without its output."""
    command = [sys.executable, "-m", "scripts.leaderboard", *board.words, *words]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | ONE_THREAD, **quiet)
