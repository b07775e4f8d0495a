"""The records that travel between stages. Conventions are written here, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Label:
    """One row of the label file: a picture's name, its true class name and its subset (`train`, `test`)."""

    img_name: str
    class_name: str
    subset: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture on disk and the number of its class in the sorted list of class folders."""

    path: Path
    class_index: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that could not be used, and why, in a few words."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Prediction:
    """The k best classes of one picture, best first; probabilities are 0..1 and belong to `classes` by place."""

    path: Path
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def best(self) -> str:
        """The most probable class."""
        return self.classes[0]
