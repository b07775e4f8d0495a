"""What does a trial of a search cost beyond the same training alone?

Command:  python benchmarks/sweep.py                    (two minutes)
Expected: at most 3 seconds a trial.

The same tiny training (drawn cars, 32 pixels, one epoch) is run by `whichcar train` and as a trial of `whichcar sweep`,
in turns. The search is timed from one trial's start to the next one's, as its trials.csv tells it, and in all: the
difference is spent once, on starting and on the page of plots.
"""

import csv
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRIALS = 3
ROUNDS = 2
BASE = """
seed: 1
data: {{directory: {images}, image_size: [32, 32], batch_size: 8}}
model: {{weights: null}}
fit: {{epochs: 1}}
recipe: {{freeze: 5}}
"""
SWEEP = """
base: base.yml
space: {{model.dropout_rate: [0.0, 0.1, 0.2]}}
sampler: {{name: grid}}
budget: {{trials: {trials}}}
"""


def whichcar(*arguments: str) -> float:
    """Run the command and return its seconds."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "whichcar", *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ |= {"WHICHCAR_CACHE": str(folder / "cache"), "WHICHCAR_QUIET": "1"}
        from whichcar.data.split.split import split
        from whichcar.synthetic.draw import draw

        draw(folder / "raw", classes=4, per_class=8, size=(32, 48))
        split(folder / "raw", folder / "raw" / "car_dataset_labels.csv", folder / "v1")
        alone: list[float] = []
        trials: list[float] = []
        whole: list[float] = []
        for number in range(ROUNDS):
            here = folder / f"round_{number}"
            here.mkdir()
            (here / "base.yml").write_text(BASE.format(images=folder / "v1"))
            (here / "some.yml").write_text(SWEEP.format(trials=TRIALS))
            for single in range(TRIALS):
                config = here / f"alone_{single}.yml"
                config.write_text((here / "base.yml").read_text() + "hardware: {}\n")
                alone.append(whichcar("train", str(config)))
            whole.append(whichcar("sweep", str(here / "some.yml")) / TRIALS)
            with (here / "some" / "trials.csv").open(newline="") as file:
                rows = list(csv.DictReader(file))
            begun = [datetime.datetime.fromisoformat(row["started"]).timestamp() for row in rows]
            trials.append((max(begun) - min(begun)) / (TRIALS - 1))
        reference = statistics.mean(alone)
        print("\nA trial of a search\n\n| | seconds | more than alone | times |\n|---|---:|---:|---:|")
        for what, seconds in (
            ("`whichcar train` alone", reference),
            ("a trial, from one start to the next", statistics.mean(trials)),
            ("the whole search, by its trials", statistics.mean(whole)),
        ):
            print(f"| {what} | {seconds:.1f} | {seconds - reference:+.1f} | {seconds / reference:.2f} |")


if __name__ == "__main__":
    main()
