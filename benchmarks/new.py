"""Is a recipe that `whichcar new` chooses as good as one made by hand, and does it take the minutes given?

Command:  python benchmarks/new.py DATA --weights PATH             (8 hours; DATA: Stanford Cars after `split`)
          python benchmarks/new.py DATA --weights PATH --case 5    (the smallest; several cases may be given)
Expected: at most a point below the better of exp_003's recipe and a head on the frozen backbone, unless these take much
          longer; in 85-115 % of the minutes of a quiet machine, or in fewer where the most epochs that are planned take
          less. With 200 minutes, only the settings of `whichcar new` were trained.

Each case is a part of DATA: some classes, or some training images of each. It is trained three times: with the settings
of `whichcar new`, with those of experiments/exp_003 (its own number of passes), and with a head on cached features.
Minutes are those of the whole command `whichcar train`, and the load is the number of processes that wanted a core.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
SIZE = 192  # of the frozen backbone's input


@dataclass(frozen=True)
class Case:
    """Every n-th class, and a maximum of training images of each; None for all of them."""

    name: str
    classes: int | None
    images: int | None
    minutes: float


CASES = (
    Case("5", 5, None, 4),
    Case("12", 12, None, 10),
    Case("50", 50, None, 20),
    Case("10-images", None, 10, 20),
    Case("20-minutes", None, None, 20),
    Case("200-minutes", None, None, 200),
)


def part(data: Path, case: Case, folder: Path) -> Path:
    """Link the images of a case."""
    names = sorted(path.name for path in (data / "train").iterdir())
    for name in names[:: len(names) // (case.classes or len(names))][: case.classes]:
        for split, most in (("train", case.images), ("test", None)):
            for image in sorted((data / split / name).iterdir())[:most]:
                link = folder / split / name / image.name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(image.resolve())
    return folder


def whichcar(*words: str) -> float:
    """Run the command and return its minutes."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "whichcar", *words], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - start) / 60


def by_hand(path: Path, base: str, changes: dict[str, dict[str, object]]) -> None:
    """Write the settings of an experiment of this repository with some sections changed; None deletes a setting."""
    settings = yaml.safe_load((EXPERIMENTS / base / "config.yml").read_text())
    for section, values in changes.items():
        settings[section] = {key: value for key, value in (settings[section] | values).items() if value is not None}
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(settings))


def trained(experiment: Path) -> tuple[float, str]:
    """Train and evaluate; returns the minutes of training, and top-1 accuracy with its interval."""
    try:
        minutes = whichcar("train", str(experiment))
        whichcar("evaluate", str(experiment))
    except subprocess.CalledProcessError:  # with few classes, exp_003's rate for the head may end in a loss of NaN
        return float("nan"), "failed"
    top_1 = json.loads((experiment / "result.json").read_text())["top_1"]
    low, high = top_1["interval_95"]
    return minutes, f"{top_1['value']:.3f} ({low:.3f}-{high:.3f})"


def row(data: Path, case: Case, weights: str, folder: Path) -> str:
    """Return the row of a case."""
    images = part(data, case, folder / "images")
    source = {"data": {"directory": str(images)}, "model": {"weights": weights}}
    head = {"freeze": 5, "cached_features": True, "random_resized_crop": None}
    frozen = {"data": source["data"] | {"image_size": [SIZE, SIZE]}, "fit": {"epochs": 40}, "recipe": head}
    frozen["model"] = source["model"] | {"data_aug_layer": None}
    by_hand(folder / "exp_003" / "config.yml", "exp_003", source)
    by_hand(folder / "frozen" / "config.yml", "frozen", frozen)
    options = ("--minutes", f"{case.minutes:g}", "--weights", weights)
    measuring = whichcar("new", str(folder / "new"), "--data", str(images), *options)
    results = {name: trained(folder / name) for name in ("new", "exp_003", "frozen")}
    taken = results["new"][0]
    cells = [case.name, f"{case.minutes:g}", f"{taken:.1f}", f"{taken / case.minutes:.2f}", f"{measuring:.1f}"]
    cells += [f"**{results['new'][1]}**", results["exp_003"][1], f"{results['exp_003'][0]:.1f}", results["frozen"][1]]
    return f"| {' | '.join(cells)} | {os.getloadavg()[2]:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare `whichcar new` with recipes made by hand.")
    parser.add_argument("data", type=Path, nargs="?", help="Stanford Cars after `whichcar split`: train/ and test/")
    parser.add_argument("--weights", default="imagenet", help="as `model.weights`")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="default: all")
    given = parser.parse_args()
    if given.data is None:  # as from `make bench`
        print("not run: give the folder of Stanford Cars")
        return
    os.environ["WHICHCAR_QUIET"] = "1"
    columns = ["case", "minutes given", "taken", "ratio", "measuring", "new: top-1", "exp_003: top-1", "minutes"]
    print(f"| {' | '.join([*columns, 'frozen: top-1', 'load'])} |\n|---|{'---:|' * 9}")
    for case in CASES:
        if given.case is None or case.name in given.case:
            with tempfile.TemporaryDirectory() as folder:
                print(row(given.data, case, given.weights, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
