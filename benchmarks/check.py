"""How fast is a set of images checked, and does memory grow with their number? How many copies are found?

Command:  python benchmarks/check.py [FOLDER]                                            (about 30 minutes on 2 cores)
Expected: faster than cleanvision, which reads every image twice; with 20,000 images at most a tenth more memory
          than with 1,000; at most 1,500 MB for images of up to 99 megapixels in all formats; of images copied,
          changed and mirrored nine in ten are found, and hardly any other pair.

Without FOLDER cars are drawn at 640 x 480. Both sides use all processors and take turns; medians are printed. Cached
scan results are removed before each turn; the last row is a second run, which uses them.
"""

import contextlib
import io
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from _large import print_peaks
from _measure import seconds_in_turns

ROUNDS, COUNT = 3, 480
SMALL = (72, 96)  # of the images for memory: what a set costs is a matter of their number
COUNTS = (1_000, 20_000)
COPIED = 120


def run_check(folder: Path) -> None:
    from whichcar.data.check.check import check

    check(folder, smallest=16)


def forget() -> None:
    for path in Path(os.environ["WHICHCAR_CACHE"]).glob("scans.db*"):
        path.unlink()


def run_cleanvision(folder: Path) -> None:
    from cleanvision import Imagelab

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        Imagelab(data_path=str(folder)).find_issues(n_jobs=len(os.sched_getaffinity(0)), verbose=False)


def decode_alone(folder: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from whichcar.images.read import read_image

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(lambda path: read_image(path).shape, sorted(folder.rglob("*.jpg"))):
            pass


def speed(folder: Path) -> None:
    count = len(list(folder.rglob("*.jpg")))

    def again() -> None:
        forget()
        run_check(folder)

    sides: dict[str, Callable[[], None]] = {
        "reading alone, full size": lambda: decode_alone(folder),
        "cleanvision (`Imagelab.find_issues`)": lambda: run_cleanvision(folder),
        "`whichcar check`": again,
        "`whichcar check`, again": lambda: run_check(folder),
    }
    taken = seconds_in_turns(sides, ROUNDS if count < 5000 else 1, warm_up=0)
    middle = {name: count / seconds for name, seconds in taken.items()}
    reference = middle["cleanvision (`Imagelab.find_issues`)"]
    print(f"\nChecking {count} images of 640 x 480, {len(os.sched_getaffinity(0))} cores\n")
    print("| | images/s | seconds | times cleanvision |\n|---|---:|---:|---:|")
    for name, rate in middle.items():
        print(f"| {name} | {rate:.1f} | {count / rate:.0f} | {rate / reference:.2f} |")


def memory(scratch: Path) -> None:
    from PIL import Image

    print("\nPeak memory of checking\n\n| images | peak, MB | times the first |\n|---:|---:|---:|")
    first = 0
    for count in COUNTS:
        folder = scratch / str(count)
        for number in range(count):
            target = folder / f"class {number % 50}" / f"{number:06d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise(SMALL, 20 + number % 97).convert("RGB").save(target)
        command = [sys.executable, __file__, "--one", str(folder)]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        first = first or peak
        print(f"| {count} | {peak / 1e6:.0f} | {peak / first:.2f} |")


def recall(folder: Path, scratch: Path) -> None:
    from PIL import Image, ImageEnhance, ImageOps

    from whichcar.data.duplicates.find import copies_among

    originals = sorted(folder.rglob("*.jpg"))
    originals = originals[:: max(1, len(originals) // COPIED)][:COPIED]

    def trimmed(image: Image.Image, share: float) -> Image.Image:
        across, down = round(image.width * share), round(image.height * share)
        return image.crop((across, down, image.width - across, image.height - down))

    def banner(image: Image.Image) -> Image.Image:
        image.paste((255, 255, 255), (0, image.height - image.height // 15, image.width, image.height))
        return image

    changes: dict[str, Callable[[Image.Image], Image.Image]] = {
        "encoded again, JPEG 40": lambda image: image,
        "half the size": lambda image: image.reduce(2),
        "resized to a square": lambda image: image.resize((224, 224)),
        "3 % cropped off each side": lambda image: trimmed(image, 0.03),
        "5 % cropped off each side": lambda image: trimmed(image, 0.05),
        "10 % cropped off one side": lambda image: image.crop((0, 0, round(image.width * 0.9), image.height)),
        "brighter by a quarter": lambda image: ImageEnhance.Brightness(image).enhance(1.25),
        "grey": lambda image: image.convert("L"),
        "a white banner below": banner,
        "mirrored": ImageOps.mirror,
    }
    print(f"\nCopies found of {len(originals)} images\n\n| change | found | others taken for copies |\n|---|---:|---:|")
    for name, change in changes.items():
        target = scratch / name
        target.mkdir()
        for path in originals:
            change(Image.open(path).convert("RGB")).save(target / path.name, quality=40)
        paths = [*originals, *(target / path.name for path in originals)]
        groups = copies_among(paths)
        matched = sum(group == [number, number + len(originals)] for group in groups for number in group[:1])
        print(f"| {name} | {matched / len(originals):.0%} | {len(groups) - matched} |")
        shutil.rmtree(target)


def main() -> None:
    os.environ["WHICHCAR_QUIET"] = "1"
    if sys.argv[1:2] == ["--one"]:
        run_check(Path(sys.argv[2]))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        os.environ["WHICHCAR_CACHE"] = str(scratch / "cache")
        if len(sys.argv) > 1:
            folder = Path(sys.argv[1])
        else:
            from whichcar.synthetic.draw import draw

            draw(scratch / "drawn", per_class=COUNT // 12, size=(480, 640))
            folder = scratch / "drawn" / "car_ims"
        speed(folder)
        recall(folder, scratch)
        memory(scratch)
        commands = {
            "check": lambda folder, out: ["-m", "whichcar", "check", str(folder / "images"), "--output", out],
            "explore": lambda folder, out: [
                *("-m", "whichcar", "explore", str(folder / "images"), "--output", f"{out}.html")
            ],
        }
        print_peaks(scratch / "large", commands)


if __name__ == "__main__":
    main()
