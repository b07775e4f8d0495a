"""How fast is each vehicle of an image found and classified, against detection alone and classification alone?

Command:  python benchmarks/vehicles.py                 (2 minutes on 2 cores)
Expected: with 1 and with 8 vehicles in an image at least 0.9 of the two stages run one after the other.

In turns, with the detector and the model that come with whichcar. Detection alone has its images in memory;
classification alone reads the vehicles from files of their own. WHICHCAR_DATA names a folder with car_ims/; else cars
are drawn.
"""

import os
import tempfile
from pathlib import Path

from _measure import seconds_in_turns
from crop import detector_alone
from PIL import Image

from whichcar.inference.classifier import Classifier
from whichcar.parallel import usable_cores
from whichcar.records import Prediction
from whichcar.synthetic.draw import draw

ROUNDS, FILES = 3, 48
TILE = (200, 150)
GRIDS = {1: (1, 1), 8: (4, 2)}


def pasted(cars: list[Path], grid: tuple[int, int], folder: Path) -> list[Path]:
    """Write images of grey, 800 x 600, with as many cars as the grid has places."""
    columns, rows = grid
    paths = []
    for number in range(FILES):
        canvas = Image.new("RGB", (800, 600), (120, 120, 120))
        for place in range(columns * rows):
            with Image.open(cars[(number * columns * rows + place) % len(cars)]) as car:
                tile = car.convert("RGB").resize(TILE)
            canvas.paste(tile, (place % columns * TILE[0], 100 + place // columns * (TILE[1] + 100)))
        paths.append(folder / f"{columns}x{rows}_{number}.jpg")
        canvas.save(paths[-1], quality=95)
    return paths


def cut(rows: list[Prediction], folder: Path) -> list[Path]:
    """Write each vehicle that was found to a file."""
    paths = []
    for number, row in enumerate(rows):
        box = row.crop.box
        with Image.open(row.path) as image:
            paths.append(folder / f"vehicle_{number}.jpg")
            image.crop((box.left, box.top, box.right, box.bottom)).save(paths[-1], quality=95)
    return paths


def measure(cars: list[Path], count: int, folder: Path) -> str:
    """Return the row of one number of vehicles."""
    images = pasted(cars, GRIDS[count], folder)
    whole, alone = Classifier(), Classifier(crop=False)
    found = [row for row in whole.predict(images, vehicles="all") if isinstance(row, Prediction)]
    vehicles = cut(found, folder)
    sides = {
        "together": lambda: whole.predict(images, vehicles="all"),
        "detection": detector_alone(images, usable_cores()),
        "classification": lambda: alone.predict(vehicles),
    }
    taken = seconds_in_turns(sides, ROUNDS)
    apart = taken["detection"] + taken["classification"]
    rates = [len(images) / value for value in (taken["together"], taken["detection"], taken["classification"], apart)]
    cells = [f"{len(found) / len(images):.1f}", *(f"{rate:.1f}" for rate in rates), f"**{rates[0] / rates[3]:.2f}**"]
    return f"| {count} | {' | '.join(cells)} |"


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        data = Path(os.environ.get("WHICHCAR_DATA") or scratch)
        if data == folder:
            draw(data)
        cars = sorted((data / "car_ims").iterdir())[:FILES]
        print("\n| vehicles in an image | found | images/s | detection | classification | both apart | ratio |")
        print(f"|---:|{'---:|' * 6}")
        for count in GRIDS:
            print(measure(cars, count, folder), flush=True)


if __name__ == "__main__":
    main()
