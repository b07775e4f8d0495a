"""Detectors as ONNX files, run by ONNX Runtime: what goes in, and how what comes out is read."""

from __future__ import annotations

import ast
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from whichcar.detection.coco import NAMES, names_of
from whichcar.detection.decoders import Decoded
from whichcar.detection.families import FAMILIES, Family, projects
from whichcar.detection.onnx_errors import reason_of, unusable
from whichcar.detection.onnx_input import Input, inputs_of
from whichcar.detection.outputs import read_outputs
from whichcar.detection.probe import Outputs, Probe, Reading
from whichcar.errors import DetectorError, ImageError
from whichcar.records import Box, Detection

if TYPE_CHECKING:
    import onnxruntime

log = logging.getLogger(__name__)

Picture = npt.NDArray[np.uint8]
_BEYOND = 3  # times the input's side: a box that reaches so far is none


class OnnxDetector:
    """A detector in an ONNX file; may be asked from several threads at once.

    Args:
        path: the file.
        name: what to call it (default: the file's name).
        threads: processors one call may use (default: all); several callers do best with one each.
        family: of `FAMILIES`; default: recognised from what the file gives for two images that show nothing.

    `read_as` says in words how images are fed and outputs read.

    Raises:
        DetectorError: the file is missing, is no ONNX model, of no family that is known here, or of several.
    """

    def __init__(self, path: str | Path, name: str = "", threads: int | None = None, family: str | None = None) -> None:
        """Load the file and run it on two images."""
        self.path = Path(path)
        self.name = name or self.path.name
        self._session = _session(self.path, threads or len(os.sched_getaffinity(0)))
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._input, probe = self._probed()
        reading = self._reading(probe)
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
            for one in probe.outputs:
                self._decoded(one, 0.5)
        except ImageError as error:
            raise DetectorError(f"{self.path}: {error}, though the image is blank; export it again") from error

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self._input.size

    def detect(self, images: Sequence[Picture], score: float = 0.5) -> list[list[Detection]]:
        """Return what is seen in each image above `score`, most confident first.

        Args:
            images: each (height, width, 3) uint8, RGB, upright; sizes may differ.
            score: objects at or below it are left out.

        Raises:
            ImageError: the detector gives a box that cannot be, such as one that is not a number, for one of them.
            DetectorError: it cannot be run, or gives what its family does not.
        """
        step = self._step or len(images)
        answers: list[list[Detection]] = []
        for start in range(0, len(images), max(1, step)):
            some = images[start : start + step]
            fed = np.stack([self.family.fed(image, self.size, self._input.dtype) for image in some])
            try:
                outputs = self._run(self._input, fed)
            except Exception as error:  # ONNX Runtime raises errors of many kinds
                raise DetectorError(f"{self.path}: failed on an image: {reason_of(error)}") from error
            for one, image in zip(self._each(outputs, len(some)), some, strict=True):
                answers.append(self._placed(self._decoded(one, score), image))
        return answers

    def _run(self, into: Input, batch: npt.NDArray[Any]) -> Outputs:
        """Run the network on (images, height, width, 3)."""
        count = len(batch)
        if into.batch and count < into.batch:
            batch = np.concatenate([batch, np.repeat(batch[-1:], into.batch - count, axis=0)])
        feed = {into.name: np.ascontiguousarray(batch.transpose(0, 3, 1, 2)) if into.axis == 1 else batch}
        if into.sizes:  # asked for boxes in pixels of the input, it answers as the other families do
            name, dtype = into.sizes
            feed[name] = np.tile(np.array([into.size[1], into.size[0]], dtype), (len(batch), 1))
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))

    def _each(self, outputs: Outputs, count: int) -> list[Outputs]:
        """Return the outputs of each of `count` images, without those that are more than rows and columns (masks)."""
        named = {name.partition(":")[0]: values for name, values in outputs.items()}
        if self._batched:
            return [
                {name: values[place] for name, values in named.items() if 1 <= values.ndim <= 3 and len(values) > place}
                for place in range(count)
            ]
        return [{name: values for name, values in named.items() if values.ndim <= 2}]

    def _decoded(self, outputs: Outputs, score: float) -> Decoded:
        """Return what an image's outputs say.

        Raises:
            ImageError: a value that is not a number, or a box whose sides are the wrong way round or beyond the input.
        """
        if _any_nan(outputs):
            raise ImageError(f"{self.name} gives values for it that are not numbers")
        try:
            found = self._decode(outputs, self.size, score)
        except ValueError as error:
            raise DetectorError(f"{self.path}: {error}; its family may be another: --family") from error
        if len(found.classes) and found.classes.max() >= len(self.classes):
            raise DetectorError(
                f"{self.path}: gave class {found.classes.max()}, but its classes are counted 0 to "
                f"{len(self.classes) - 1} as {self.family.name} counts them; its family may be another: --family"
            )
        boxes = found.boxes
        if len(boxes) and (
            (boxes[:, 2:] < boxes[:, :2]).any() or not (np.abs(boxes) <= _BEYOND * max(self.size)).all()
        ):
            raise ImageError(f"{self.name} gives a box for it that cannot be")
        return found

    def _placed(self, decoded: Decoded, image: Picture) -> list[Detection]:
        """Bring boxes from pixels of the input to whole pixels of the image, inside of it."""
        height, width = image.shape[:2]
        scales = 1 / np.array(self.family.scale(image, self.size) * 2)
        boxes = np.clip(np.rint(decoded.boxes * scales), 0, [width, height] * 2).astype(int)
        found = []
        for row in np.argsort(-decoded.scores, kind="stable"):
            label, box = self.classes[decoded.classes[row]], Box(*(int(side) for side in boxes[row]))
            if label and box.width > 0 and box.height > 0:
                found.append(Detection(label, min(1.0, float(decoded.scores[row])), box))
        return found

    def _probed(self) -> tuple[Input, Probe]:
        """Run a blank image and noise through the network, since files often leave the shapes of outputs open."""
        names, task = _listed_classes(self._session.get_modelmeta().custom_metadata_map)
        if task not in ("", "detect"):
            raise DetectorError(f"{self.path}: is for the task `{task}`, not `detect`; give a detector")
        failures: list[Exception] = []
        for into in inputs_of(self._session.get_inputs(), self.path):
            noise = np.random.default_rng(0).random((1, *into.size, 3)) * (255 if into.dtype is np.uint8 else 1)
            images = np.concatenate([np.zeros_like(noise), noise]).astype(into.dtype)
            # A file may say that it takes any number of images, and take one, or answer for one.
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
                outputs = [one for run in runs for one in self._each(run, step)]
                return into, Probe(outputs, self._batched, into.size, names, into.sizes is not None)
        raise DetectorError(f"{self.path}: cannot be run: {reason_of(failures[0])}") from failures[0]

    def _reading(self, probe: Probe) -> Reading:
        listed = ", ".join(f"{name} {values.shape}" for name, values in probe.first.items())
        gives = f"for one image it gives {listed}"
        if any(_any_nan(one) for one in probe.outputs):
            raise DetectorError(f"{self.path}: gives values that are not numbers; {gives}; export it again")
        if probe.names and not set(probe.names) & set(NAMES):
            raise DetectorError(f"{self.path}: its classes are {', '.join(probe.names[:5])}, none of COCO's")
        try:
            reading = read_outputs(probe)
        except ValueError as error:
            raise DetectorError(f"{self.path}: {error}; {gives}") from error
        if reading is None:
            raise DetectorError(
                f"{self.path}: no detector of COCO's classes that is known here; {gives}; known are {projects()}"
            )
        return reading

    def _family(self, reading: Reading, family: str | None) -> Family:
        """Return the family asked for, or the only one that fits."""
        if family is not None and family not in reading.decoders:
            fitting = " or ".join(reading.decoders)
            raise DetectorError(f"{self.path}: gives {reading.what}, as {fitting} does; it is not of family {family}")
        likely = [family] if family is not None else list(reading.likely or reading.decoders)
        if len(likely) > 1:
            differ = "; ".join(
                f"{name}: {FAMILIES[name].describe()}, {FAMILIES[name].classes} classes" for name in likely
            )
            raise DetectorError(
                f"{self.path}: gives {reading.what}, as several families do ({differ}); tell `whichcar crop` which it "
                f"is of: {' or '.join(f'--family {name}' for name in likely)}"
            )
        return FAMILIES[likely[0]]


def _listed_classes(metadata: dict[str, str]) -> tuple[tuple[str, ...] | None, str]:
    """Return the class names and the task that Ultralytics writes into its files; None and "" where there are none."""
    try:
        names = ast.literal_eval(metadata.get("names", ""))
        return tuple(str(names[number]) for number in range(len(names))), metadata.get("task", "")
    except (ValueError, SyntaxError, KeyError, TypeError):
        return None, metadata.get("task", "")


def _any_nan(outputs: Outputs) -> bool:
    return any(np.isnan(values).any() for values in outputs.values() if np.issubdtype(values.dtype, np.floating))


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    if said := unusable(path):
        raise DetectorError(f"{path}: {said}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Waiting threads would take the processors from those that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    usable = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in usable if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime raises errors of many kinds
        raise DetectorError(f"{path}: cannot be loaded: {reason_of(error)}") from error
    if session.get_providers()[0] != providers[0]:  # it goes on without a word
        log.warning("%s: runs on the processor, since onnxruntime could not use CUDA; look at its drivers", path)
    return session
