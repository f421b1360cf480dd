#!/usr/bin/env bash
# Creates .venv with the packages of scripts/requirements.txt, unless it is up to date: every file but those of torch
# must have a hash that is listed there. --no-compile: modules are compiled when first imported.
# PYTHONDONTWRITEBYTECODE is unset in this script, so that its last step keeps bytecode. PYTHON names another
# interpreter than python3 (3.11 to 3.13).
set -euo pipefail
cd "$(dirname "$0")/.."
unset PYTHONDONTWRITEBYTECODE

stamp=$(sha256sum pyproject.toml scripts/constraints.txt scripts/requirements.txt | sha256sum)
[ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ] && exit 0

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "Python 3.11 or newer is needed; name one: PYTHON=/path/to/python bash $0" >&2
    exit 3
fi
echo "Installing into .venv (once, two to three minutes) ..."
"$python" -m venv --clear .venv
.venv/bin/python -m pip install --quiet --no-compile --no-deps --require-hashes -r scripts/requirements.txt
.venv/bin/python -m pip install --quiet --no-compile -c scripts/constraints.txt torch  # the build for this machine
.venv/bin/python -m pip install --quiet --no-deps --no-build-isolation -e .
# Compile the numba loops of the A2C agents once; __pycache__ keeps them.
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
.venv/bin/python -m scripts.collect --config_path configs/smoke.yaml --root "$empty" > /dev/null
echo "$stamp" > .venv/stamp
