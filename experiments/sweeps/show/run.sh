#!/usr/bin/env bash
# Runs grid.yml, and pruned.yml and from_base.yml with five seeds each, and writes the table of all into experiments/README.md.
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
for run in pruned:{1..5} from_base:{6..10}; do
  name=${run%:*} seed=${run#*:}
  sed "1i # Made by run.sh.
s/seed: 1}/seed: $seed}/" $show/$name.yml > $show/${name}_$seed.yml
  $whichcar sweep $show/${name}_$seed.yml "$@"
  searches+=("$show/${name}_$seed")
done
$whichcar compare --write experiments/README.md --block sweeps "${searches[@]}"
