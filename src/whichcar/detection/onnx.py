"""Detectors in ONNX files, run by ONNX Runtime: their input, and the decoding of their outputs."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from whichcar.detection.coco import NAMES, names_of
from whichcar.detection.decoders import Decoded
from whichcar.detection.families import FAMILIES, Family, projects
from whichcar.detection.onnx_errors import unusable
from whichcar.detection.onnx_input import Input, inputs_of
from whichcar.detection.outputs import read_outputs
from whichcar.detection.probe import Outputs, Probe, Reading
from whichcar.errors import DetectorError, ImageError
from whichcar.images.pixels import Pixels
from whichcar.onnx_session import open_session, reason_of
from whichcar.parallel import usable_cores
from whichcar.records import Box, Detection

if TYPE_CHECKING:
    import onnxruntime

_BEYOND = 3  # times the input's longer side; a box that extends farther is invalid


class OnnxDetector:
    """A detector in an ONNX file; several threads may use it at once.

    Args:
        path: the file.
        name: used in messages and records (default: the file's name).
        threads: CPU cores per call (default: all); with several callers, one each is fastest.
        family: one of `FAMILIES` (default: recognised from the outputs for two probe images, blank and noise).
        reading: how the outputs of this very file are decoded, if that is certain; the file is then not probed. Its
            outputs must have an axis of images.

    `read_as` describes the input and the decoding of the outputs.

    Raises:
        DetectorError: the file is missing or not an ONNX model, or its output format is unsupported or ambiguous.
    """

    def __init__(
        self,
        path: str | Path,
        name: str = "",
        threads: int | None = None,
        family: str | None = None,
        reading: Reading | None = None,
    ) -> None:
        """Load the file and, without a `reading`, run it on two probe images."""
        self.path = Path(path)
        self.name = name or self.path.name
        self._session = _session(self.path, threads or usable_cores())
        self._outputs = [output.name for output in self._session.get_outputs()]
        probes: Sequence[Outputs] = ()
        if reading is None:
            self._input, probe = self._probed()
            reading, probes = self._reading(probe), probe.outputs
        else:
            self._input = inputs_of(self._session.get_inputs(), self.path)[0]
            self._batched, self._step = True, self._input.batch
        self.family = self._family(reading, family)
        self._decode = reading.decoders[self.family.name]
        self.classes: tuple[str, ...] = reading.classes or names_of(self.family.classes) or ()
        self.read_as = {
            "family": self.family.name,
            "input": f"{self._input.size[1]} x {self._input.size[0]}, "
            f"{self._input.dtype.__name__}, channels {'first' if self._input.axis == 1 else 'last'}, "
            f"{self.family.describe()}",
            "outputs": reading.what,
            "classes": str(len(self.classes)),
        }
        try:
            for outputs in probes:
                self._decoded(outputs, 0.5)
        except ImageError as error:
            raise DetectorError(f"{self.path}: {error}, though the image is blank; export it again") from error

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self._input.size

    def detect(self, images: Sequence[Pixels], score: float = 0.5) -> list[list[Detection]]:
        """Return the detections of each image above `score`, most confident first.

        Args:
            images: each (height, width, 3) uint8, RGB, upright; sizes may differ.
            score: detections at or below it are left out.

        Raises:
            ImageError: the detector returns an invalid box, such as NaN, for one of them.
            DetectorError: the detector cannot be run, or its outputs do not fit its family.
        """
        step = self._step or len(images)
        detections: list[list[Detection]] = []
        for start in range(0, len(images), max(1, step)):
            batch = images[start : start + step]
            fed = np.stack([self.family.fed(image, self.size, self._input.dtype) for image in batch])
            try:
                outputs = self._run(self._input, fed)
            except Exception as error:  # ONNX Runtime raises errors of many kinds
                raise DetectorError(f"{self.path}: failed on an image: {reason_of(error)}") from error
            for output, image in zip(self._each(outputs, len(batch)), batch, strict=True):
                detections.append(self._placed(self._decoded(output, score), image))
        return detections

    def _run(self, into: Input, batch: npt.NDArray[Any]) -> Outputs:
        """Run the network on (images, height, width, 3)."""
        count = len(batch)
        if into.batch and count < into.batch:
            batch = np.concatenate([batch, np.repeat(batch[-1:], into.batch - count, axis=0)])
        feed = {into.name: np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if into.axis == 1 else batch}
        if into.sizes:  # given the input's size, the network returns boxes in its pixels, like other families
            name, dtype = into.sizes
            feed[name] = np.tile(np.array([into.size[1], into.size[0]], dtype), (len(batch), 1))
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))

    def _each(self, outputs: Outputs, count: int) -> list[Outputs]:
        """Return the outputs of each of `count` images, except those of more than two dimensions (masks)."""
        named = {name.partition(":")[0]: values for name, values in outputs.items()}
        if self._batched:
            return [
                {name: values[place] for name, values in named.items() if 1 <= values.ndim <= 3 and len(values) > place}
                for place in range(count)
            ]
        return [{name: values for name, values in named.items() if values.ndim <= 2}]

    def _decoded(self, outputs: Outputs, score: float) -> Decoded:
        """Return the decoded outputs of one image.

        Raises:
            ImageError: a value is NaN, or a box has swapped sides or extends far beyond the input.
        """
        if _any_nan(outputs):
            raise ImageError(f"{self.name} returns NaN for it")
        try:
            decoded = self._decode(outputs, self.size, score)
        except ValueError as error:
            raise DetectorError(f"{self.path}: {error}; its family may be another: --family") from error
        if len(decoded.classes) and decoded.classes.max() >= len(self.classes):
            raise DetectorError(
                f"{self.path}: returned class {decoded.classes.max()}, but {self.family.name} numbers its classes 0 to "
                f"{len(self.classes) - 1}; its family may be another: --family"
            )
        boxes = decoded.boxes
        if len(boxes) and (
            (boxes[:, 2:] < boxes[:, :2]).any() or not (np.abs(boxes) <= _BEYOND * max(self.size)).all()
        ):
            raise ImageError(f"{self.name} returns an invalid box for it")
        return decoded

    def _placed(self, decoded: Decoded, image: Pixels) -> list[Detection]:
        """Scale boxes from pixels of the input to whole pixels of the image, and clip them to it."""
        height, width = image.shape[:2]
        scales = 1 / np.array(self.family.scale(image, self.size) * 2)
        boxes = np.clip(np.rint(decoded.boxes * scales), 0, [width, height] * 2).astype(int)
        detections = []
        for row in np.argsort(-decoded.scores, kind="stable"):
            label, box = self.classes[decoded.classes[row]], Box(*(int(side) for side in boxes[row]))
            if label and box.width > 0 and box.height > 0:
                detections.append(Detection(label, min(1.0, float(decoded.scores[row])), box))
        return detections

    def _probed(self) -> tuple[Input, Probe]:
        """Run the network on a blank image and on noise, since files often do not state the shapes of outputs."""
        names, task = _listed_classes(self._session.get_modelmeta().custom_metadata_map)
        if task not in ("", "detect"):
            raise DetectorError(f"{self.path}: is for the task `{task}`, not `detect`; give a detector")
        failures: list[Exception] = []
        for into in inputs_of(self._session.get_inputs(), self.path):
            noise = _noise((1, *into.size, 3)) * (255 if into.dtype is np.uint8 else 1)
            images = np.concatenate([np.zeros_like(noise), noise]).astype(into.dtype)
            # A file may declare any batch size, but accept only one image, or return outputs for only one.
            for step in (2, 1) if into.batch is None else (1,):
                try:
                    runs = [self._run(into, images[start : start + step]) for start in range(0, 2, step)]
                except Exception as error:  # ONNX Runtime raises errors of many kinds
                    failures.append(error)
                    continue
                tables = [values for run in runs for values in run.values() if values.ndim == 3]
                if step == 2 and (not tables or any(len(values) != step for values in tables)):
                    continue
                self._batched = bool(tables)
                self._step = 1 if not tables else into.batch or (None if step == 2 else 1)
                outputs = [output for run in runs for output in self._each(run, step)]
                return into, Probe(outputs, self._batched, into.size, names, into.sizes is not None)
        raise DetectorError(f"{self.path}: cannot be run: {reason_of(failures[0])}") from failures[0]

    def _reading(self, probe: Probe) -> Reading:
        listed = ", ".join(f"{name} {values.shape}" for name, values in probe.first.items())
        gives = f"its outputs for one image are {listed}"
        if any(_any_nan(outputs) for outputs in probe.outputs):
            raise DetectorError(f"{self.path}: returns NaN; {gives}; export it again")
        if probe.names and not set(probe.names) & set(NAMES):
            raise DetectorError(f"{self.path}: its classes are {', '.join(probe.names[:5])}, none of COCO's")
        try:
            reading = read_outputs(probe)
        except ValueError as error:
            raise DetectorError(f"{self.path}: {error}; {gives}") from error
        if reading is None:
            raise DetectorError(f"{self.path}: has an unsupported output format; {gives}; supported are {projects()}")
        return reading

    def _family(self, reading: Reading, family: str | None) -> Family:
        """Return the given family, or the only one that fits."""
        if family is not None and family not in reading.decoders:
            fitting = " or ".join(reading.decoders)
            raise DetectorError(f"{self.path}: returns {reading.what}, as {fitting} does; it is not of family {family}")
        likely = [family] if family is not None else list(reading.likely or reading.decoders)
        if len(likely) > 1:
            differ = "; ".join(
                f"{name}: {FAMILIES[name].describe()}, {FAMILIES[name].classes} classes" for name in likely
            )
            raise DetectorError(
                f"{self.path}: returns {reading.what}, as several families do ({differ}); name its family: "
                f"{' or '.join(f'--family {name}' for name in likely)}"
            )
        return FAMILIES[likely[0]]


def _listed_classes(metadata: dict[str, str]) -> tuple[tuple[str, ...] | None, str]:
    """Return the class names and the task from Ultralytics' metadata; None and "" if missing."""
    try:
        names = ast.literal_eval(metadata.get("names", ""))
        return tuple(str(names[number]) for number in range(len(names))), metadata.get("task", "")
    except (ValueError, SyntaxError, KeyError, TypeError):
        return None, metadata.get("task", "")


def _noise(shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return pseudo-random values from 0 to 1, without `numpy.random`, which takes 50 ms to load."""
    values: npt.NDArray[np.float64] = np.sin(np.arange(math.prod(shape))) * 43758.5453
    return (values - np.floor(values)).reshape(shape)


def _any_nan(outputs: Outputs) -> bool:
    return any(np.isnan(values).any() for values in outputs.values() if np.issubdtype(values.dtype, np.floating))


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    if reason := unusable(path):
        raise DetectorError(f"{path}: {reason}")
    try:
        return open_session(path, threads, path)
    except ValueError as error:
        raise DetectorError(f"{path}: cannot be loaded: {error}") from error
