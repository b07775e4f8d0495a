from __future__ import annotations

import json

import pytest

from whichcar.config.crop import CropSettings, crop_settings, recorded_settings
from whichcar.errors import ConfigError


def test_what_is_not_given_has_its_default_and_text_is_read_as_a_number() -> None:
    assert crop_settings() == CropSettings()
    assert crop_settings(margin="0.1", classes=["bus"]) == CropSettings(margin=0.1, classes=("bus",))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quality": 101}, "crop: quality: must be at most 100; got 101"),
        ({"classes": []}, "crop: classes: must be a list (COCO classes to crop to); got []"),
        ({"family": "yolo8"}, "crop: family: must be one of yolox, yolo, "),
    ],
)
def test_a_setting_outside_its_limits_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        crop_settings(**values)
    assert str(error.value).startswith(message)


def test_settings_come_back_from_a_record_as_they_were() -> None:
    settings = crop_settings(margin=0.04, classes=("car", "bus"), family="yolo", detector="a.onnx")
    assert recorded_settings(**json.loads(json.dumps(settings.as_json()))) == settings
    assert recorded_settings(margin=0.04) == CropSettings(margin=0.04), "an earlier version had fewer"


def test_a_recorded_setting_of_a_later_version_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^crop: margins: no such setting; did you mean `margin`\?$"):
        recorded_settings(margins=0.04)
