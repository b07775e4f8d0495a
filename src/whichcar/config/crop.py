"""The settings of the crop stage, once: kinds, limits, defaults, meanings; the command's options come from here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError

from whichcar.config.messages import messages
from whichcar.config.section import Section
from whichcar.errors import ConfigError

SCORE = 0.5
VEHICLES = ("car", "truck")


class CropSettings(Section):
    """How an image is cut to its vehicle; recorded next to the crops and with a checkpoint trained on them."""

    detector: str | None = Field(
        None, description="a name (whichcar detectors), PATH.onnx or detectron2; default: yolox-nano"
    )
    family: (
        Literal[
            "yolox",
            "yolo",
            "yolo-nas",
            "damo-yolo",
            "rt-detr",
            "rf-detr",
            "torchvision",
            "tensorflow",
            "mmdet",
            "rtmdet",
        ]
        | None
    ) = Field(None, description="project that a detector file comes from; default: recognised from its outputs")
    score: float = Field(SCORE, ge=0, lt=1, description="a vehicle counts when it is more confident than this")
    classes: tuple[str, ...] = Field(VEHICLES, min_length=1, description="COCO classes that count as vehicles")
    choice: Literal["largest", "central"] = Field(
        "largest", description="of several: the largest, or the largest weighted by nearness to the centre"
    )
    margin: float = Field(0.0, ge=0, le=1, description="kept around the box, as a share of its sides")
    min_size: int = Field(1, ge=1, description="a vehicle counts when its shorter side has as many pixels")
    missing: Literal["whole", "skip", "fail"] = Field(
        "whole", description="without a vehicle: keep the whole image, leave it out, or stop"
    )
    quality: int = Field(95, ge=1, le=100, description="of JPEG and WebP files written")


def crop_settings(**values: Any) -> CropSettings:  # noqa: ANN401  (checked here)
    """Return the settings, the others at their defaults.

    Raises:
        ConfigError: one is unknown or outside its limits.
    """
    try:
        return CropSettings.model_validate(values)
    except ValidationError as error:
        name, message = next(iter(messages(error, CropSettings).items()))
        raise ConfigError(f"crop: {name}: {message}") from error
