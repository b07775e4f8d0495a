"""The input of a detector's ONNX file: channel order, type, size and batch size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from whichcar.errors import DetectorError

if TYPE_CHECKING:
    import onnxruntime

SIDE = 640  # of the input, if the file does not fix it
_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(uint8)": np.uint8,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}
_IMAGES = (np.float32, np.float16, np.uint8)
_SIZES = (np.int32, np.int64)


class Input(NamedTuple):
    """The input for images; `axis` is the channels' axis, 1 or 3; `batch` is its fixed batch size, if any.

    `sizes` is the name and type of the input for the images' sizes, as in RT-DETR's and D-FINE's own exports.
    """

    name: str
    dtype: type[np.generic]
    axis: int
    size: tuple[int, int]
    batch: int | None
    sizes: tuple[str, type[np.generic]] | None


def inputs_of(feeds: Sequence[onnxruntime.NodeArg], path: Path) -> list[Input]:
    """Return the ways to feed a file with these inputs, most likely first.

    Raises:
        DetectorError: the file does not accept images, or requires more than images and their sizes.
    """
    listed = ", ".join(f"{feed.name} {feed.type} {feed.shape}" for feed in feeds)
    images = [feed for feed in feeds if len(feed.shape) == 4 and _TYPES.get(feed.type) in _IMAGES]
    others = [feed for feed in feeds if feed not in images]
    sizes = [
        feed for feed in others
        if len(feed.shape) == 2 and feed.shape[1] in (2, None) and _TYPES.get(feed.type) in _SIZES
    ]  # fmt: skip
    axes = _channel_axes(images[0].shape) if len(images) == 1 else []
    if not axes or len(others) > 1 or others != sizes:
        raise DetectorError(
            f"{path}: its inputs are {listed}; a detector takes (images, 3, height, width) or "
            "(images, height, width, 3), float or uint8, and at most the images' sizes as well"
        )
    shape, dtype = images[0].shape, _TYPES[images[0].type]
    batch = shape[0] if isinstance(shape[0], int) else None
    sized = (sizes[0].name, _TYPES[sizes[0].type]) if sizes else None
    sides = {axis: shape[2:] if axis == 1 else shape[1:3] for axis in axes}
    return [
        Input(images[0].name, dtype, axis, (_or(sides[axis][0], SIDE), _or(sides[axis][1], SIDE)), batch, sized)
        for axis in axes
    ]


def _channel_axes(shape: Sequence[int | str | None]) -> list[int]:
    """Return the possible axes of the three channels, most likely first: 1, 3 or both."""
    if fixed := [axis for axis in (1, 3) if shape[axis] == 3]:
        return fixed
    named = [axis for axis in (1, 3) if "channel" in str(shape[axis])]
    return named or [axis for axis in (1, 3) if not isinstance(shape[axis], int)]


def _or(side: int | str | None, default: int) -> int:
    return side if isinstance(side, int) else default
