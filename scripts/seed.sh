#!/usr/bin/env bash
# Runs configs/seed_darkroom.yaml, the experiment that this project continues. Collects all its histories, and
# trains for all of its 22,000 train steps on a GPU, on a CPU for 100. The first argument sets another number
# of train steps. Then prints how long all steps would take. Run it again to resume.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh

full=22000
gpu=$(.venv/bin/python -c 'import torch; print(torch.cuda.is_available())')
steps=${1:-$([[ $gpu == True ]] && echo "$full" || echo 100)}
name=seed_darkroom
((steps == full)) || name=seed_darkroom-$steps-of-$full-steps
.venv/bin/python -m scripts.run --config_path configs/seed_darkroom.yaml --name "$name" \
    --training.steps "$steps" "${@:2}"

.venv/bin/python - "$name" "$steps" "$full" <<'END'
import json
import sys
from pathlib import Path

name, (steps, full) = sys.argv[1], map(int, sys.argv[2:])
lines = [json.loads(line) for line in Path("logs", name, "metrics.jsonl").read_text().splitlines()]
speed = max(line.get("train/transitions_per_second", 0) for line in lines)
hours = full * 32 * 256 / speed / 3600  # training.batch_size 32, data.context_length 256
print(f"{name}: {speed:,.0f} transitions/s in training; {full:,} steps take {hours:.1f} h of it")
END
