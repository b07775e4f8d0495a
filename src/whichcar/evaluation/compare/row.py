"""What `compare` reads from one experiment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whichcar import files
from whichcar.evaluation.result_file import read_result
from whichcar.evaluation.result_folder import is_bundle
from whichcar.training.run.history import Epoch, read_history
from whichcar.training.run.refits import evaluated_in, experiment_name, refitted
from whichcar.training.run.test_uses import read_uses

_FIX = "leave this experiment out, or train it again"


@dataclass(frozen=True, slots=True)
class Row:
    """One experiment, as read from its files; fields from a missing file are empty."""

    folder: Path
    name: str
    result: dict[str, Any]
    history: tuple[Epoch, ...]
    settings: dict[str, Any]
    environment: dict[str, Any]
    best: dict[str, Any]

    @property
    def seconds(self) -> float:
        """Duration of the training; history.csv counts from the beginning, so its last epoch has the total."""
        return self.history[-1].seconds if self.history else 0.0

    @property
    def images_per_second(self) -> float:
        """The rate over all steps; 0 if nothing was timed.

        Every epoch has the same number of images, so it is the harmonic mean of the epochs' rates.
        """
        slowness = [1 / epoch.images_per_second for epoch in self.history if epoch.images_per_second > 0]
        return len(slowness) / sum(slowness) if slowness else 0.0

    @property
    def uses(self) -> int:
        """How often the images of the result have been used by this experiment, or by this bundle."""
        data, checkpoint = self.result["data"], self.result["checkpoint"]
        home, key = evaluated_in(self.folder), data["fingerprint"]
        if is_bundle(Path(checkpoint["file"])):
            home, key = self.folder.parent, f"{key} {checkpoint.get('blake2b')}"
        counted = read_uses(refitted(home) or home).get(key, {"times": 0})
        return int(max(counted["times"], data["evaluations"]))


def read_row(folder: Path) -> Row:
    """Read an experiment.

    Raises:
        DataError: one of its files is damaged.
    """

    def content(name: str, keys: dict[str, type]) -> dict[str, Any]:
        return files.read_json(folder / name, keys, _FIX) if (folder / name).is_file() else {}

    settings = content(files.RESOLVED, {"settings": dict}).get("settings", {})
    if (before := refitted(folder)) is not None and settings:  # its other settings were decided by the first training
        first = read_row(before).settings
        settings = first | {"data": first.get("data", {}) | {"train_on_validation": True}}
    return Row(
        folder=folder,
        name=experiment_name(folder),
        result=read_result(folder) if (folder / files.RESULT).is_file() else {},
        history=read_history(folder / files.HISTORY) if (folder / files.HISTORY).is_file() else (),
        settings=settings,
        environment=content(files.ENVIRONMENT, {}),
        best=content(files.BEST, {"blake2b?": str, "val_accuracy?": float, "epoch?": int, "image_size?": list}),
    )
