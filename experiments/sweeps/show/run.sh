#!/usr/bin/env bash
# Runs grid.yml and pruned.yml, the latter with three seeds, and writes the table of all into experiments/README.md.
# Needs data/small_v2 (whichcar crop); takes its first twelve classes as data/show.
# Use: experiments/sweeps/show/run.sh [more settings, such as --set model.weights=data/resnet50_notop.h5]
set -euo pipefail
cd "$(dirname "$0")/../../.."
whichcar=${WHICHCAR:-whichcar}
if [ ! -d data/show ]; then
  mkdir -p data/show.new/train
  find -L data/small_v2/train -mindepth 1 -maxdepth 1 -type d | sort | head -12 | while read -r class; do
    cp -r "$class" data/show.new/train/
  done
  mv data/show.new data/show
fi
for name in pruned grid pruned_2 pruned_3 later; do
  "$whichcar" sweep experiments/sweeps/show/$name.yml "$@"
done
"$whichcar" compare --write experiments/README.md --block sweeps experiments/sweeps/show/grid \
  experiments/sweeps/show/pruned experiments/sweeps/show/pruned_2 experiments/sweeps/show/pruned_3 experiments/sweeps/show/later
