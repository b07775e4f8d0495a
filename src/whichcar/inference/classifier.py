"""A trained network, ready to predict: from images to classes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from whichcar.errors import ConfigError, ImageError
from whichcar.files import checksum
from whichcar.images.inputs import Given, Source, Sources, each, only
from whichcar.images.pixels import Pixels
from whichcar.inference.answer import Calibration, answers, find_calibration, tempered
from whichcar.inference.bundle import read_bundle
from whichcar.inference.input_crop import InputCrop, Vehicles
from whichcar.inference.released import find_model, name_of
from whichcar.inference.runtimes import KerasRuntime, MirroredRuntime, Probabilities, open_network
from whichcar.inference.stream import Row, Scored, answered, groups, opened, stream
from whichcar.records import Answer, Prediction, Skipped
from whichcar.text import plural

if TYPE_CHECKING:
    from whichcar.inference.explain import Explainer

log = logging.getLogger(__name__)

_FEW = 16  # images per call, few enough that their memory does not matter


class Classifier:
    """A trained network, ready to predict.

    Every method accepts a path, a folder, an http(s) address, a PIL image or an array, or any iterable of these
    (`inputs.each` says which arrays). A bundle predicts without Keras.

    Args:
        model: an experiment's folder (for its current refit, else its best checkpoint by validation), a checkpoint
            file, a bundle (`.whichcar`, or `.onnx` as `whichcar export --plain` writes it), or the name of a model in
            the package (default: `cars196`).
        crop: crop every image to its vehicle first, with the settings of the training images, or `whichcar crop`'s
            defaults if these were not cropped. If no vehicle is found, or all are smaller than `input_crop.LEAST_SIDE`,
            32 pixels, the whole image is used, and the prediction says so. None: crop if the training images were
            cropped, except images that `whichcar crop` wrote.
        detector: the detector used to crop: a name or a file (default: the detector of the training images).
        family: the family of a detector file whose outputs fit several, as for `crop`.

    Raises:
        CheckpointError: the model is missing or damaged.
        DetectorError: the detector for cropping is unavailable; or one, or a family, is given but nothing is cropped.

    Example:
        >>> classifier = Classifier("experiments/exp_003")
        >>> classifier.predict("car.jpg")[0].best
        >>> pandas.DataFrame([row.as_row() for row in classifier.predict("images/")])
    """

    def __init__(
        self,
        model: str | Path | None = None,
        crop: bool | None = None,
        detector: str | Path | None = None,
        family: str | None = None,
    ) -> None:
        """Load the network in the form that predicts fastest here."""
        self.checkpoint, self.metadata, self._runtime = open_network(find_model(model))
        self.class_names: tuple[str, ...] = self.metadata.class_names
        self.image_size: tuple[int, int] = self.metadata.image_size
        name = None if detector is None else str(detector)
        self.input_crop = InputCrop(self.name, self.metadata.crop, crop, name, family)

    @property
    def name(self) -> str:
        """The model's name in messages: the name of a model in the package, else the path."""
        return name_of(self.checkpoint)

    @property
    def hardware(self) -> dict[str, str]:
        """The backend and hardware that run the network, for the record of a result."""
        return dict(self._runtime.hardware)

    @cached_property
    def checksum(self) -> str:
        """BLAKE2b of the model's file, read at the first use: a running training may delete or rewrite a checkpoint."""
        return checksum(self.checkpoint)

    @cached_property
    def calibration(self) -> Calibration | None:
        """Temperature and thresholds, measured on validation images; None if the model has none."""
        return find_calibration(self.checkpoint, self.metadata)

    def predict(
        self,
        images: Sources,
        top: int = 5,
        batch_size: int | None = None,
        confidence: float | None = None,
        vehicles: Vehicles | None = None,
    ) -> list[Prediction | Skipped]:
        """Return one row per image, in order, even for a single image: its `top` best classes, or why it is unreadable.

        With `vehicles`, each vehicle is a row.

        Args:
            images: one image or several.
            top: number of classes per row.
            batch_size: images per forward pass (default: what is fastest).
            confidence: the accuracy wanted, between 0 and 1: each row then has calibrated probabilities and an `answer`
                that is as specific as that accuracy allows (class, model, make or unknown). An image that should be
                cropped but has no vehicle is unknown, and its `crop` says so.
            vehicles: `all` for one row per vehicle in an image (car or truck, by the crop settings of the training
                images), largest first; `largest` for only the largest. Their `crop` has box, detection score and
                number. An image without a vehicle, or whose vehicles are all smaller than `input_crop.LEAST_SIDE`,
                32 pixels, is a `NoVehicle`.

        Raises:
            DataError: `images` holds something that is not an image.
            ConfigError: `confidence` is given, but the model is not calibrated, or has no thresholds for an accuracy
                that high; or `vehicles` is given for a classifier with `crop=False`.
            DetectorError: `vehicles` is given, but the detector is unavailable.
        """
        return list(self.stream(images, top, batch_size, confidence, vehicles))

    def stream(
        self,
        images: Sources,
        top: int = 5,
        batch_size: int | None = None,
        confidence: float | None = None,
        vehicles: Vehicles | None = None,
    ) -> Iterator[Prediction | Skipped]:
        """Yield what `predict` returns while later images are still being read; for more images than fit in memory.

        Invalid options raise in the call itself, an invalid `batch_size` with the first row.
        """
        predicted, scored = self.predicting(top, confidence), self.scored(images, batch_size, vehicles)
        return (item if isinstance(item, Skipped) else predicted(item) for item in scored)

    def predicting(self, top: int = 5, confidence: float | None = None) -> Callable[[Scored], Prediction]:
        """Return a function from an image's probabilities to its row; raise the errors of `predict`."""
        if top < 1:
            raise ConfigError(f"top: must be at least 1; got {top}")
        answered = self.answering(confidence)

        def predicted(item: Scored) -> Prediction:
            shown, answer = answered(item)
            return replace(best_of(shown, self.class_names, top), answer=answer)

        return predicted

    def answering(self, confidence: float | None) -> Callable[[Scored], tuple[Scored, Answer | None]]:
        """Return a function from an image's probabilities to those shown in its row, and the row's answer.

        With a confidence, the probabilities shown are calibrated; without, they are unchanged and there is no answer.

        Raises:
            ConfigError: as `predict`.
        """
        if confidence is None:
            return lambda item: (item, None)
        from whichcar.taxonomy import taxonomy_of

        calibration = self.calibration
        if calibration is None:
            raise ConfigError(
                f"{self.name}: is not calibrated, so no accuracy can be promised; `whichcar evaluate` calibrates "
                "an experiment's best checkpoint on its validation images, and `whichcar export` writes any checkpoint "
                "calibrated"
            )
        thresholds, levels = calibration.thresholds_for(confidence), taxonomy_of(self.class_names).levels
        if not thresholds.least:
            needed = f", fewer than the {thresholds.images_needed} needed" if thresholds.images_needed else ""
            log.warning(
                "%s: no answer is certain enough for an accuracy of %g, as %s showed%s: all are unknown",
                *(self.name, thresholds.wanted, plural(calibration.images, "validation image"), needed),
            )

        def answered(item: Scored) -> tuple[Scored, Answer | None]:
            calibrated = tempered(item.probabilities, calibration.temperature)
            answer = answers(calibrated[None], levels, thresholds, [item.crop])[0]
            return replace(item, probabilities=calibrated), answer

        return answered

    def scored(
        self, images: Sources, batch_size: int | None = None, vehicles: Vehicles | None = None
    ) -> Iterator[Scored | Skipped]:
        """Yield the probabilities of all classes for each image, in order, or for each vehicle, as in `predict`.

        Warn once if image files seem to be cropped, or not cropped, unlike the training images.
        """
        watched = self.input_crop.warned(each(images))
        crop = self.input_crop.choice if vehicles is None else self.input_crop.each_vehicle(vehicles)
        return stream(self._runtime, watched, self.image_size, batch_size, crop)

    def opened(self, image: Given, vehicles: Vehicles | None = None, whole: bool = False) -> list[Row]:
        """Return an image as the network sees it, or each vehicle in it, decoded in the calling thread.

        Args:
            image: what to open.
            vehicles: as for `predict`.
            whole: do not crop.

        Raises:
            ConfigError: as `predict`.
        """
        crop = self.input_crop.choice if vehicles is None else self.input_crop.each_vehicle(vehicles)
        return opened(image, self.image_size, None if whole else crop)

    def scored_here(self, rows: Sequence[Row]) -> list[Scored | Skipped]:
        """Return what `scored` yields for rows of `opened`, classified in the calling thread."""
        step = max(self._runtime.batch_size, _FEW)
        return [row for group in groups(rows, step) for row in answered(self._runtime, group)]

    def seen(self, image: Source) -> Pixels:
        """Return one image as the network sees it, (height, width, 3) uint8 RGB: cropped as in `predict`, resized.

        An array that already has this shape and dtype is returned unchanged.

        Raises:
            DataError: it is several images, none, or not an image.
            ImageError: it cannot be read.
        """
        shape = (*self.image_size, 3)
        if isinstance(image, np.ndarray) and image.shape == shape and image.dtype == np.uint8:
            return image
        _, row = self.opened(only(image))[0]
        if isinstance(row, Skipped):
            raise ImageError(f"{row.path}: {row.reason}")
        return row.image

    def mirrored(self) -> Classifier:
        """Return a classifier that sees each image mirrored, for averaging with this one."""
        other = copy.copy(self)
        other._runtime = MirroredRuntime(self._runtime)
        return other

    def explainer(self) -> Explainer:
        """Return an explainer of this network's answers.

        Raises:
            CheckpointError: the network does not end in global average pooling and one layer.
        """
        from whichcar.inference.explain import Explainer
        from whichcar.inference.feature_map import KerasFeatureMap, OnnxFeatureMap

        if isinstance(self._runtime, KerasRuntime):
            return Explainer(KerasFeatureMap(self._runtime.model, self.name), self.seen)
        return Explainer(OnnxFeatureMap(read_bundle(self.checkpoint).network, self.name), self.seen)

    def probabilities(self, images: Sources) -> Probabilities:
        """Return (images, classes) float32 probabilities, in the order of `class_names`.

        Raises:
            ImageError: an image cannot be read.
            DataError: `images` holds something that is not an image.
        """
        rows = []
        for item in self.scored(images):
            if isinstance(item, Skipped):
                raise ImageError(f"{item.path}: {item.reason}")
            rows.append(item.probabilities)
        return np.stack(rows) if rows else np.empty((0, len(self.class_names)), np.float32)


def best_of(scored: Scored, class_names: tuple[str, ...], top: int) -> Prediction:
    """Return the `top` most probable classes, best first; ties in the order of the class names."""
    order = np.argsort(-scored.probabilities, kind="stable")[:top]
    return Prediction(
        scored.path,
        tuple(class_names[number] for number in order),
        tuple(float(scored.probabilities[number]) for number in order),
        scored.crop,
    )
