#!/usr/bin/env bash
# Builds the documentation into logs/docs: open its index.html in a browser, no server is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
.venv/bin/python -m pip install --quiet -c scripts/constraints.txt -e ".[docs]"
.venv/bin/python -m scripts.docs
