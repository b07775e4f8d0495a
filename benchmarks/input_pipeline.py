"""Does reading real images slow training down?

Command:  python benchmarks/input_pipeline.py           (about 4 minutes on 2 cores)
Expected: at least 0.97 times the speed of one synthetic batch repeated.

Both sides train the same network in the same process, in turns; the real one draws shuffled batches from the decoded
cache, with mixup and CutMix. On a GPU, BATCH=128 STEPS=40 fill it. WHICHCAR_DATA names a folder with car_ims/ and
car_dataset_labels.csv; else drawn cars.
"""

import itertools
import os
import statistics
import tempfile
import time
from pathlib import Path

from _measure import print_rates

STEPS, ROUNDS = int(os.environ.get("STEPS", "4")), 6
BATCH = int(os.environ.get("BATCH", "32"))
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
    from whichcar.training.setup import build_models, load_data, load_tree, make_batches
    from whichcar.training.sizes import sizes_of

    with tempfile.TemporaryDirectory() as scratch:
        data = Path(os.environ.get("WHICHCAR_DATA") or scratch)
        if data == Path(scratch):
            draw(data)
        os.environ["WHICHCAR_CACHE"] = f"{scratch}/cache"
        split(data, data / "car_dataset_labels.csv", Path(scratch) / "v1")
        for size in (128, 224):
            section = {
                "data": {
                    "directory": f"{scratch}/v1",
                    "image_size": [size, size],
                    "cache_size": [224, 224],
                    "batch_size": BATCH,
                }
            }
            experiment = Experiment.model_validate(SETTINGS | section)
            sizes = sizes_of(experiment.data, experiment.recipe, experiment.fit.epochs)
            tree = load_tree(experiment.data, None, experiment.seed)
            loaded = load_data(tree, sizes, experiment.data.held_out_share)
            models = build_models(experiment, prepare(), tree.class_names)
            batches = make_batches(loaded, experiment.data, experiment.recipe, experiment.seed)
            real = itertools.chain.from_iterable(batches.epoch(number) for number in itertools.count())
            same = itertools.repeat(next(real))
            sides = {"one batch repeated": same, "real images": real}
            rates: dict[str, list[float]] = {name: [] for name in sides}
            for _ in range(ROUNDS + 1):
                for name, source in sides.items():
                    float(models.train_on_batch(*next(source), (size, size), 0.01)[0])  # nothing is left to wait for
                    start = time.perf_counter()
                    for images, labels in itertools.islice(source, STEPS):
                        loss, _ = models.train_on_batch(images, labels, (size, size), 0.01)
                    float(loss)
                    rates[name].append(BATCH * STEPS / (time.perf_counter() - start))
            print_rates(
                f"Training at {size} pixels, batch {BATCH}",
                {name: statistics.median(rate[1:]) for name, rate in rates.items()},  # the first round compiles
                next(iter(sides)),
            )


if __name__ == "__main__":
    main()
