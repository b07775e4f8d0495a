from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from whichcar.detection.onnx import OnnxDetector, family_of
from whichcar.errors import DetectorError
from whichcar.records import Box, Detection

from .conftest import BLUE, GREY, RED, scene


def near(box: Box, left: int, top: int, right: int, bottom: int, by: int = 2) -> bool:
    return np.allclose([box.left, box.top, box.right, box.bottom], [left, top, right, bottom], atol=by)


def test_a_car_and_a_bus_are_found_where_they_are(red_cars: OnnxDetector) -> None:
    seen = red_cars.detect([scene((96, 192), car=(30, 24, 90, 72), bus=(120, 12, 180, 84))])[0]
    assert [one.label for one in seen] == ["car", "bus"]
    assert [one.score for one in seen] == pytest.approx([0.9, 0.9])
    assert near(seen[0].box, 30, 24, 90, 72)
    assert near(seen[1].box, 120, 12, 180, 84)


def test_an_empty_road_shows_nothing(red_cars: OnnxDetector) -> None:
    assert red_cars.detect([scene(car=None)]) == [[]]


def test_pictures_of_several_sizes_go_together_and_answer_as_alone(red_cars: OnnxDetector) -> None:
    images = [scene((96, 128)), scene((200, 90), car=(10, 50, 80, 150)), scene((64, 64), car=None)]
    assert red_cars.detect(images) == [red_cars.detect([image])[0] for image in images]
    assert red_cars.detect([]) == []


def test_a_score_at_the_threshold_is_not_above_it(red_cars: OnnxDetector) -> None:
    score = red_cars.detect([scene()])[0][0].score
    assert red_cars.detect([scene()], score) == [[]]
    assert len(red_cars.detect([scene()], score - 0.01)[0]) == 1


@pytest.mark.parametrize("size", [(32, 32), (64, 128), (120, 40), (320, 240)])
def test_a_grid_is_fed_letter_boxed_and_blue_first(blue_spot_file: Path, size: tuple[int, int]) -> None:
    """The spot fills one cell of the input; it must come back at its place in the picture, whatever the aspect."""
    scale = max(size) / 32
    left, top = (round(8 * scale), 0) if size[1] > size[0] else (0, round(8 * scale))
    spot = (left, top, round(left + 8 * scale), round(top + 8 * scale))
    image = scene(size, car=None, bus=spot)
    seen = OnnxDetector(blue_spot_file).detect([image], 0.7)[0]
    assert [one.label for one in seen] == ["car"]
    assert near(seen[0].box, *spot)
    assert OnnxDetector(blue_spot_file).detect([scene(size, car=spot)], 0.7) == [[]]  # red is not blue


def test_a_network_of_fixed_batch_takes_any_number_of_pictures(blue_spot_file: Path) -> None:
    images = [scene((32, 32), car=None, bus=(0, 0, 8, 8)), scene((32, 32), car=None), scene((32, 32), car=None)]
    assert [len(seen) for seen in OnnxDetector(blue_spot_file).detect(images, 0.7)] == [1, 0, 0]


def test_boxes_are_whole_pixels_inside_the_picture(red_cars: OnnxDetector) -> None:
    image = np.full((50, 70, 3), RED, np.uint8)
    assert red_cars.detect([image])[0] == [Detection("car", pytest.approx(0.9), Box(0, 0, 70, 50))]


def outputs(**shapes: object) -> dict[str, np.ndarray]:
    return {name: np.zeros(*shape) for name, shape in shapes.items()}  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arrays", "name", "classes", "standardised"),
    [
        ({"output": np.zeros((3549, 85))}, "grid", 80, False),
        ({"logits": np.zeros((300, 80)), "pred_boxes": np.zeros((300, 4))}, "queries", 80, False),
        ({"dets": np.zeros((300, 4)), "labels": np.zeros((300, 91))}, "queries", 91, True),
        (
            {"labels": np.zeros(300, np.int64), "boxes": np.zeros((300, 4)), "scores": np.zeros(300)},
            "end to end", 80, False,
        ),
        ({"dets": np.zeros((100, 5)), "labels": np.zeros(100, np.int64)}, "end to end", 80, False),
    ],
)  # fmt: skip
def test_the_family_is_told_from_the_outputs(
    arrays: dict[str, np.ndarray], name: str, classes: int, standardised: bool
) -> None:
    family = family_of(arrays, Path("x.onnx"))
    assert (family.name, len(family.classes), family.standardised) == (name, classes, standardised)
    assert family.letterbox == family.bgr == (name == "grid")


@pytest.mark.parametrize(
    "arrays",
    [
        {"output": np.zeros((84, 8400))},  # YOLOv8
        {"output": np.zeros((100, 25))},  # 20 classes
        {"logits": np.zeros((300, 7)), "boxes": np.zeros((300, 4))},
        {"features": np.zeros(1000)},
        {"boxes": np.zeros((300, 4)), "scores": np.zeros(300)},
    ],
)
def test_an_unknown_family_is_refused_with_its_outputs(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(DetectorError, match=r"x\.onnx: no detector of COCO's classes .* it gives \w+ \(\d+") as caught:
        family_of(arrays, Path("x.onnx"))
    assert "\n" not in str(caught.value)


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "page.onnx").write_text("<html>not found</html>")
    for name, said in (("page.onnx", "cannot be loaded as an ONNX model"), ("none.onnx", "no such detector file")):
        with pytest.raises(DetectorError, match=said) as caught:
            OnnxDetector(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_model_that_takes_no_pictures_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])], "g",
        [value("x", TensorProto.FLOAT, [1, 10])], [value("y", TensorProto.FLOAT, [1, 10])],
    )  # fmt: skip
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(tmp_path / "a.onnx")
    )
    with pytest.raises(DetectorError, match=r"its input x is tensor\(float\) \[1, 10\]"):
        OnnxDetector(tmp_path / "a.onnx")


def test_the_drawn_colours_are_what_they_are_called() -> None:
    assert [max(range(3), key=colour.__getitem__) for colour in (RED, BLUE)] == [0, 2]
    assert len(set(GREY)) == 1
