"""A detector's outputs on probe images: which output is which, in which unit and with how many classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from whichcar.detection.coco import NAMES, names_of
from whichcar.detection.decoders import Decoded

Outputs = dict[str, npt.NDArray[Any]]
Size = tuple[int, int]
Decode = Callable[[Outputs, Size, float], Decoded]
FRACTION = 2.0  # a box whose sides are all at most this is in fractions of the image, not in pixels
_REVERSED = 0.2  # fraction of boxes with right < left above which these are not corners
BOXES, SCORES, LABELS = ("box", "dets"), ("score", "conf", "prob", "logit"), ("label", "class", "cls")


@dataclass(frozen=True, slots=True)
class Reading:
    """How to decode outputs: `what` describes them; `decoders` has one for each family that may return such outputs.

    `classes`: names by number; None: the family's numbering. `likely`: the families to choose among if none is given;
    empty: all. A decoder takes one image's outputs, the (height, width) of the network's input and a minimum score.
    """

    what: str
    decoders: Mapping[str, Decode]
    classes: tuple[str, ...] | None = None
    likely: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """A detector's outputs for two probe images: blank and noise.

    `outputs`: of each image. `batched`: whether outputs have an axis of images. `size`: (height, width) of the input.
    `names`: the classes that the file lists, if any. `sized`: whether the image's size is another input.
    """

    outputs: Sequence[Outputs]
    batched: bool
    size: Size
    names: tuple[str, ...] | None = None
    sized: bool = False

    @property
    def first(self) -> Outputs:
        """The outputs for the first image."""
        return self.outputs[0]

    def all(self, name: str, count: str | None = None) -> npt.NDArray[Any]:
        """Return the rows of an output for all images; `count` names the output with the number of rows."""
        return np.concatenate([outputs[name][real_rows(outputs, count)] for outputs in self.outputs])


def real_rows(outputs: Outputs, count: str | None) -> slice:
    """Return the rows that are not padding, if an output has their number, else all."""
    return slice(None) if count is None else slice(max(0, int(outputs[count].reshape(-1)[0])))


def table_of(outputs: Outputs, columns: int) -> str | None:
    """Return the name of the output with this number of columns; of several, the one named for boxes."""
    return chosen([name for name, values in outputs.items() if values.ndim == 2 and values.shape[1] == columns], BOXES)


def only_table(outputs: Outputs) -> str | None:
    """Return the name of the only output, if it has rows and columns."""
    return next(iter(outputs)) if len(outputs) == 1 and next(iter(outputs.values())).ndim == 2 else None


def vectors_of(probe: Probe, boxes: str) -> tuple[str | None, str, str | None] | None:
    """Return the names of the outputs with scores, labels and the number of boxes; all but labels may be missing."""
    outputs = probe.first
    count = next((name for name, values in outputs.items() if name.startswith("num") and values.size == 1), None)
    length = len(outputs[boxes])
    vectors = [name for name, values in outputs.items() if values.shape == (length,) and name != count]
    labels = chosen([name for name in vectors if named(name, LABELS)], LABELS)
    labels = labels or chosen([name for name in vectors if np.issubdtype(outputs[name].dtype, np.integer)], LABELS)
    if labels is None:
        return None
    return chosen([name for name in vectors if name != labels], SCORES), labels, count


def chosen(names: Sequence[str] | Mapping[str, Any], words: Sequence[str]) -> str | None:
    """Return the only name, or the only one that contains one of the words."""
    among = list(names) if len(names) < 2 else [name for name in names if named(name, words)]
    return among[0] if len(among) == 1 else None


def named(name: str, words: Sequence[str]) -> bool:
    """Return whether a name contains one of the words."""
    return any(word in name.lower() for word in words)


def classes_of(count: int, names: tuple[str, ...] | None, dense: bool = False) -> tuple[str, ...] | None:
    """Return the names of `count` classes: the file's, else COCO's; dense outputs have COCO's 80 classes."""
    if names is not None:
        return names if len(names) == count else None
    return names_of(count) if count == len(NAMES) or not dense else None


def check_scores(values: npt.NDArray[Any]) -> None:
    """Raise a ValueError if a score is below 0 or above 1."""
    if ((values < 0) | (values > 1.001)).any():
        raise ValueError(f"its scores range from {values.min():.3g} to {values.max():.3g}, not from 0 to 1")


def corners_in(boxes: npt.NDArray[Any], size: Size) -> str | None:
    """Return `fractions` or `pixels`, the unit of corners; None if there are no boxes.

    Raises:
        ValueError: the values are not corners of boxes inside an input of `size`.
    """
    real = boxes[(boxes != 0).any(axis=1)]
    if not len(real):
        return None
    if (real[:, 2:] < real[:, :2]).any(axis=1).mean() > _REVERSED:
        raise ValueError("its boxes are not left, top, right, bottom")
    if np.abs(real).max() > 3 * max(size):
        raise ValueError(f"its boxes extend to {np.abs(real).max():.3g}, beyond an input of {size[0]} x {size[1]}")
    return unit_of(real)


def unit_of(boxes: npt.NDArray[Any]) -> str:
    """Return `fractions` if all numbers are small enough for fractions of an image's sides, else `pixels`."""
    return "fractions" if np.abs(boxes).max(initial=0) <= FRACTION and boxes.any() else "pixels"


def sides_of(size: Size) -> npt.NDArray[np.float32]:
    """Return (width, height, width, height), the factors from fractions to pixels."""
    return np.array([size[1], size[0]] * 2, np.float32)
