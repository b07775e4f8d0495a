"""Why a network answers as it does: which places of an image speak for the answer, and which against its rival.

Where the last feature map is averaged and then weighted for each class, every logit is the mean over the places of what
each adds to it. That is the class activation map (Zhou et al. 2016): exact, and needs no gradient; Grad-CAM is the same
here. Against the rival it is the difference of two such maps, as in Finer-CAM (Zhang et al. 2025).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from whichcar.errors import CheckpointError
from whichcar.images.pixels import Pixels
from whichcar.inference.annotate import captioned
from whichcar.text import one_line

Map = npt.NDArray[np.float32]

_SIDE = 480  # pixels of the longer side of an image in a figure
_HEAT = np.array([[60, 0, 130], [225, 50, 70], [255, 235, 90]], np.float32)  # from little to much
_OPACITY = 0.6
_HEAD = ("Dropout", "UnitNormalization", "Rescaling", "Dense")


@dataclass(frozen=True, slots=True)
class Explanation:
    """What each place of an image adds, (rows, columns) of the last feature map, in logits.

    Args:
        answer, rival: class numbers of the most probable class and of the next one.
        probabilities: (classes,) float32.
        for_answer: what a place adds to the answer's logit, compared with the mean of all classes.
        against_rival: the same compared with the rival. Its mean, but for a bias of the head, is the difference of the
            two logits.
    """

    answer: int
    rival: int
    probabilities: npt.NDArray[np.float32]
    for_answer: Map
    against_rival: Map


class Explainer:
    """Explains the answers of a Keras model.

    Args:
        model: from images (n, height, width, 3) to probabilities, as `Classifier` loads it.
        name: of its checkpoint, for messages.

    Raises:
        CheckpointError: between its last feature map and the probabilities is more than an average and one layer.
    """

    def __init__(self, model: Any, name: str | Path) -> None:  # noqa: ANN401  (any Keras model)
        import keras

        pools = [layer for layer in model.layers if isinstance(layer, keras.layers.GlobalAveragePooling2D)]
        after = model.layers[model.layers.index(pools[-1]) + 1 :] if pools else []
        kinds = [type(layer).__name__ for layer in after]
        if not after or kinds[-1] != "Dense" or kinds.count("Dense") != 1 or not set(kinds) <= set(_HEAD):
            raise CheckpointError(
                f"{name}: cannot be explained: that takes a network that ends in an average over places and one layer, "
                "such as resnet50"
            )
        self._weights = np.asarray(after[-1].kernel, np.float32)
        self._scales = [float(layer.scale) for layer in after if isinstance(layer, keras.layers.Rescaling)]
        self._is_cosine = "UnitNormalization" in kinds
        self._model = keras.Model(model.inputs, [pools[-1].input, model.outputs[0]])
        self._one_at_a_time = Lock()

    def explain(self, image: Pixels) -> Explanation:
        """Explain the answer for an image, (height, width, 3) uint8 RGB at the network's size."""
        if len(self._weights.T) < 2:
            raise CheckpointError("a network of one class has nothing to explain")
        with self._one_at_a_time:
            outputs = self._model.predict_on_batch(image[None])
        features, probabilities = (np.asarray(output[0], np.float32) for output in outputs)
        factor = np.float32(np.prod(self._scales))
        if self._is_cosine:
            factor /= np.maximum(np.float32(1e-12), np.linalg.norm(features.mean(axis=(0, 1))))
        answer, rival = (int(number) for number in np.argsort(-probabilities, kind="stable")[:2])
        own = self._weights[:, answer]
        return Explanation(
            answer,
            rival,
            probabilities,
            factor * (features @ (own - self._weights.mean(axis=1))),
            factor * (features @ (own - self._weights[:, rival])),
        )


def figure(image: Pixels, explanation: Explanation, class_names: tuple[str, ...]) -> Image.Image:
    """Return an image as the network sees it, what in it speaks for the answer, and what against the rival, in a row.

    Args:
        image: (height, width, 3) uint8 RGB.
        explanation: of this image.
        class_names: of the network.
    """
    answer, rival = (one_line(class_names[number]) for number in (explanation.answer, explanation.rival))
    certain, other = (explanation.probabilities[number] for number in (explanation.answer, explanation.rival))
    scale = _SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    large = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    parts = [
        captioned(large, "seen by the network"),
        captioned(_heated(large, explanation.for_answer), f"{answer} {certain:.0%}"),
        captioned(_heated(large, explanation.against_rival), f"not {rival} {other:.0%}"),
    ]
    whole = Image.new("RGB", (sum(part.width for part in parts), parts[0].height))
    for number, part in enumerate(parts):
        whole.paste(part, (number * part.width, 0))
    return whole


def _heated(image: Image.Image, places: Map) -> Image.Image:
    """Return the image with colour where places add to the logit, the more the brighter."""
    positive = np.maximum(places, 0)
    heat = Image.fromarray(positive / max(float(positive.max()), 1e-12)).resize(image.size, Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(heat), 0, 1)
    steps = np.linspace(0, 1, len(_HEAT))
    colour = np.stack([np.interp(share, steps, channel) for channel in _HEAT.T], axis=-1)
    opacity = _OPACITY * np.sqrt(share)[..., None]
    mixed = (1 - opacity) * np.asarray(image, np.float32) + opacity * colour
    return Image.fromarray(np.rint(mixed).astype(np.uint8))
