"""Collecting and training hold few files open, however many tasks there are."""

import subprocess
import sys

from processes import ROOT

TASKS = 5  # of seven arrays each
CODE = """
import os, resource, sys
from ad.runtime.arrays import OTHER_OPEN_FILES
from ad.collection.collect import collect
from ad.config.parser import load
from ad.runtime.run import Run
from ad.training.loop import train
from ad.training.trainer import Trainer
from ad.training.validation import validate

words = ["--root", sys.argv[1], "--device", "cpu", "--threads", "1"]
words += ["--source.env_steps", "800", "--source.algorithm", "noise_distillation"]
run = Run.open(load(["--config_path", "configs/smoke.yaml", *words]))
limit = OTHER_OPEN_FILES + 15
here = len(os.listdir("/dev/fd"))
spare = [os.open(os.devnull, os.O_RDONLY) for _ in range(OTHER_OPEN_FILES - here - 8)]
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
print(collect(run), "collected")
train(Trainer(run), validate)
"""


def test_more_histories_than_files_may_be_open_are_collected_and_trained_on(tmp_path):
    command = [sys.executable, "-c", CODE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{TASKS} collected\n"
    assert len(list(tmp_path.glob("histories/*/task_*"))) == TASKS
