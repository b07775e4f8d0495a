"""The one way from images to classes: decoded and resized in threads while the network works on the batch before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from whichcar.errors import CheckpointError, ConfigError, ImageError
from whichcar.images.inputs import Given, Sources, each
from whichcar.images.pixels import Pixels
from whichcar.inference.input_crop import CropFunction, InputCrop
from whichcar.parallel import Done, ordered_map, usable_cores
from whichcar.records import Crop, Prediction, Skipped
from whichcar.text import as_text
from whichcar.training.hardware import prepare
from whichcar.training.run.checkpoint import find_checkpoint, load_model, read_metadata

Probabilities = npt.NDArray[np.float32]
Network = Callable[[Pixels], Probabilities]


@dataclass(frozen=True, slots=True)
class Scored:
    """One image and the probability of every class, (classes,) float32, in the order of the class names.

    `crop` is what it was cropped to first; None where it was not to be cropped.
    """

    path: Path | str
    probabilities: Probabilities
    crop: Crop | None = None


class Opened(NamedTuple):
    """An image at the network's size, and what it was cropped to, if so."""

    image: Pixels
    crop: Crop | None


class Classifier:
    """A trained checkpoint, ready to predict.

    Every method takes a path, a folder, an http(s) address, a PIL image or an array, or any iterable of these
    (`inputs.each` says which arrays).

    Args:
        path: an experiment's folder (its best checkpoint by validation is taken) or a checkpoint file.
        crop: crop every image to its vehicle first, as the images it was trained on were, else as `whichcar crop` does
            by default; where no vehicle is found, the whole image is used, and the prediction says so.
        detector: the detector for that: a name or a file (default: the one used for the images it was trained on).
        family: that of a detector's file whose outputs fit several, as for `crop`.

    Raises:
        CheckpointError: there is no such checkpoint, or it is broken.
        DetectorError: `crop`, and the detector cannot be had; or a detector or family without `crop`.

    Example:
        >>> classifier = Classifier("experiments/exp_003")
        >>> classifier.predict("car.jpg")[0].best
        >>> pandas.DataFrame([row.as_row() for row in classifier.predict("images/")])
    """

    def __init__(
        self, path: str | Path, crop: bool = False, detector: str | Path | None = None, family: str | None = None
    ) -> None:
        """Load the checkpoint in the form that predicts fastest here."""
        self.checkpoint: Path = find_checkpoint(Path(path))
        self.metadata = read_metadata(self.checkpoint)
        self.class_names: tuple[str, ...] = self.metadata.class_names
        self.image_size: tuple[int, int] = self.metadata.image_size
        name = None if detector is None else str(detector)
        self.input_crop = InputCrop(self.checkpoint, self.metadata.crop, crop, name, family)
        self.hardware = prepare()
        self._infer = checked(load_model(self.checkpoint), len(self.class_names), np.uint8)

    def predict(self, images: Sources, top: int = 5, batch_size: int = 32) -> list[Prediction | Skipped]:
        """Return one row an image, in order, also for a single one: its `top` best classes, or why it cannot be read.

        Args:
            images: one image or several.
            top: how many classes a row names.
            batch_size: images per forward pass.

        Raises:
            DataError: `images` holds something that is no image at all.
        """
        return list(self.stream(images, top, batch_size))

    def stream(self, images: Sources, top: int = 5, batch_size: int = 32) -> Iterator[Prediction | Skipped]:
        """Yield what `predict` returns, while later images are still being read: for more than memory holds."""
        if top < 1:
            raise ConfigError(f"top: must be at least 1; got {top}")
        for item in self.scored(images, batch_size):
            yield item if isinstance(item, Skipped) else best_of(item, self.class_names, top)

    def scored(self, images: Sources, batch_size: int = 32) -> Iterator[Scored | Skipped]:
        """Yield the probabilities of all classes for each image, in order.

        Warns once where files seem to be cropped, or whole, unlike those it was trained on.
        """
        watched = self.input_crop.warned(each(images))
        return stream(self._infer, watched, self.image_size, batch_size, self.input_crop.crop)

    def probabilities(self, images: Sources, batch_size: int = 32) -> Probabilities:
        """Return (images, classes) float32 probabilities, in the order of `class_names`.

        Raises:
            ImageError: one cannot be read.
            DataError: `images` holds something that is no image at all.
        """
        rows = []
        for item in self.scored(images, batch_size):
            if isinstance(item, Skipped):
                raise ImageError(f"{item.path}: {item.reason}")
            rows.append(item.probabilities)
        return np.stack(rows) if rows else np.empty((0, len(self.class_names)), np.float32)


def best_of(scored: Scored, class_names: tuple[str, ...], top: int) -> Prediction:
    """Return the `top` most probable classes, best first; equal ones in the order of the class names."""
    order = np.argsort(-scored.probabilities, kind="stable")[:top]
    return Prediction(
        scored.path,
        tuple(class_names[number] for number in order),
        tuple(float(scored.probabilities[number]) for number in order),
        scored.crop,
    )


def checked(model: Any, classes: int, dtype: type[np.generic] = np.float32) -> Network:  # noqa: ANN401  (any Keras model)
    """Wrap a Keras model's prediction so that few batch shapes are compiled, and its output is checked.

    A batch is filled up to 1, 2, 4, 8, 16, 24 … images.

    Raises (when called):
        CheckpointError: the model does not return one finite number a class.
    """

    def infer(images: Pixels) -> Probabilities:
        count = len(images)
        room = -8 * (-count // 8) if count > 8 else 1 << (count - 1).bit_length()
        answer = np.asarray(model.predict_on_batch(filled(images, room).astype(dtype, copy=False)), np.float32)
        if answer.shape != (room, classes):
            raise CheckpointError(
                f"model {model.name!r}: {answer.shape[-1]} values an image, but {classes} class names; "
                "pass the names the model was trained with, in that order"
            )
        if not np.isfinite(answer).all():
            raise CheckpointError(f"model {model.name!r}: its output has NaN or infinity; take an earlier checkpoint")
        return answer[:count]

    return infer


def filled(images: Pixels, room: int) -> Pixels:
    """Return `images` and, up to `room` in all, copies of the last one (a black one may be a division by zero)."""
    missing = room - len(images)
    return np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)), mode="edge") if missing > 0 else images


def stream(
    infer: Network,
    images: Iterable[Given | Skipped],
    size: tuple[int, int],
    batch_size: int = 32,
    crop: CropFunction | None = None,
) -> Iterator[Scored | Skipped]:
    """Yield each image's probabilities, in order.

    Images are resized to `size` (height, width), after `crop` where it is given and never cropped otherwise: what
    is at the edge counts. While the network works on one batch, the next ones are being decoded; at most four
    batches are held, however many images there are. A shorter last batch is filled up to `batch_size`, so it costs no
    second compilation.

    Raises:
        ConfigError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ConfigError(f"batch size: must be at least 1; got {batch_size}")
    batch: list[tuple[Path | str, Opened | Skipped]] = []
    room = 0
    for item in decoded(images, size, 2 * batch_size, crop):
        batch.append(item)
        if len(batch) == batch_size:
            room = batch_size
            yield from _answers(infer, batch, room)
            batch = []
    if batch:
        yield from _answers(infer, batch, room)


def _answers(infer: Network, batch: list[tuple[Path | str, Opened | Skipped]], room: int) -> list[Scored | Skipped]:
    images = [item.image for _, item in batch if not isinstance(item, Skipped)]
    rows = iter(infer(filled(np.stack(images), room)) if images else ())
    return [item if isinstance(item, Skipped) else Scored(path, next(rows), item.crop) for path, item in batch]


def decoded(
    images: Iterable[Given | Skipped], size: tuple[int, int], ahead: int, crop: CropFunction | None = None
) -> Iterator[tuple[Path | str, Opened | Skipped]]:
    """Yield every image at `size`, cropped first where asked for, in order; threads prepare up to `ahead` more."""

    def prepared(image: Given) -> tuple[Path | str, Opened | Skipped]:
        return image.path, _open(image, size, crop)

    given = (Done((image.path, image)) if isinstance(image, Skipped) else image for image in images)
    return ordered_map(prepared, given, usable_cores() + 1, ahead)


def _open(given: Given, size: tuple[int, int], crop: CropFunction | None) -> Opened | Skipped:
    try:
        # What is cropped must be sharp too, so the image is then not decoded smaller.
        with given.open(size if crop is None else None) as image:
            box, cropped = crop(as_text(given.path), image) if crop else (None, None)
            return Opened(image.resized(size, box), cropped)
    except ImageError as error:
        return Skipped(given.path, error.reason)
