"""A small labelled data set of drawn, invented cars and trucks, for the demo, the tests and the benchmarks."""

from __future__ import annotations

from pathlib import Path
from random import Random

from PIL import Image, ImageEnhance

from whichcar import files
from whichcar.data.labels import write_labels
from whichcar.errors import DataError
from whichcar.records import Label
from whichcar.synthetic.camera import draw_vehicle
from whichcar.synthetic.scenes import draw_foreground, draw_scene
from whichcar.synthetic.vehicles import VEHICLES, Vehicle

_FINER = 2  # images are drawn this many times larger, then reduced, for smooth edges
_EDITION = 1  # changes whenever the same seed produces other images


def draw(
    output: Path, classes: int = 12, per_class: int = 40, seed: int = 7, size: tuple[int, int] = (160, 213)
) -> None:
    """Draw `output`/car_ims/NNNNNN.jpg and `output`/car_dataset_labels.csv.

    The same arguments produce the same images. Paint, pose and surroundings vary from image to image and say
    nothing about the class. About a quarter of each class is labelled `test`. Existing images are kept.

    Args:
        output: folder to write to; created if missing.
        classes: number of classes, 2 ... 12.
        per_class: images per class, at least 2.
        seed: seed of every random choice.
        size: height and width of an image.

    Raises:
        DataError: too many or too few classes or images, or `output` holds images drawn with other arguments.
    """
    if not 2 <= classes <= len(VEHICLES) or per_class < 2:
        raise DataError(
            f"can draw 2 to {len(VEHICLES)} classes of at least 2 images; got {classes} classes of {per_class}"
        )
    arguments = {"edition": _EDITION, "classes": classes, "per_class": per_class, "seed": seed, "size": list(size)}
    _same_as_before(output, arguments)
    files.write_json(output / "drawn.json", arguments)
    rows = plan(classes, per_class, seed)
    (output / "car_ims").mkdir(parents=True, exist_ok=True)
    for label, vehicle in rows:
        path = output / "car_ims" / label.img_name
        if not path.exists():
            image = draw_image(vehicle, size, Random(f"{seed}/{label.img_name}"))
            tmp = path.with_suffix(".part")
            image.save(tmp, "JPEG", quality=90)
            tmp.replace(path)
    write_labels(output / "car_dataset_labels.csv", [label for label, _ in rows])


def plan(classes: int, per_class: int, seed: int) -> list[tuple[Label, Vehicle]]:
    """Return every row of the label file and its vehicle, in the order of the names."""
    held_out = max(1, round(per_class / 4))
    cards = [
        (vehicle, "test" if index < held_out else "train")
        for vehicle in VEHICLES[:classes]
        for index in range(per_class)
    ]
    Random(f"{seed}/order").shuffle(cards)
    return [
        (Label(f"{number:06d}.jpg", vehicle.name, subset), vehicle)
        for number, (vehicle, subset) in enumerate(cards, start=1)
    ]


def draw_image(vehicle: Vehicle, size: tuple[int, int], rng: Random) -> Image.Image:
    """Return one RGB image of `size` (height, width): surroundings, the vehicle, things in front of it, light."""
    height, width = size
    image = draw_scene((width * _FINER, height * _FINER), rng)
    draw_vehicle(image, vehicle, rng)
    draw_foreground(image, rng)
    image = image.reduce(_FINER)
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.75, 1.15))
    return ImageEnhance.Color(image).enhance(rng.uniform(0.7, 1.2))


def _same_as_before(output: Path, arguments: dict[str, object]) -> None:
    record = output / "drawn.json"
    if record.exists():
        before = files.read_json(record, fix="delete the folder to draw again")
        if before != arguments:
            raise DataError(f"{output}: was drawn with {before}, not {arguments}; delete it or name another folder")
    elif (output / "car_dataset_labels.csv").exists() or any((output / "car_ims").glob("*")):
        raise DataError(f"{output}: holds other images; name an empty folder")
