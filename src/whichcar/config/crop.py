"""The settings of the crop stage, once; the options of the command are derived from them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationError

from whichcar.config.section import Section
from whichcar.errors import ConfigError

SCORE = 0.5
VEHICLES = ("car", "truck")
# The names in `detection.families.FAMILIES`.
Family = Literal[
    "yolox", "yolo", "yolo-nas", "damo-yolo", "rt-detr", "rf-detr", "torchvision", "tensorflow", "mmdet", "rtmdet"
]


class CropSettings(Section):
    """How an image is cropped to its vehicle; recorded next to the crops and with a checkpoint trained on them."""

    detector: str | None = Field(
        None, description="a name (whichcar detectors), PATH.onnx or detectron2; default: yolox-nano"
    )
    family: Family | None = Field(
        None, description="project that a detector file comes from; default: recognised from its outputs"
    )
    score: float = Field(SCORE, ge=0, lt=1, description="minimum detection confidence")
    classes: tuple[str, ...] = Field(VEHICLES, min_length=1, description="COCO classes that count as vehicles")
    choice: Literal["largest", "central"] = Field(
        "largest", description="which of several vehicles: the largest, or area weighted by distance from the centre"
    )
    margin: float = Field(0.0, ge=0, le=1, description="margin around the box, as a fraction of its sides")
    min_size: int = Field(1, ge=1, description="minimum length of the shorter side of a box, in pixels")
    missing: Literal["whole", "skip", "fail"] = Field(
        "whole", description="image without a vehicle: keep it whole, skip it, or fail"
    )
    quality: int = Field(95, ge=1, le=100, description="quality of JPEG and WebP files")


def crop_settings(**values: Any) -> CropSettings:  # noqa: ANN401  (checked here)
    """Return crop settings; what is not given has its default.

    Raises:
        ConfigError: one is unknown or outside its limits.
    """
    try:
        return CropSettings.model_validate(values)
    except ValidationError as error:
        from whichcar.config.messages import messages  # loads the settings of training too

        name, message = next(iter(messages(error, CropSettings).items()))
        raise ConfigError(f"crop: {name}: {message}") from error
