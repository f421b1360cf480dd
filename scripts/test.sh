#!/usr/bin/env bash
# Runs the checks before every commit: style, then the tests that are not marked slow or faults.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python -m pytest -q -m "not slow and not faults" -n auto --dist loadfile "$@"
