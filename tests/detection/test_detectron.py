"""The adapter to Detectron2, tested with a stand-in of the same call shape: Detectron2 has no wheel to install."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from whichcar.detection.detection import load_detector
from whichcar.errors import DetectorError, ImageError
from whichcar.records import Box, Detection

from .conftest import scene


class Instances:
    """Boxes (n, 4), scores (n,) and classes (n,), as `DefaultPredictor` answers."""

    def __init__(self) -> None:
        boxes = np.array([[4.4, 5.6, 60.2, 40.0], [-3.0, 0.0, 200.0, 50.0], [1.0, 1.0, 9.0, 9.0], [7.0, 7.0, 7.2, 9.0]])
        self.pred_boxes = SimpleNamespace(tensor=boxes)
        self.scores = np.array([0.7, 0.95, 0.3, 0.9])
        self.pred_classes = np.array([7, 2, 0, 2])

    def to(self, device: str) -> Instances:
        assert device == "cpu"
        return self


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    seen = SimpleNamespace(images=[], config=None)
    config = SimpleNamespace(
        MODEL=SimpleNamespace(ROI_HEADS=SimpleNamespace(), WEIGHTS="", DEVICE=""), merge_from_file=lambda path: None
    )

    def predictor(given: object) -> object:
        seen.config = given

        def predict(image: np.ndarray) -> dict[str, Instances]:
            seen.images.append(image)
            return {"instances": Instances()}

        return predict

    parts = {
        "detectron2": {
            "model_zoo": SimpleNamespace(
                get_config_file=lambda name: name, get_checkpoint_url=lambda name: f"https://weights/{name}"
            )
        },
        "detectron2.config": {"get_cfg": lambda: config},
        "detectron2.engine": {"DefaultPredictor": predictor},
        "torch": {"cuda": SimpleNamespace(is_available=lambda: False)},
    }
    for name, content in parts.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def test_its_detections_are_those_of_the_protocol(fake: SimpleNamespace) -> None:
    found = load_detector("detectron2").detect([scene((50, 100))], 0.5)
    assert found == [[Detection("car", 0.95, Box(0, 0, 100, 50)), Detection("truck", 0.7, Box(4, 6, 60, 40))]]


def test_a_box_that_is_not_a_number_is_refused(fake: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Instances):
        def __init__(self) -> None:
            super().__init__()
            self.pred_boxes.tensor[1, 2] = np.nan

    monkeypatch.setattr(sys.modules[__name__], "Instances", Broken)
    with pytest.raises(ImageError, match="detectron2 returns an invalid box for it"):
        load_detector("detectron2").detect([scene((50, 100))])


def test_it_is_given_bgr_and_the_configuration_of_the_reference_project(fake: SimpleNamespace) -> None:
    image = scene((50, 100))
    load_detector("detectron2").detect([image, image])
    assert len(fake.images) == 2
    np.testing.assert_array_equal(fake.images[0], image[:, :, ::-1])
    assert "faster_rcnn_R_101_FPN_3x" in fake.config.MODEL.WEIGHTS
    assert fake.config.MODEL.DEVICE == "cpu"
    assert fake.config.MODEL.ROI_HEADS.SCORE_THRESH_TEST <= 0.05


def test_without_it_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "detectron2", None)
    with pytest.raises(DetectorError, match=r"detectron2 is not installed .*; install it with: pip install torch"):
        load_detector("detectron2")
