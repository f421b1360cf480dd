#!/usr/bin/env bash
# Writes scripts/requirements.txt: what scripts/setup.sh installs, in the versions of scripts/constraints.txt and with
# the hashes of all files of these versions, for every supported Python. torch is left out with what only its builds for
# GPUs need: which build is the right one depends on the machine, and each names exact versions of what it needs.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet uv==0.13.9
"$folder/bin/uv" pip compile --quiet --no-header --no-annotate --universal --python-version 3.11 --generate-hashes \
    --constraints scripts/constraints.txt --group dev \
    --extra interpret --extra minari --extra minigrid --extra parquet --extra sb3 --extra submitit --extra xland pyproject.toml |
    awk '/^[^ ]/ { kept = !/^(torch|triton|cuda-|nvidia-)/ } kept' > "$folder/requirements.txt"
{
    echo "# Written by scripts/lock.sh, which says what it is."
    cat "$folder/requirements.txt"
} > scripts/requirements.txt
