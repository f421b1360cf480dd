#!/usr/bin/env bash
# Runs the checks before every commit: style, then the tests that are not marked slow, faults, docs or ray. With --all
# as the first argument, installs MkDocs, mlcroissant and Ray, a large wheel, and runs their tests too.
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE  # with it, each process that a test starts compiles 1,000 modules
bash scripts/setup.sh

left_out="not slow and not faults and not docs and not ray"
if [ "${1:-}" = --all ]; then
    shift
    .venv/bin/python -m pip install --quiet -c scripts/constraints.txt -e ".[docs,ray]" mlcroissant
    left_out="not slow and not faults"
fi
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/ty check --python .venv  # also where another environment is active
# Without the limit of restarts, pytest-xdist can wait for ever after a crash of a worker.
.venv/bin/python -m pytest -q -m "$left_out" -n auto --dist loadfile --max-worker-restart 0 "$@"
