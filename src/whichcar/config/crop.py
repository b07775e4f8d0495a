"""The settings of the crop stage, each defined once; the command's options and the checks are derived from them."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from whichcar.errors import ConfigError

if TYPE_CHECKING:
    from whichcar.config.section import Section

SCORE = 0.5
VEHICLES = ("car", "truck")
# The names in `detection.families.FAMILIES`.
Family = Literal[
    "yolox", "yolo", "yolo-nas", "damo-yolo", "rt-detr", "rf-detr", "torchvision", "tensorflow", "mmdet", "rtmdet"
]


@dataclass(frozen=True, slots=True)
class CropSettings:
    """How an image is cropped to its vehicle; recorded next to the crops and with a checkpoint trained on them.

    A plain record with descriptions and limits, since pydantic, which `crop_settings` checks them with, takes longer
    to load than a photo to be classified.
    """

    detector: str | None = field(
        default=None,
        metadata={"description": "a name (whichcar detectors), PATH.onnx or detectron2; default: yolox-nano"},
    )
    family: Family | None = field(
        default=None,
        metadata={"description": "project that a detector file comes from; default: recognised from its outputs"},
    )
    score: float = field(default=SCORE, metadata={"ge": 0, "lt": 1, "description": "minimum detection confidence"})
    classes: tuple[str, ...] = field(
        default=VEHICLES, metadata={"min_length": 1, "description": "COCO classes to crop to"}
    )
    choice: Literal["largest", "central"] = field(
        default="largest",
        metadata={
            "description": "which of several vehicles: the largest, or central, which prefers those near the centre"
        },
    )
    margin: float = field(
        default=0.0,
        metadata={"ge": 0, "le": 1, "description": "margin around the box, as a fraction of its sides"},
    )
    min_size: int = field(
        default=1, metadata={"ge": 1, "description": "minimum length of the shorter side of a box, in pixels"}
    )
    missing: Literal["whole", "skip", "fail"] = field(
        default="whole", metadata={"description": "image without a vehicle: keep it whole, skip it, or fail"}
    )
    quality: int = field(default=95, metadata={"ge": 1, "le": 100, "description": "quality of JPEG and WebP files"})

    def as_json(self) -> dict[str, Any]:
        """Return the settings by name, with JSON types."""
        return dataclasses.asdict(self) | {"classes": list(self.classes)}


def crop_settings(**values: Any) -> CropSettings:  # noqa: ANN401  (checked here)
    """Return crop settings, with defaults for those that are not given.

    Raises:
        ConfigError: a setting is unknown or outside its limits.
    """
    from pydantic import ValidationError

    section = _section()
    try:
        return CropSettings(**dict(section.model_validate(values)))
    except ValidationError as error:
        from whichcar.config.messages import messages  # loads the settings of training too

        name, message = next(iter(messages(error, section).items()))
        raise ConfigError(f"crop: {name}: {message}") from error


def recorded_settings(**values: Any) -> CropSettings:  # noqa: ANN401  (of `as_json`)
    """Return crop settings from the output of `as_json`, whose values were already checked.

    Settings that are missing, as in a record of an earlier version, have their defaults.

    Raises:
        ConfigError: a setting is unknown, as in a record of a later version.
    """
    if values.keys() - {setting.name for setting in dataclasses.fields(CropSettings)}:
        return crop_settings(**values)
    return CropSettings(**values | {"classes": tuple(values.get("classes", VEHICLES))})


@functools.cache
def _section() -> type[Section]:
    """Return a section with the same settings, which checks their values."""
    from pydantic import Field, create_model

    from whichcar.config.section import Section

    kinds = get_type_hints(CropSettings)
    settings: dict[str, Any] = {
        setting.name: (kinds[setting.name], Field(setting.default, **setting.metadata))
        for setting in dataclasses.fields(CropSettings)
    }
    return create_model("CropSettings", __base__=Section, **settings)
