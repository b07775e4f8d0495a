from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from whichcar.detection.onnx import OnnxDetector
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


def test_images_of_several_sizes_go_together_and_answer_as_alone(red_cars: OnnxDetector) -> None:
    images = [scene((96, 128)), scene((200, 90), car=(10, 50, 80, 150)), scene((64, 64), car=None)]
    assert red_cars.detect(images) == [red_cars.detect([image])[0] for image in images]
    assert red_cars.detect([]) == []


def test_a_score_at_the_threshold_is_not_above_it(red_cars: OnnxDetector) -> None:
    score = red_cars.detect([scene()])[0][0].score
    assert red_cars.detect([scene()], score) == [[]]
    assert len(red_cars.detect([scene()], score - 0.01)[0]) == 1


@pytest.mark.parametrize("size", [(32, 32), (64, 128), (120, 40), (320, 240)])
def test_a_grid_is_fed_letter_boxed_and_blue_first(blue_spot_file: Path, size: tuple[int, int]) -> None:
    """The spot fills one cell of the input; it must come back at its place in the image, whatever the aspect."""
    scale = max(size) / 32
    left, top = (round(8 * scale), 0) if size[1] > size[0] else (0, round(8 * scale))
    spot = (left, top, round(left + 8 * scale), round(top + 8 * scale))
    image = scene(size, car=None, bus=spot)
    seen = OnnxDetector(blue_spot_file).detect([image], 0.7)[0]
    assert [one.label for one in seen] == ["car"]
    assert near(seen[0].box, *spot)
    assert OnnxDetector(blue_spot_file).detect([scene(size, car=spot)], 0.7) == [[]]  # red is not blue


def test_a_network_of_fixed_batch_takes_any_number_of_images(blue_spot_file: Path) -> None:
    images = [scene((32, 32), car=None, bus=(0, 0, 8, 8)), scene((32, 32), car=None), scene((32, 32), car=None)]
    assert [len(seen) for seen in OnnxDetector(blue_spot_file).detect(images, 0.7)] == [1, 0, 0]


def test_boxes_are_whole_pixels_inside_the_image(red_cars: OnnxDetector) -> None:
    image = np.full((50, 70, 3), RED, np.uint8)
    assert red_cars.detect([image])[0] == [Detection("car", pytest.approx(0.9), Box(0, 0, 70, 50))]


def save(path: Path, *nodes: onnx.NodeProto, shape: Sequence[int | str] = (1, 3, 32, 32), opset: int = 17, ir: int = 9,
         constants: Sequence[onnx.TensorProto] = ()) -> Path:  # fmt: skip
    """Write a graph from `x` of this shape to `y`."""
    value = helper.make_tensor_value_info
    inputs = [value("x", TensorProto.FLOAT, shape)]
    graph = helper.make_graph(list(nodes), "g", inputs, [value("y", TensorProto.FLOAT, None)], list(constants))
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("TRT", 1)]
    onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=ir), str(path))
    return path


SAME = helper.make_node("Identity", ["x"], ["y"])


@pytest.mark.parametrize(
    "values",
    [
        np.zeros((1, 100, 25)),  # 20 classes
        np.zeros((1, 1000)),  # a classifier
        np.zeros((1, 116, 8400)),  # masks too
        np.zeros((1, 300, 4)),  # boxes alone
    ],
)
def test_an_unknown_family_is_refused_with_its_outputs_and_the_known_ones(values: np.ndarray, tmp_path: Path) -> None:
    constant = numpy_helper.from_array(values.astype(np.float32), "c")
    scaled = [helper.make_node("ReduceMin", ["x"], ["m"], keepdims=0), helper.make_node("Mul", ["m", "c"], ["y"])]
    path = save(tmp_path / "x.onnx", *scaled, constants=[constant])
    with pytest.raises(
        DetectorError, match=r"x\.onnx: has an unsupported output format; its outputs for one image are y \(\d+"
    ) as caught:
        OnnxDetector(path)
    assert "supported are YOLOX, YOLOv5 to YOLOv12 and YOLO26, YOLO-NAS, DAMO-YOLO" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_detector_says_what_it_is(tmp_path: Path) -> None:
    starts = {
        "page": (b"<!DOCTYPE html><html>404</html>", "is a web page, not a model; download it again"),
        "pointer": (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            r"Git LFS pointer.*lfs pull --include",
        ),
        "empty": (b"", "is empty; download it again"),
        "torch": (b"PK\x03\x04rest", "is a PyTorch checkpoint or another zip archive; export the detector to ONNX"),
        "lite": (b"\x1c\0\0\0TFL3", "is a TensorFlow Lite file"),
        "rubbish": (b"rubbish", "cannot be loaded: it is damaged, incomplete or not an ONNX file; download it again"),
    }
    for name, (start, reason) in starts.items():
        (tmp_path / f"{name}.onnx").write_bytes(start)
        assert refused(tmp_path / f"{name}.onnx", reason)
    assert refused(tmp_path, "is a folder; give an .onnx file")
    assert refused(tmp_path / "none.onnx", "no such detector file")


def refused(path: Path, reason: str) -> bool:
    """True when the file is refused in one line that begins with its path and holds `reason`."""
    with pytest.raises(DetectorError, match=reason) as caught:
        OnnxDetector(path)
    return re.fullmatch(rf"{re.escape(str(path))}: .+", str(caught.value)) is not None


def test_a_truncated_file_is_refused(blue_spot_file: Path, tmp_path: Path) -> None:
    content = blue_spot_file.read_bytes()
    (tmp_path / "x.onnx").write_bytes(content[: len(content) // 2])
    assert refused(tmp_path / "x.onnx", "it is damaged, incomplete or not an ONNX file; download it again")


def test_a_file_that_onnxruntime_cannot_load_says_why_first(tmp_path: Path) -> None:
    assert refused(save(tmp_path / "ir.onnx", SAME, ir=99), r"its IR version 99 is newer than \d+, .*pip install -U")
    assert refused(save(tmp_path / "opset.onnx", SAME, opset=99), r"its opset 99 is newer than \d+, .*pip install -U")
    foreign = helper.make_node("EfficientNMS_TRT", ["x"], ["y"], domain="TRT")
    assert refused(save(tmp_path / "trt.onnx", foreign), "does not have its operator TRT:EfficientNMS_TRT")
    assert refused(save(tmp_path / "op.onnx", helper.make_node("NoSuch", ["x"], ["y"])), "not have its operator NoSuch")
    lost = save(tmp_path / "lost.onnx", helper.make_node("Reshape", ["x", "s"], ["y"]))
    assert refused(lost, "cannot be loaded: Invalid model. Node input 's' is not a graph input")


def test_weights_that_are_missing_next_to_the_file_are_named(blue_spot_file: Path, tmp_path: Path) -> None:
    model = onnx.load(str(blue_spot_file))
    onnx.save(model, str(tmp_path / "x.onnx"), save_as_external_data=True, location="x.data", size_threshold=1024)
    (tmp_path / "x.data").unlink()
    assert refused(
        tmp_path / "x.onnx", r"its weights are in another file, .*x\.data, which is missing; copy it there too"
    )


def test_a_file_that_cannot_be_run_says_why_first(tmp_path: Path) -> None:
    sides = numpy_helper.from_array(np.array([7, 7], np.int64), "s")
    path = save(tmp_path / "x.onnx", helper.make_node("Reshape", ["x", "s"], ["y"]), constants=[sides])
    assert refused(path, r"x\.onnx: cannot be run: Non-zero status code returned while running Reshape node")


@pytest.mark.parametrize("shape", [(1, 10), (3, 32, 32), (1, 1, 32, 32), (1, 4, 32, 32)])
def test_a_model_that_takes_no_images_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    assert refused(
        save(tmp_path / "x.onnx", SAME, shape=shape),
        rf"its inputs are x tensor\(float\) \[{shape[0]}, .*a detector takes",
    )


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_cannot_be_used_is_reported(
    red_car_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    OnnxDetector(red_car_file)
    assert not caplog.records
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)  # the session has the second only
    OnnxDetector(red_car_file)
    assert "runs on the CPU, since onnxruntime could not use CUDA" in caplog.text


def test_the_drawn_colours_are_what_they_are_called() -> None:
    assert [max(range(3), key=colour.__getitem__) for colour in (RED, BLUE)] == [0, 2]
    assert len(set(GREY)) == 1
