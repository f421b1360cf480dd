#!/usr/bin/env bash
# Runs configs/seed_darkroom.yaml, the experiment that this project continues: collects all its histories and trains
# for all of its 22,264 train steps on a GPU. On a CPU it takes the first 100 of them, or as many as the first argument
# says, and prints how long all would take: a model after 100 steps has not learned yet. Run it again to resume.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh

full=22264
gpu=$(.venv/bin/python -c 'import torch; print(torch.cuda.is_available())')
steps=${1:-$([[ $gpu == True ]] && echo "$full" || echo 100)}
options=(--config_path configs/seed_darkroom.yaml "${@:2}")
((steps == full)) && exec .venv/bin/python -m scripts.run "${options[@]}"

name=seed_darkroom-$steps-of-$full-steps
options+=(--name "$name" --training.steps "$steps" --training.schedule_steps "$full")
.venv/bin/python -m scripts.collect "${options[@]}"
.venv/bin/python -m scripts.train "${options[@]}"

.venv/bin/python - "$name" "$full" <<'END'
import json
import sys
from pathlib import Path

name, full = sys.argv[1], int(sys.argv[2])
lines = [json.loads(line) for line in Path("logs", name, "metrics.jsonl").read_text().splitlines()]
speed = max(line.get("train/transitions_per_second", 0) for line in lines)
hours = full * 32 * 256 / speed / 3600  # training.batch_size 32, data.context_length 256
print(f"{name}: {speed:,.0f} transitions/s in training; {full:,} steps take {hours:.1f} h of it")
END
