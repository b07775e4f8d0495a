"""The input format and class numbering of each project's detectors, which an ONNX file does not contain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from whichcar.images.pixels import Pixels

_GREY = 114  # border value that most detectors were trained with
# ImageNet's mean and standard deviation, in RGB order, for values of 0..1.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)


@dataclass(frozen=True, slots=True)
class Family:
    """The input that one project's detectors expect.

    `letterbox`: the image keeps its aspect ratio, in the upper left corner, and the rest is grey; else it is stretched.
    `bgr`: channels are blue, green, red. `full`: values 0..255, else 0..1. `standardised`: normalized with ImageNet's
    mean and standard deviation. `classes`: 80 or 91, the numbering of labels (`coco.names_of`).
    """

    name: str
    projects: str
    letterbox: bool
    bgr: bool = False
    full: bool = False
    standardised: bool = False
    classes: int = 80

    def scale(self, image: Pixels, size: tuple[int, int]) -> tuple[float, float]:
        """Return the factors (horizontal, vertical) that scale an image to fit into (height, width)."""
        down, across = size[0] / image.shape[0], size[1] / image.shape[1]
        return (min(across, down),) * 2 if self.letterbox else (across, down)

    def fed(self, image: Pixels, size: tuple[int, int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an RGB image in the network's input format: (height, width, 3) of `size` and `dtype`.

        A network with integer input scales the values itself.
        """
        scale = self.scale(image, size)
        inner = (size[1], size[0])
        if self.letterbox:
            inner = (max(1, int(image.shape[1] * scale[0])), max(1, int(image.shape[0] * scale[1])))
        small = np.asarray(Image.fromarray(image).resize(inner, Image.Resampling.BILINEAR))
        ready = np.full((*size, 3), _GREY, np.float32)
        ready[: inner[1], : inner[0]] = small
        if not np.issubdtype(dtype, np.integer):
            if not self.full:
                ready /= 255
            if self.standardised:
                ready = (ready - _MEAN) / _DEVIATION
        return (ready[:, :, ::-1] if self.bgr else ready).astype(dtype)

    def describe(self) -> str:
        """Describe the input format in words."""
        values = "standardised" if self.standardised else "0..255" if self.full else "0..1"
        shape = "letterboxed" if self.letterbox else "stretched"
        return f"{'BGR' if self.bgr else 'RGB'} {values}, {shape}"


FAMILIES = {
    family.name: family
    for family in (
        Family("yolox", "YOLOX", letterbox=True, bgr=True, full=True),
        Family("yolo", "YOLOv5 to YOLOv12 and YOLO26", letterbox=True),
        Family("yolo-nas", "YOLO-NAS", letterbox=True),
        Family("damo-yolo", "DAMO-YOLO", letterbox=False, full=True),
        Family("rt-detr", "RT-DETR, D-FINE, DEIM", letterbox=False),
        Family("rf-detr", "RF-DETR", letterbox=False, standardised=True, classes=91),
        Family("torchvision", "torchvision", letterbox=True, classes=91),
        Family("tensorflow", "TensorFlow Object Detection", letterbox=False, full=True, classes=91),
        Family("mmdet", "MMDetection", letterbox=True, standardised=True),
        Family("rtmdet", "RTMDet of MMDetection", letterbox=True, standardised=True, bgr=True),
    )
}


def projects() -> str:
    """Return the projects whose detectors are supported, as a list in words."""
    return ", ".join(family.projects for family in FAMILIES.values())
