#!/usr/bin/env bash
# Runs grid.yml, and pruned.yml with five seeds, and writes the table of all into experiments/README.md.
# Needs data/small_v2 (whichcar split and crop).
# Use: experiments/sweeps/show/run.sh [more settings, such as --set model.weights=data/resnet50_notop.h5]
set -euo pipefail
cd "$(dirname "$0")/../../.."
whichcar=${WHICHCAR:-whichcar}
show=experiments/sweeps/show
searches=("$show/grid")
# Once by itself, so that the features that all of them share are there and are part of nobody's cost.
mkdir -p $show/base
cp $show/base.yml $show/base/config.yml
$whichcar train $show/base/config.yml --resume "$@"
$whichcar sweep $show/grid.yml "$@"
for seed in 1 2 3 4 5; do
  sed "1i # Made by run.sh.
s/seed: 1}/seed: $seed}/" $show/pruned.yml > $show/pruned_$seed.yml
  $whichcar sweep $show/pruned_$seed.yml "$@"
  searches+=("$show/pruned_$seed")
done
$whichcar compare --write experiments/README.md --block sweeps "${searches[@]}"
