"""Does memory grow with the number of images?

Command:  python benchmarks/memory.py                   (about 30 minutes on 2 cores, 8 GB of disk)
Expected: the peak of training with 80,000 images within 10 % of that with 8,000, and that of `predict --output` with
          20,000 images within 10 % of that with 1,000; at most 1,500 MB to decode images of up to 99 megapixels in
          JPEG, PNG, TIFF and WebP, with 16 threads, and to classify them.

Each run is a process of its own. A training reads the tree, decodes every image into the cache, builds the network,
trains 20 steps and draws every batch of the epoch. `predict` crops and classifies with the model that comes with
whichcar. The images are 480 synthetic cars, linked under as many names as are needed.
"""

import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from _large import peak, print_peaks

TRAINED, PREDICTED = (8_000, 80_000), (1_000, 20_000)
DECODING = """
import sys
from pathlib import Path
from whichcar.data.decoded_cache import decode_all
decode_all(sorted((Path(sys.argv[1]) / "images").iterdir()), (224, 224), Path(sys.argv[1]) / "cache", workers=16)
"""


def one_run(folder: str) -> None:
    from whichcar.config.experiment import Experiment
    from whichcar.training.hardware import prepare
    from whichcar.training.setup import build_models, load_data, load_tree, make_batches
    from whichcar.training.sizes import sizes_of

    settings = {
        "seed": 1,
        "data": {"directory": folder, "image_size": [96, 96], "batch_size": 32},
        "model": {"weights": None},
    }
    experiment = Experiment.model_validate(settings)
    sizes = sizes_of(experiment.data, experiment.recipe, experiment.fit.epochs)
    tree = load_tree(experiment.data, None, experiment.seed)
    loaded = load_data(tree, sizes, experiment.data.held_out_share)
    models = build_models(experiment, prepare(), tree.class_names)
    for number, (images, labels) in enumerate(
        make_batches(loaded, experiment.data, experiment.recipe, experiment.seed).epoch(0)
    ):
        if number < 20:
            models.train_on_batch(images, labels, (96, 96), 0.01)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def linked(originals: list[Path], folder: Path, count: int) -> Path:
    for number in range(count):
        target = folder / f"class {number % 12}" / f"{number:06d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], target)
    return folder


def predict(images: Path, output: str) -> list[str]:
    return ["-m", "whichcar", "predict", str(images), "--output", f"{output}.csv"]


def print_counts(work: str, peaks: Mapping[int, float]) -> None:
    print(f"\nPeak memory of {work}\n\n| images | peak, MB | times the first |\n|---:|---:|---:|")
    for count, megabytes in peaks.items():
        print(f"| {count} | {megabytes:.0f} | {megabytes / next(iter(peaks.values())):.2f} |", flush=True)


def main() -> None:
    if len(sys.argv) > 1:
        one_run(sys.argv[1])
        return
    from whichcar.synthetic.draw import draw

    with tempfile.TemporaryDirectory() as scratch:
        drawn = Path(scratch) / "drawn"
        draw(drawn)
        originals = sorted((drawn / "car_ims").iterdir())
        trained, predicted = {}, {}
        for count in TRAINED:
            tree = Path(scratch) / str(count)
            linked(originals, tree / "train", count)
            environment = os.environ | {"WHICHCAR_CACHE": f"{scratch}/cache", "WHICHCAR_QUIET": "1"}
            command = [sys.executable, __file__, str(tree)]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            trained[count] = int(done.stdout.split()[-1]) / 1e6
        print_counts("training", trained)
        for count in PREDICTED:
            images = linked(originals, Path(scratch) / f"predict {count}", count)
            predicted[count] = peak([sys.executable, *predict(images, str(images))])
        print_counts("predict", predicted)
        commands = {
            "decoding for training": lambda folder, _: ["-c", DECODING, str(folder)],
            "predict": lambda folder, name: predict(folder / "images", name),
        }
        print_peaks(Path(scratch) / "large", commands)


if __name__ == "__main__":
    main()
