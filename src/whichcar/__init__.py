"""Tells make, model and year from a picture of a car.

The names below are loaded when they are first used, so that `import whichcar` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from whichcar.version import VERSION

if TYPE_CHECKING:
    from whichcar.config_file import load_config
    from whichcar.data.check import check
    from whichcar.data.fetch import fetch
    from whichcar.data.look import explore, look
    from whichcar.data.split import split
    from whichcar.detection.crop import crop
    from whichcar.detection.detection import get_vehicle_coordinates
    from whichcar.evaluation.classifier import Classifier
    from whichcar.evaluation.compare import compare
    from whichcar.evaluation.evaluate import evaluate
    from whichcar.evaluation.predict import predict, predict_from_folder
    from whichcar.training.data_aug import create_data_aug_layer
    from whichcar.training.resnet50 import create_model
    from whichcar.training.sweep.driver import sweep
    from whichcar.training.train import train

__version__ = VERSION

__all__ = [
    "Classifier",
    "check",
    "compare",
    "create_data_aug_layer",
    "create_model",
    "crop",
    "evaluate",
    "explore",
    "fetch",
    "get_vehicle_coordinates",
    "load_config",
    "look",
    "predict",
    "predict_from_folder",
    "split",
    "sweep",
    "train",
]

_HOMES = {
    "Classifier": "whichcar.evaluation.classifier",
    "check": "whichcar.data.check",
    "compare": "whichcar.evaluation.compare",
    "create_data_aug_layer": "whichcar.training.data_aug",
    "create_model": "whichcar.training.resnet50",
    "crop": "whichcar.detection.crop",
    "evaluate": "whichcar.evaluation.evaluate",
    "explore": "whichcar.data.look",
    "fetch": "whichcar.data.fetch",
    "get_vehicle_coordinates": "whichcar.detection.detection",
    "load_config": "whichcar.config_file",
    "look": "whichcar.data.look",
    "predict": "whichcar.evaluation.predict",
    "predict_from_folder": "whichcar.evaluation.predict",
    "split": "whichcar.data.split",
    "sweep": "whichcar.training.sweep.driver",
    "train": "whichcar.training.train",
}


def __getattr__(name: str) -> object:
    """Load a public name from its home and keep it (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'whichcar' has no attribute {name!r}; it has {', '.join(__all__)}")
    found: object = getattr(importlib.import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted([*globals(), *__all__])
