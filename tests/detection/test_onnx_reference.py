"""The decoder of RT-DETR's family against a reference of others: models and post-processing of `transformers`.

Tiny models with random weights answer in PyTorch, and that package's `post_process_object_detection` reads the answers.
The same models, exported, go through `OnnxDetector`. Nothing is downloaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from whichcar.detection.coco import names_of
from whichcar.detection.onnx import OnnxDetector
from whichcar.records import Detection

torch = pytest.importorskip("torch", reason="the reference models are PyTorch's; pip install whichcar[reference]")
transformers = pytest.importorskip("transformers", reason="the reference; pip install whichcar[reference]")
pytest.importorskip("onnx", reason="PyTorch's exporter needs it; pip install whichcar[reference]")

ImageArray = npt.NDArray[np.uint8]
SCORES = 1e-4  # most that a score may differ
PIXELS = 0.55  # most that a side may differ from the unrounded one: rounding takes 0.5
CLEAR = 1e-3  # no score is as near as this to a threshold
SEED = 14  # with it every model sees boxes of many sizes, some cut, and some numbers without a name where it has such
PLACES = 126  # of the feature maps of 64 x 96; with as many queries, rounding errors cannot choose among them
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Object(NamedTuple):
    """What the reference sees; `box`: left, top, right, bottom in whole and part pixels, cut at the rim."""

    label: str
    score: float
    box: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reference:
    """A model in PyTorch, how its package reads it, and our detector of the same model in ONNX."""

    model: torch.nn.Module
    processor: transformers.BaseImageProcessor
    size: tuple[int, int]
    classes: int
    read: dict[str, int]
    detector: OnnxDetector

    @property
    def standardised(self) -> bool:
        return self.classes == 91

    def see(
        self,
        image: ImageArray,
        score: float = 0,
        *,
        shape: tuple[int, ...] | None = None,
        standardised: bool | None = None,
        shift: int = 0,
    ) -> list[Object]:
        """Return what it sees above `score`, most confident first; the last three make mistakes."""
        fitting = self.standardised if standardised is None else standardised
        with torch.no_grad():
            outputs = self.model(pixel_values=fed(image, self.size, fitting)[None])
        shapes = [shape or image.shape[:2]]
        read = self.processor.post_process_object_detection(outputs, score, shapes, **self.read)[0]
        boxes = read["boxes"].numpy().astype(np.float64).clip(0, [image.shape[1], image.shape[0]] * 2)
        numbers = (read["labels"].numpy() + shift) % self.classes
        names = names_of(self.classes) or ()
        rows = zip(numbers, read["scores"].tolist(), boxes, strict=True)
        return [Object(names[number], score, box) for number, score, box in rows]


def fed(image: ImageArray, size: tuple[int, int], standardised: bool) -> torch.Tensor:
    """Return an image as its model was trained to take it, (3, height, width)."""
    small = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    values = np.asarray(small, np.float32) / 255
    if standardised:
        values = (values - np.float32(MEAN)) / np.float32(DEVIATION)
    return torch.from_numpy(values.transpose(2, 0, 1).copy())


def drawn(seed: int, height: int, width: int) -> ImageArray:
    """A gradient under coloured squares and noise."""
    random = np.random.default_rng(seed)
    down, across = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    squares = Image.fromarray(random.integers(0, 256, (5, 7, 3), np.uint8))
    mixed = 0.6 * np.asarray(squares.resize((width, height), Image.Resampling.NEAREST), np.float64)
    mixed += 100 * np.stack([across, down, 1 - across], axis=-1) + random.normal(0, 12, (height, width, 3))
    return mixed.clip(0, 255).astype(np.uint8)


IMAGES = {
    "wide": drawn(0, 180, 320),
    "tall": drawn(1, 450, 210),
    "square": drawn(2, 240, 240),
    "small": drawn(3, 57, 94),
}


def d_fine() -> torch.nn.Module:
    backbone = transformers.HGNetV2Config(
        stem_channels=[3, 8, 8],
        stage_in_channels=[8, 16, 16, 24],
        stage_mid_channels=[8] * 4,
        stage_out_channels=[16, 16, 24, 32],
        stage_num_blocks=[1] * 4,
        stage_numb_of_layers=[1] * 4,
        hidden_sizes=[16, 16, 24, 32],
        depths=[1] * 4,
        out_indices=[2, 3, 4],
    )
    return transformers.DFineForObjectDetection(
        transformers.DFineConfig(backbone_config=backbone, depth_mult=0.34, lqe_hidden_dim=16, **_HYBRID)
    )


def rt_detr_v2() -> torch.nn.Module:
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, layer_type="basic", out_indices=[2, 3, 4]
    )
    return transformers.RTDetrV2ForObjectDetection(transformers.RTDetrV2Config(backbone_config=backbone, **_HYBRID))


def rf_detr() -> torch.nn.Module:
    backbone = transformers.RfDetrDinov2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        num_windows=2,
        out_indices=[1, 2],
    )
    config = transformers.RfDetrConfig(
        backbone_config=backbone,
        num_labels=91,
        num_queries=40,
        group_detr=1,
        c2f_num_blocks=1,
        d_model=32,
        decoder_ffn_dim=32,
        decoder_layers=2,
        decoder_self_attention_heads=2,
        decoder_cross_attention_heads=2,
        decoder_n_points=2,
    )
    model = transformers.RfDetrForObjectDetection(config)
    # When traced, it resizes its position embeddings to the size they have, with an op that cannot be exported.
    embeddings = model.model.backbone.backbone.embeddings
    embeddings.interpolate_pos_encoding = lambda *_: embeddings.position_embeddings
    return model


_HYBRID: dict[str, Any] = {
    "num_labels": 80,
    "num_queries": PLACES,
    "num_denoising": 0,
    "encoder_in_channels": [16, 24, 32],
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "hidden_expansion": 0.5,
    "d_model": 32,
    "decoder_in_channels": [32] * 3,
    "decoder_ffn_dim": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
}


class Exported(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = self.model(pixel_values=pixel_values)
        return outputs.logits, outputs.pred_boxes


def randomise(model: torch.nn.Module, batch: torch.Tensor) -> None:
    """Give a model weights with which images, queries and classes differ; as it is made, all look nearly alike."""
    random = torch.Generator().manual_seed(SEED)

    def settle(norm: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        variance = inputs[0].var((0, 2, 3))
        norm.running_mean.copy_(inputs[0].mean((0, 2, 3)))
        norm.running_var.copy_(variance.clamp(min=0.1 * float(variance.mean())))  # rounding errors are not to grow

    with torch.no_grad():
        for weights in model.parameters():
            noise = torch.randn(weights.shape, generator=random)
            if weights.ndim > 1:
                weights.copy_(noise / weights[0].numel() ** 0.5)
            else:
                weights.add_(noise * 0.1)
        norms = [layer for layer in model.modules() if hasattr(layer, "running_mean")]
        hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
        model(pixel_values=batch)
        for hook in hooks:
            hook.remove()


FAMILIES: dict[str, tuple[Callable[[], torch.nn.Module], tuple[int, int], int, str, dict[str, int], int | None]] = {
    # Made by; height and width; classes; read by; as many at most as; images a run. Released models are square:
    # here swapped sides are to show. RF-DETR's own processor needs torchvision, and does what this one does.
    "D-FINE": (d_fine, (64, 96), 80, "RTDetrImageProcessorPil", {}, None),
    "RT-DETRv2": (rt_detr_v2, (96, 64), 80, "RTDetrImageProcessorPil", {}, 3),
    "RF-DETR": (rf_detr, (64, 64), 91, "DeformableDetrImageProcessorPil", {"top_k": 40}, None),
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """For so small models, more threads only wait for one another."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=FAMILIES)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    make, size, classes, processor, read, images = FAMILIES[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = make().eval()
    batch = torch.stack([fed(image, size, classes == 91) for image in IMAGES.values()])
    randomise(model, batch)
    path = tmp_path_factory.mktemp("onnx") / f"{request.param}.onnx"
    names = ("pixel_values", "logits", "pred_boxes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter says that it is, and that shapes become constants
        torch.onnx.export(
            Exported(model).eval(),  # after exporting, all inside has the mode of the outermost module
            (batch[: images or 2],),
            path,
            dynamo=False,  # the newer one cannot export D-FINE and RT-DETRv2
            input_names=names[:1],
            output_names=names[1:],
            dynamic_axes=None if images else {name: {0: "images"} for name in names},
        )
    return Reference(model, getattr(transformers, processor)(), size, classes, read, OnnxDetector(path, threads=1))


def clear_threshold(objects: list[Object]) -> float:
    """Return a score with 5 to 30 of `objects` above it, the most possible, and none within `CLEAR` of it."""
    scores = np.array([one.score for one in objects])
    gaps = scores[:-1] - scores[1:]
    count = max(count for count in range(5, 31) if gaps[count - 1] > 2.2 * CLEAR)
    return float(scores[count - 1] + scores[count]) / 2


def shown(objects: list[Object]) -> list[Object]:
    """Leave out what has no name, or no area in whole pixels."""
    areas = [np.rint(one.box[2:]) - np.rint(one.box[:2]) for one in objects]
    return [one for one, area in zip(objects, areas, strict=True) if one.label and area.min() > 0]


def assert_same(found: list[Detection], expected: list[Object]) -> None:
    """Each of `found` is one of `expected` and the other way round; most confident first."""
    assert len(found) == len(expected)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    rest = list(found)
    for one in expected:
        same = [
            other
            for other in rest
            if other.label == one.label
            and abs(other.score - one.score) <= SCORES
            and np.abs(_sides(other) - one.box).max() <= PIXELS
        ]
        assert same, f"{one} is not among {rest}"
        rest.remove(same[0])


def _sides(one: Detection) -> npt.NDArray[np.float64]:
    return np.array([one.box.left, one.box.top, one.box.right, one.box.bottom], np.float64)


@pytest.mark.parametrize("name", IMAGES)
def test_labels_scores_and_boxes_are_those_of_the_reference(reference: Reference, name: str) -> None:
    threshold = clear_threshold(reference.see(IMAGES[name]))
    expected = reference.see(IMAGES[name], threshold)
    assert 5 <= len(expected) <= 30
    assert_same(reference.detector.detect([IMAGES[name]], threshold)[0], shown(expected))


def test_of_pairs_above_the_score_as_many_are_taken_as_there_are_queries(reference: Reference) -> None:
    expected = reference.see(IMAGES["wide"])
    assert len(expected) == reference.model.config.num_queries
    assert_same(reference.detector.detect([IMAGES["wide"]], 0)[0], shown(expected))


def test_images_in_one_call_are_seen_as_alone(reference: Reference) -> None:
    images = list(IMAGES.values())  # four; RT-DETRv2's file takes three at once
    for found, image in zip(reference.detector.detect(images, 0), images, strict=True):
        assert_same(found, shown(reference.see(image)))


def test_numbers_without_a_name_and_boxes_beyond_the_rim_are_among_those_compared(reference: Reference) -> None:
    objects = [one for image in IMAGES.values() for one in reference.see(image)]
    assert any(not one.label for one in objects) == (reference.classes == 91)
    boxes = np.array([one.box for one in shown(objects)])
    assert (boxes == 0).any()
    assert (boxes[:, 2:] - boxes[:, :2]).std(axis=0).min() > 2


def test_the_reference_is_fed_as_its_package_feeds_it(reference: Reference) -> None:
    size = {"height": reference.size[0], "width": reference.size[1]}
    for image in IMAGES.values():
        own = reference.processor(images=Image.fromarray(image), size=size, do_pad=False, return_tensors="pt")
        assert torch.allclose(own["pixel_values"][0], fed(image, reference.size, reference.standardised), atol=1e-5)


@pytest.mark.parametrize("name", ["wide", "tall"])
@pytest.mark.parametrize("mistake", ["sides swapped", "blue first", "upside down", "standardised or not", "next class"])
def test_a_reference_with_a_mistake_is_not_matched(reference: Reference, mistake: str, name: str) -> None:
    image = IMAGES[name]
    mistaken = {
        "sides swapped": lambda: reference.see(image, shape=image.shape[1::-1]),
        "blue first": lambda: reference.see(image[:, :, ::-1]),
        "upside down": lambda: reference.see(image[::-1]),
        "standardised or not": lambda: reference.see(image, standardised=not reference.standardised),
        "next class": lambda: reference.see(image, shift=1),
    }[mistake]()
    with pytest.raises(AssertionError):
        assert_same(reference.detector.detect([image], 0)[0], shown(mistaken))
