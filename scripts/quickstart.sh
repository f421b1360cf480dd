#!/usr/bin/env bash
# Installs the packages and makes the run of configs/quickstart.yaml with its report: two to three minutes on
# two cores. Run it again to resume. Takes the options of scripts.run, e.g. --training.steps 500
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE
bash scripts/setup.sh

.venv/bin/python -m scripts.run --config_path configs/quickstart.yaml "$@"
