"""How often are vehicles named that are not in the list? Measured with a network that never saw twenty classes.

Command:  python benchmarks/left_out.py DATA            (50 minutes on 2 cores; DATA: Stanford Cars after `split`)
Expected: AUROC 0.80; of 100 vehicles of other makes 20 are named where an accuracy of 0.9 is wanted, 5 with 0.95.

13 of the classes are all those of nine small makes; seven are one of the several classes that their make has. The rest
trains experiments/left_out. All images of the twenty classes are then foreign to it.
"""

import argparse
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np

EXPERIMENT = Path("experiments/left_out")
LEFT_OUT = 20
WANTED = (0.8, 0.9, 0.95)
Images = dict[str, list[Path]]


def make_of(name: str) -> str:
    return name.split()[0]


def left_out(names: list[str]) -> tuple[list[str], list[str]]:
    """Return the classes of every fourth make that has at most four, and single ones of other makes, at equal steps."""
    counts = Counter(map(make_of, names))
    small = sorted(make for make, count in counts.items() if count <= 4)
    whole = [name for make in small[2::4] for name in names if make_of(name) == make]
    rest = [name for name in names if name not in whole and counts[make_of(name)] > 1]
    number = LEFT_OUT - len(whole)
    return whole, [rest[(2 * i + 1) * len(rest) // (2 * number)] for i in range(number)]


def linked(data: Path, target: Path) -> Images:
    """Link the classes that are left to `target`; returns the test images, and those of the classes left out."""
    names = sorted(path.name for path in (data / "train").iterdir())
    whole, single = left_out(names)
    images: Images = {"test images": [], "another class of a make": [], "another make": []}
    for split in ("train", "test"):
        for name in names:
            paths = sorted((data / split / name).iterdir())
            if name in (*whole, *single):
                images["another make" if name in whole else "another class of a make"] += paths
                continue
            (target / split / name).mkdir(parents=True, exist_ok=True)
            for path in paths:
                link = target / split / name / path.name
                if not link.is_symlink():
                    link.symlink_to(path.resolve())
            images["test images"] += paths if split == "test" else []
    return images


def auroc(known: np.ndarray, foreign: np.ndarray) -> float:
    """Return how often a known image scores above a foreign one."""
    ranks = np.concatenate([known, foreign]).argsort().argsort()[: len(known)] + 1
    return float((ranks.sum() - len(known) * (len(known) + 1) / 2) / (len(known) * len(foreign)))


def tables(images: Images) -> None:
    """Print how the scores separate, and what is answered."""
    from whichcar.inference.answer import answers, entropy, tempered
    from whichcar.inference.classifier import Classifier
    from whichcar.taxonomy import taxonomy_of

    classifier = Classifier(EXPERIMENT, crop=False)
    calibration = classifier.calibration
    found = {kind: tempered(classifier.probabilities(paths), calibration.temperature) for kind, paths in images.items()}
    known = found.pop("test images")
    scores = {
        "entropy": lambda p: -entropy(p),
        "largest probability": lambda p: p.max(1),
        "difference of the two largest": lambda p: np.diff(np.sort(p, axis=1)[:, -2:])[:, 0],
    }
    print(f"| score | {' | '.join(f'AUROC, {kind} | false alarms' for kind in found)} |\n|---|{'---:|' * 4}")
    for name, score in scores.items():
        limit = np.quantile(score(known), 0.05)
        cells = [f"{auroc(score(known), score(p)):.3f} | {np.mean(score(p) >= limit):.0%}" for p in found.values()]
        print(f"| {name} | {' | '.join(cells)} |")
    levels = taxonomy_of(classifier.class_names).levels
    print(f"\n| wanted accuracy | images | class or model | make | unknown |\n|---|---|{'---:|' * 3}")
    for wanted in WANTED:
        for kind, p in {"test images": known, **found}.items():
            given = Counter(answer.level for answer in answers(p, levels, calibration.thresholds_for(wanted)))
            shares = [(given["class"] + given["model"]) / len(p), given["make"] / len(p), given[""] / len(p)]
            print(f"| {wanted} | {kind} ({len(p)}) | {' | '.join(f'{share:.0%}' for share in shares)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train without twenty classes, and see what becomes of their images.")
    parser.add_argument("data", type=Path, nargs="?", help="Stanford Cars after `whichcar split`: train/ and test/")
    parser.add_argument("--weights", default="imagenet", help="as `model.weights`, with ImageNet's classifier")
    given = parser.parse_args()
    if given.data is None:  # as from `make bench`
        print("not run: give the folder of Stanford Cars")
        return
    images = linked(given.data, Path("data/left_out"))
    os.environ["WHICHCAR_QUIET"] = "1"
    whichcar = [sys.executable, "-m", "whichcar"]
    train = ["train", str(EXPERIMENT), "--resume", "--set", f"model.weights={given.weights}"]
    for command in (train, ["evaluate", str(EXPERIMENT)]):
        subprocess.run([*whichcar, *command], check=True, stdout=subprocess.DEVNULL)
    tables(images)


if __name__ == "__main__":
    main()
