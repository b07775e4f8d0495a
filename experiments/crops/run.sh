#!/usr/bin/env bash
# Trains whole.yml and crop.yml with the same three seeds and evaluates them: experiments/crops/{whole,crop}_SEED/.
# Needs data/small_v1 (whichcar split) and data/small_v2 (whichcar crop data/small_v1 data/small_v2).
# Use: experiments/crops/run.sh [whole|crop] [more settings, such as --set model.weights=data/resnet50_notop.h5]
set -euo pipefail
cd "$(dirname "$0")/../.."
whichcar=${WHICHCAR:-whichcar}
sides="whole crop"
case "${1:-}" in whole | crop) sides=$1; shift ;; esac
for side in $sides; do
  for seed in 1 2 3; do
    folder=experiments/crops/${side}_$seed
    mkdir -p "$folder"
    cp experiments/crops/$side.yml "$folder/config.yml"
    "$whichcar" train "$folder/config.yml" --set seed=$seed "$@" --resume
    "$whichcar" evaluate "$folder"
  done
done
