#!/usr/bin/env bash
# Trains base.yml with the given seeds, and its variants, most with the first seed alone, and evaluates them:
# experiments/ablation/VARIANT_SEED/. What is evaluated already is left as it is.
# data/ablation: every fourth class of data/car_ims_v2, from its training images alone; every fourth of them is for test.
# Use: experiments/ablation/run.sh "1 2" [more settings, such as --set model.weights=data/resnet50_top.h5]
set -euo pipefail
cd "$(dirname "$0")/../.."
whichcar=${WHICHCAR:-whichcar}
seeds=${1:-1 2}
shift || true
if [ ! -d data/ablation ]; then
  ls data/car_ims_v2/train | awk 'NR % 4 == 0' | while read -r class; do
    mkdir -p "data/ablation/train/$class" "data/ablation/test/$class"
    n=0
    for image in "$(realpath "data/car_ims_v2/train/$class")"/*; do
      n=$((n + 1))
      if [ $((n % 4)) -eq 0 ]; then part=test; else part=train; fi
      cp "$image" "data/ablation/$part/$class/"
    done
  done
fi
variant() { # NAME SETTING...
  folder=experiments/ablation/$1_$seed
  mkdir -p "$folder"
  cp experiments/ablation/base.yml "$folder/config.yml"
  if [ "$1" = dense ]; then sed -i '/cosine_scale/d' "$folder/config.yml"; fi
  shift
  settings=()
  for setting in "$@"; do settings+=(--set "$setting"); done
  if [ -f "$folder/result.json" ]; then return; fi
  $whichcar train "$folder/config.yml" --set seed="$seed" "${settings[@]}" "${more[@]}" --resume
  $whichcar evaluate "$folder"
}
more=("$@")
for seed in $seeds; do
  variant base
  variant precise_batch_norm recipe.precise_batch_norm=true
done
for seed in ${seeds%% *}; do
  variant no_co_tuning recipe.co_tuning=0
  variant dense recipe.head_rate=1.2 recipe.co_tuning=0
  variant smoothing_0.2 recipe.label_smoothing=0.2
  variant all_stages recipe.freeze=0
  variant decay_0.0005 compile.optimizer.sgd.weight_decay=0.0005
  variant decay_0.01 compile.optimizer.sgd.weight_decay=0.01
done
