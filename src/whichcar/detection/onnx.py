"""Detectors as ONNX files, run by ONNX Runtime: what goes in, which decoder reads what comes out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from whichcar.detection.coco import names_of
from whichcar.detection.decoders import Decoded, decode_end_to_end, decode_grid, decode_queries
from whichcar.errors import DetectorError
from whichcar.records import Box, Detection

if TYPE_CHECKING:
    import onnxruntime

Picture = npt.NDArray[np.uint8]
Outputs = dict[str, npt.NDArray[Any]]
SIDE = 640  # of the input, where the file leaves it open
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_GREY = 114  # what YOLOX was trained to see beside the picture
# Of the ImageNet pictures that RF-DETR's backbone was trained on.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_COCO_NUMBERS = 91


@dataclass(frozen=True, slots=True)
class Family:
    """How one family is fed and read.

    `letterbox`: the picture keeps its aspect, in the upper left corner, and grey fills the rest; else it is squeezed.
    `bgr`: channels from blue to red, and values 0..255; else from red to blue, and 0..1. `standardised`: mean and
    deviation of ImageNet are taken out. `decode` takes one picture's outputs, the input's (height, width) and a score.
    """

    name: str
    letterbox: bool
    bgr: bool
    standardised: bool
    classes: tuple[str, ...]
    decode: Callable[[Outputs, tuple[int, int], float], Decoded]


class OnnxDetector:
    """A detector in an ONNX file; may be asked from several threads at once.

    Args:
        path: the file. Its family is told from its outputs (`family_of`).
        name: what to call it (default: the file's name).
        threads: processors one call may use (default: all); several callers do best with one each.

    Raises:
        DetectorError: the file is missing, is no ONNX model, or of no family that is known here.
    """

    def __init__(self, path: Path, name: str = "", threads: int | None = None) -> None:
        """Load the file."""
        self.name = name or path.name
        self.path = path
        self._session = _session(path, threads or len(os.sched_getaffinity(0)))
        feeds = self._session.get_inputs()
        images = feeds[0]
        if len(images.shape) != 4 or images.shape[1] != 3 or images.type not in _TYPES:
            raise DetectorError(
                f"{path}: its input {images.name} is {images.type} {images.shape}; a detector takes float pictures as "
                "(pictures, 3, height, width)"
            )
        self._images, self._dtype = images.name, _TYPES[images.type]
        self._sizes = (
            feeds[1].name if len(feeds) > 1 else None
        )  # orig_target_sizes of RT-DETR's and D-FINE's own export
        self.size: tuple[int, int] = (_or(images.shape[2], SIDE), _or(images.shape[3], SIDE))
        self._batch = images.shape[0] if isinstance(images.shape[0], int) else None
        self.family = self._tell_family()

    def detect(self, images: Sequence[Picture], score: float = 0.5) -> list[list[Detection]]:
        """Return what is seen in each picture above `score` (0..1), surest first.

        Args:
            images: each (height, width, 3) uint8, RGB, upright; sizes may differ.
            score: objects at or below it are left out.
        """
        step = self._batch or len(images)
        answers: list[list[Detection]] = []
        for start in range(0, len(images), max(1, step)):
            some = images[start : start + step]
            outputs = self._run(np.stack([self._prepared(image) for image in some]))
            for place, image in enumerate(some):
                mine = {name: values[place] for name, values in outputs.items()}
                answers.append(self._placed(self.family.decode(mine, self.size, score), image))
        return answers

    def _prepared(self, image: Picture) -> npt.NDArray[Any]:
        """Return one picture as the network takes it: (3, height, width)."""
        height, width = self.size
        if self.family.letterbox:
            scale = self._scale(image)
            inner = (max(1, int(image.shape[1] * scale)), max(1, int(image.shape[0] * scale)))
        else:
            inner = (width, height)
        small = np.asarray(Image.fromarray(image).resize(inner, Image.Resampling.BILINEAR))
        ready = np.full((3, height, width), _GREY, np.float32)
        ready[:, : inner[1], : inner[0]] = small[:, :, :: -1 if self.family.bgr else 1].transpose(2, 0, 1)
        if not self.family.bgr:
            ready /= 255
        if self.family.standardised:
            ready -= np.array(_MEAN, np.float32)[:, None, None]
            ready /= np.array(_DEVIATION, np.float32)[:, None, None]
        return ready.astype(self._dtype, copy=False)

    def _run(self, batch: npt.NDArray[Any]) -> Outputs:
        count = len(batch)
        if self._batch and count < self._batch:
            batch = np.concatenate([batch, np.repeat(batch[-1:], self._batch - count, axis=0)])
        feed = {self._images: batch}
        if self._sizes:  # asked for boxes in pixels of the input, it answers as the other families do
            feed[self._sizes] = np.tile(np.array([self.size[1], self.size[0]], np.int64), (len(batch), 1))
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, feed), strict=True))

    def _placed(self, decoded: Decoded, image: Picture) -> list[Detection]:
        """Bring boxes from pixels of the input to whole pixels of the picture, inside of it."""
        height, width = image.shape[:2]
        if self.family.letterbox:
            scales = np.full(4, 1 / self._scale(image))
        else:
            scales = np.array([width / self.size[1], height / self.size[0]] * 2)
        boxes = np.clip(np.rint(decoded.boxes * scales), 0, [width, height] * 2).astype(int)
        found = []
        for row in np.argsort(-decoded.scores, kind="stable"):
            if decoded.classes[row] >= len(self.family.classes):
                raise DetectorError(
                    f"{self.path}: gave class {decoded.classes[row]}, but classes are counted 0 to "
                    f"{len(self.family.classes) - 1} here; export it with the 80 classes of COCO in order"
                )
            label, box = self.family.classes[decoded.classes[row]], Box(*(int(side) for side in boxes[row]))
            if label and box.width > 0 and box.height > 0:
                found.append(Detection(label, float(decoded.scores[row]), box))
        return found

    def _scale(self, image: Picture) -> float:
        height, width = image.shape[:2]
        return min(self.size[0] / int(height), self.size[1] / int(width))

    def _tell_family(self) -> Family:
        """Run a grey picture through the network, since files often leave the shapes of outputs open."""
        grey = np.zeros((self._batch or 1, 3, *self.size), self._dtype)
        try:
            outputs = self._run(grey)
        except Exception as error:  # ONNX Runtime raises errors of many kinds
            raise DetectorError(
                f"{self.path}: cannot be run on pictures of {self.size} ({_first_line(error)})"
            ) from error
        first = {name: values[0] for name, values in outputs.items()}
        family = family_of(first, self.path)
        try:
            family.decode(first, self.size, 0.5)
        except ValueError as error:
            raise DetectorError(f"{self.path}: is no detector that is known here ({error})") from error
        return family


def family_of(outputs: Outputs, path: Path) -> Family:
    """Tell from one picture's outputs how a detector is to be fed and read.

    - one output (cells, 85): a raw grid, as YOLOX gives it;
    - (queries, 4) and (queries, 80 or 91) of decimals: boxes and logits, as RT-DETR, D-FINE (80) and RF-DETR (91) give
      them; those with 91 classes are fed standardised pictures;
    - (n, 4), scores (n,) and labels (n,), or (n, 5) and labels (n,): end to end; labels count the 80 classes from 0.

    Raises:
        DetectorError: none of these, or not the classes of COCO.
    """
    shapes = {name: values.shape for name, values in outputs.items()}
    flat = {name for name, shape in shapes.items() if len(shape) == 1}
    wide = {name: shape[1] for name, shape in shapes.items() if len(shape) == 2}
    if len(wide) == 1 and not flat:
        ((name, columns),) = wide.items()
        if classes := names_of(columns - 5):
            return Family("grid", True, True, False, classes, lambda o, size, score: decode_grid(o[name], size, score))
    if len(wide) == 2 and not flat and 4 in wide.values():
        boxes = next(name for name, columns in wide.items() if columns == 4)
        logits = next(name for name in wide if name != boxes)
        if classes := names_of(wide[logits]):
            return Family(
                "queries", False, False, len(classes) == _COCO_NUMBERS, classes,
                lambda o, size, score: decode_queries(o[logits], o[boxes], size, score),
            )  # fmt: skip
    if len(wide) == 1 and flat and (read := _end_to_end(outputs, wide, flat)):
        return Family("end to end", False, False, False, names_of(80) or (), read)
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    raise DetectorError(
        f"{path}: no detector of COCO's classes that is known here; for one picture it gives {listed}; known are YOLOX "
        "(cells, 85), RT-DETR, D-FINE and RF-DETR (boxes and logits), and end-to-end ones (boxes, scores, labels)"
    )


def _end_to_end(
    outputs: Outputs, wide: dict[str, int], flat: set[str]
) -> Callable[[Outputs, tuple[int, int], float], Decoded] | None:
    boxes, columns = next(iter(wide.items()))
    labels = next((name for name in flat if np.issubdtype(outputs[name].dtype, np.integer)), None)
    scores = next((name for name in flat if name != labels), None)
    if labels and scores and columns == 4:
        return lambda o, _, score: decode_end_to_end(o[boxes], o[scores], o[labels], score)
    if labels and not scores and columns == 5:
        return lambda o, _, score: decode_end_to_end(o[boxes][:, :4], o[boxes][:, 4], o[labels], score)
    return None


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    if not path.is_file():
        raise DetectorError(f"{path}: no such detector file; give an .onnx file")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Waiting threads would take the processors from those that decode pictures.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    usable = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [name for name in usable if name in onnxruntime.get_available_providers()]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime raises errors of many kinds
        raise DetectorError(
            f"{path}: cannot be loaded as an ONNX model ({_first_line(error)}); fetch it again"
        ) from error


def _or(side: int | str | None, open_one: int) -> int:
    return side if isinstance(side, int) else open_one


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
