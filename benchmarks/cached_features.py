"""What does a head on a frozen backbone save when the backbone runs once for all epochs?

Command:  python benchmarks/cached_features.py          (three minutes)
Expected: epochs a hundred times as fast, the first included many times, and the same numbers.

The same training (drawn cars, 96 pixels, ResNet-50 with all stages frozen, 8 epochs) is run with and without
`recipe.cached_features`, in turns; features are computed again in each round.
"""

import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 3
BASE = """
seed: 1
data: {{directory: {folder}/v1, image_size: [96, 96], batch_size: 32}}
model: {{weights: {folder}/backbone.weights.h5}}
fit: {{epochs: 8, callbacks: {{model_checkpoint: {{save_best_only: true, keep: 1}}}}}}
recipe: {{freeze: 5}}
"""


def train(config: Path, *options: str) -> tuple[float, float, str]:
    """Train in a process of its own; returns its seconds, those of an epoch after the first, and the last loss."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "whichcar", "train", str(config), *options]
    subprocess.run(command, check=True, capture_output=True)
    whole = time.perf_counter() - start
    with (config.with_suffix("") / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    seconds = [float(row["seconds"]) for row in rows]
    return whole, (seconds[-1] - seconds[0]) / (len(rows) - 1), rows[-1]["loss"]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["WHICHCAR_QUIET"] = "1"
        from whichcar.data.split.split import split
        from whichcar.synthetic.draw import draw
        from whichcar.training.hardware import prepare

        prepare()
        import keras

        draw(folder / "raw", classes=4, per_class=150, size=(96, 128))
        split(folder / "raw", folder / "raw" / "car_dataset_labels.csv", folder / "v1")
        keras.utils.set_random_seed(1)
        backbone = keras.applications.ResNet50(include_top=False, weights=None, pooling="avg")
        backbone.save_weights(folder / "backbone.weights.h5")
        found: dict[bool, list[tuple[float, float, str]]] = {False: [], True: []}
        for number in range(ROUNDS):
            for cached in (False, True):
                os.environ["WHICHCAR_CACHE"] = str(folder / f"cache_{number}_{cached}")
                config = folder / f"run_{number}_{cached}.yml"
                config.write_text(BASE.format(folder=folder))
                found[cached].append(train(config, "--set", f"recipe.cached_features={str(cached).lower()}"))
        whole, epoch = ([statistics.median(run[part] for run in found[cached]) for cached in found] for part in (0, 1))
        print("\nA head on a frozen backbone, 8 epochs\n")
        print("| | seconds an epoch | times | seconds in all | times | last loss |\n|---|---:|---:|---:|---:|---:|")
        for place, what in enumerate(("the backbone in every step", "`recipe.cached_features`")):
            ratios = epoch[0] / epoch[place], whole[0] / whole[place]
            numbers = f"{epoch[place]:.2f} | {ratios[0]:.1f} | {whole[place]:.1f} | {ratios[1]:.1f}"
            print(f"| {what} | {numbers} | {found[bool(place)][0][2]} |")


if __name__ == "__main__":
    main()
