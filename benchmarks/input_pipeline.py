"""Does reading real images slow training down?

Command:  python benchmarks/input_pipeline.py           (about 4 minutes on 2 cores)
Expected: at least 0.97 times the speed of one synthetic batch repeated.

Both sides train the same network in the same process, in turns; the real one draws shuffled batches from the decoded
cache, with mixup and CutMix. WHICHCAR_DATA names a folder with car_ims/ and car_dataset_labels.csv; else drawn cars.
"""

import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

from _measure import print_rates

STEPS, ROUNDS = 4, 6
SETTINGS = {
    "seed": 1,
    "model": {"weights": None, "data_aug_layer": {"random_flip": {"mode": "horizontal"}}},
    "compile": {"optimizer": {"sgd": {"learning_rate": 0.01, "momentum": 0.9}}},
    "recipe": {"mixup": 0.2, "cutmix": 1.0, "random_resized_crop": {"side": [0.8, 1.0]}},
}


def main() -> None:
    from whichcar.config.experiment import Experiment
    from whichcar.data.split.split import split
    from whichcar.synthetic.draw import draw
    from whichcar.training.hardware import prepare
    from whichcar.training.setup import build_models, load_data, make_batches
    from whichcar.training.sizes import sizes_of

    with tempfile.TemporaryDirectory() as scratch:
        data = Path(os.environ.get("WHICHCAR_DATA") or scratch)
        if data == Path(scratch):
            draw(data)
        os.environ["WHICHCAR_CACHE"] = f"{scratch}/cache"
        split(data, data / "car_dataset_labels.csv", Path(scratch) / "v1")
        for size in (128, 224):
            section = {"data": {"directory": f"{scratch}/v1", "image_size": [size, size], "cache_size": [224, 224]}}
            experiment = Experiment.model_validate(SETTINGS | section)
            sizes = sizes_of(experiment.data, experiment.recipe, experiment.fit.epochs)
            loaded = load_data(experiment.data, sizes, None, experiment.seed)
            models = build_models(experiment, prepare(), loaded.tree.class_names)
            batches = make_batches(loaded, experiment.data, experiment.recipe, experiment.seed)
            real = itertools.chain.from_iterable(batches.epoch(number) for number in itertools.count())
            same = itertools.repeat(next(real))
            sides = {"one batch repeated": same, "real images": real}
            rates = {name: [] for name in sides}
            for turn in range(ROUNDS + 1):
                for name, source in sides.items():
                    for images, labels in itertools.islice(source, STEPS):
                        start = time.perf_counter()
                        models.train_model.train_on_batch(images, labels)
                        rates[name].append((turn, start, time.perf_counter()))
            print_rates(
                f"Training at {size} pixels, batch 32", {n: _rate(r) for n, r in rates.items()}, next(iter(sides))
            )


def _rate(steps: list[tuple[int, float, float]]) -> float:
    """Median images/s of the rounds, the waiting for batches counted in; the first round warms up."""
    rounds = [[step for step in steps if step[0] == turn] for turn in range(1, ROUNDS + 1)]
    return statistics.median(32 * (len(r) - 1) / (r[-1][2] - r[0][2]) for r in rounds)


if __name__ == "__main__":
    main()
