"""Identify make, model and year of the vehicles in an image.

The names below are loaded when they are first used, so that `import whichcar` costs almost nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING

from whichcar.version import VERSION

if TYPE_CHECKING:
    from whichcar.config.load import load_config
    from whichcar.data.check.check import check
    from whichcar.data.explore.explore import explore, look
    from whichcar.data.fetch.fetch import fetch
    from whichcar.data.split.split import split
    from whichcar.detection.crop import crop
    from whichcar.detection.detection import get_vehicle_coordinates
    from whichcar.evaluation.compare.experiments import compare
    from whichcar.evaluation.evaluate import evaluate
    from whichcar.exporting.export import export
    from whichcar.inference.classifier import Classifier
    from whichcar.inference.predict import predict, predict_from_folder
    from whichcar.search.driver import sweep
    from whichcar.serving.client import Client
    from whichcar.serving.serve import serve
    from whichcar.training.network.data_aug import create_data_aug_layer
    from whichcar.training.network.resnet50 import create_model
    from whichcar.training.new import new
    from whichcar.training.refit import refit
    from whichcar.training.train import train

# Read when the package is imported, anywhere: no usage data is sent to its developers, no identifier kept in ~/.cache.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # huggingface_hub

__version__ = VERSION

__all__ = [
    "Classifier",
    "Client",
    "check",
    "compare",
    "create_data_aug_layer",
    "create_model",
    "crop",
    "evaluate",
    "explore",
    "export",
    "fetch",
    "get_vehicle_coordinates",
    "load_config",
    "look",
    "new",
    "predict",
    "predict_from_folder",
    "refit",
    "serve",
    "split",
    "sweep",
    "train",
]

_HOMES = {
    "Classifier": "whichcar.inference.classifier",
    "Client": "whichcar.serving.client",
    "check": "whichcar.data.check.check",
    "compare": "whichcar.evaluation.compare.experiments",
    "create_data_aug_layer": "whichcar.training.network.data_aug",
    "create_model": "whichcar.training.network.resnet50",
    "crop": "whichcar.detection.crop",
    "evaluate": "whichcar.evaluation.evaluate",
    "explore": "whichcar.data.explore.explore",
    "export": "whichcar.exporting.export",
    "fetch": "whichcar.data.fetch.fetch",
    "get_vehicle_coordinates": "whichcar.detection.detection",
    "load_config": "whichcar.config.load",
    "look": "whichcar.data.explore.explore",
    "new": "whichcar.training.new",
    "predict": "whichcar.inference.predict",
    "predict_from_folder": "whichcar.inference.predict",
    "refit": "whichcar.training.refit",
    "serve": "whichcar.serving.serve",
    "split": "whichcar.data.split.split",
    "sweep": "whichcar.search.driver",
    "train": "whichcar.training.train",
}


def __getattr__(name: str) -> object:
    """Import a public name from its module and cache it (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'whichcar' has no attribute {name!r}; it has {', '.join(__all__)}")
    found: object = getattr(importlib.import_module(home), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted([*globals(), *__all__])
