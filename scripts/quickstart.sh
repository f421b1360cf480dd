#!/usr/bin/env bash
# Installs the packages and makes the run of configs/quickstart.yaml with its report: three to four minutes on
# two cores. Run it again to resume. Takes the options of scripts.run, e.g. --training.steps 500
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh

set -- --config_path configs/quickstart.yaml "$@"
.venv/bin/python -m scripts.run "$@"

[[ " $* " == *" --help "* ]] || .venv/bin/python - "$@" <<'END'
import sys
from ad.config.parser import load

config = load(sys.argv[1:]).config
print(f"The report: {config.root}/logs/{config.name}/report.html")
END
