"""How fast are images cropped to the vehicle, against the detector alone, and does memory grow with their number?

Command:  python benchmarks/crop.py                    (about 20 minutes on 2 cores)
Expected: at least 30 images/s, 0.8 times the detector alone on all processors, and 0.9 of what they could do in all
          steps; the peak with 20,000 images within 10 % of that with 1,000, and at most
          1,500 MB for images of up to 99 megapixels in all formats, with 16 workers.

Cars are drawn at 640 x 480. The detector alone answers the same images, read before, on the same processors, one
thread each. Both take turns; medians are printed. The steps are timed on one processor.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from _large import print_peaks

ROUNDS, COUNT = 5, 240
SMALL = (120, 160)  # of the images for memory: what a tree costs is a matter of their number
COUNTS = (1_000, 20_000)


def steps(paths: list[Path], target: Path) -> dict[str, float]:
    """Return the seconds an image of each step, on one thread."""
    import io

    from PIL import Image

    from whichcar.detection.detection import load_detector, main_vehicle, vehicles_among
    from whichcar.images.read import read_image

    detector = load_detector(threads=1)
    spent = dict.fromkeys(("read", "detect", "encode", "write"), 0.0)
    for path in paths:
        marks = [time.perf_counter()]
        image = read_image(path)
        marks.append(time.perf_counter())
        vehicle = main_vehicle(vehicles_among(detector.detect([image])[0]), image.shape[:2])
        marks.append(time.perf_counter())
        box = vehicle.box if vehicle else None
        encoded = io.BytesIO()
        cropped = image if box is None else image[box.top : box.bottom, box.left : box.right]
        Image.fromarray(cropped).save(encoded, "JPEG", quality=95)
        marks.append(time.perf_counter())
        target.write_bytes(encoded.getbuffer())
        marks.append(time.perf_counter())
        for name, start, end in zip(spent, marks, marks[1:], strict=False):
            spent[name] += (end - start) / len(paths)
    return spent


def detector_alone(paths: list[Path], cores: int) -> Callable[[], None]:
    """Return a function that asks the detector about every image, on all processors."""
    from whichcar.detection.detection import load_detector
    from whichcar.images.read import read_image

    detector = load_detector(threads=1)
    images = [read_image(path) for path in paths]

    def run() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(lambda image: detector.detect([image]), images))

    return run


def speed(scratch: Path) -> None:
    from whichcar.detection.crop import crop
    from whichcar.synthetic.draw import draw

    cores = len(os.sched_getaffinity(0))
    draw(scratch / "drawn", per_class=COUNT // 12, size=(480, 640))
    source = scratch / "drawn" / "car_ims"
    paths = sorted(source.iterdir())

    def stage() -> None:
        shutil.rmtree(scratch / "cropped", ignore_errors=True)
        outcomes.extend(row.kind for row in crop(source, scratch / "cropped"))

    outcomes: list[str] = []
    sides = {"the detector alone": detector_alone(paths, cores), "whichcar crop": stage}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    busy = []
    for turn in range(ROUNDS + 1):
        for name, run in sides.items():
            used, start = time.process_time(), time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            if turn:
                rates[name].append(COUNT / seconds)
                if run is stage:
                    busy.append((time.process_time() - used) / seconds / cores)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    spent = steps(paths, scratch / "a.jpg")
    total = sum(spent.values())
    share = outcomes.count("cropped") / len(outcomes)
    print(f"\nCropping {COUNT} images of 640 x 480, {share:.0%} of them cropped, {cores} cores\n")
    print("| | images/s | times the detector alone |\n|---|---:|---:|")
    for name, rate in middle.items():
        print(f"| {name} | {rate:.1f} | {rate / middle['the detector alone']:.2f} |")
    print("\n| step | ms an image | share |\n|---|---:|---:|")
    for name, seconds in spent.items():
        print(f"| {name} | {1000 * seconds:.1f} | {seconds / total:.0%} |")
    fair = cores / total
    print(f"| all | {1000 * total:.1f} | {cores} cores could do {fair:.1f} images/s |")
    print(
        f"\nThe stage reaches {middle['whichcar crop'] / fair:.0%} of what the processors can do in all steps; "
        f"they are busy {statistics.median(busy):.0%} of the time."
    )


def memory(scratch: Path) -> None:
    from whichcar.synthetic.draw import draw

    draw(scratch / "small", per_class=10, size=SMALL)
    originals = sorted((scratch / "small" / "car_ims").iterdir())
    print("\nPeak memory of cropping\n\n| images | peak, MB | times the first |\n|---:|---:|---:|")
    first = 0
    for count in COUNTS:
        tree = scratch / str(count)
        for number in range(count):
            target = tree / f"class {number % 12}" / f"{number:06d}.jpg"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(originals[number % len(originals)], target)
        command = [sys.executable, __file__, str(tree), str(scratch / f"cropped {count}")]
        peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])
        first = first or peak
        print(f"| {count} | {peak / 1e6:.0f} | {peak / first:.2f} |")


def main() -> None:
    os.environ["WHICHCAR_QUIET"] = "1"
    if len(sys.argv) > 1:
        from whichcar.cli.main import run

        run(["crop", *sys.argv[1:]])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        return
    with tempfile.TemporaryDirectory() as scratch:
        speed(Path(scratch))
        memory(Path(scratch))
        command = ["-m", "whichcar", "crop", "--workers", "16"]
        print_peaks(Path(scratch) / "large", {"crop": lambda folder, out: [*command, str(folder / "images"), out]})


if __name__ == "__main__":
    main()
