#!/usr/bin/env bash
# Makes every run of the README's tables, then updates the tables: about half an hour on two cores.
# Run it again to resume.
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh

run() { .venv/bin/python -m scripts.run --config_path "configs/$1.yaml" --name "$2" "${@:3}"; }
table() { .venv/bin/python -m scripts.table --update README.md --mark "$@"; }

for split in 0 1 2; do
    .venv/bin/python -m scripts.seeds --seeds 0,1,2 --config_path configs/quickstart.yaml \
        --name "quickstart-split-$split" --split.split_seed "$split"
done
for split in 0 1 2; do
    for seed in 0 1 2; do # the source seed changes too
        run posterior_sampling "posterior-split-$split-seed-$seed" --split.split_seed "$split" \
            --source.source_seed "$seed" --training.train_seed "$seed"
    done
done
run dense dense-split-0
run noise_distillation noise-split-0
run expert_distillation expert-split-0
bash scripts/seed.sh
run unseen_sizes unseen_sizes --split.split_seed 100 # the split on which the encoder was chosen
cp logs/quickstart-split-0-seed-0/curve.png logs/example.png
table results quickstart-split-{0,1,2}-seed-{0,1,2} noise-split-0 expert-split-0 dense-split-0 \
    $(cd logs && ls -d seed_darkroom*)
table searching posterior-split-{0,1,2}-seed-{0,1,2}
table worlds unseen_sizes
