"""Why a network answers as it does: which locations of an image support the answer, and which favour it over its rival.

If the last feature map is averaged and then weighted for each class, every logit is the mean over the locations of what
each contributes. This is the class activation map (Zhou et al. 2016), which is exact, needs no gradient and here equals
Grad-CAM. For the rival, two such maps are subtracted, as in Finer-CAM (Zhang et al. 2025).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from whichcar.errors import CheckpointError
from whichcar.images.inputs import Source
from whichcar.images.pixels import DecodedImage, Pixels
from whichcar.inference.annotate import captioned
from whichcar.inference.answer import tempered
from whichcar.inference.feature_map import FeatureMap
from whichcar.records import Box
from whichcar.text import one_line

if TYPE_CHECKING:
    from whichcar.inference.classifier import Classifier

Map = npt.NDArray[np.float32]

_SIDE = 480  # pixels of the longer side of an image in a figure
_HEAT = np.array([[60, 0, 130], [225, 50, 70], [255, 235, 90]], np.float32)  # from low to high
_OPACITY = 0.6


@dataclass(frozen=True, slots=True)
class Explanation:
    """The contribution of each location of an image, (rows, columns) of the last feature map, in logits.

    Args:
        answer, rival: class numbers of the most probable class and of the class it is compared with.
        probabilities: (classes,) float32.
        for_answer: contribution to the answer's logit, relative to the mean of all classes.
        against_rival: the same relative to the rival. Its mean, except for a bias of the head, is the difference of the
            two logits.
    """

    answer: int
    rival: int
    probabilities: npt.NDArray[np.float32]
    for_answer: Map
    against_rival: Map


class Explainer:
    """Explains the answers of a network.

    Args:
        feature_map: the network's last feature map.
        seen: returns an image as the network sees it, as `Classifier.seen` does (default: images are already so).
    """

    def __init__(self, feature_map: FeatureMap, seen: Callable[[Source], Pixels] = np.asarray) -> None:
        """Store the arguments."""
        self._feature_map, self._seen = feature_map, seen

    def explain(self, image: Source, rival: int | None = None) -> Explanation:
        """Explain the answer for an image.

        Args:
            image: one image as for `Classifier.seen`: a path, an address, a PIL image or an array.
            rival: number of the class to compare the answer with (default: the next most probable one).

        Raises:
            CheckpointError: the network has only one class, or running it shows that it does not end in global average
                pooling and one layer.
            DataError: it is several images, or none.
            ImageError: it cannot be read.
        """
        weights = self._feature_map.weights
        if len(weights.T) < 2:
            raise CheckpointError("a network of one class has nothing to explain")
        features, probabilities = self._feature_map(self._seen(image))
        answer, following = (int(number) for number in np.argsort(-probabilities, kind="stable")[:2])
        rival = following if rival is None or rival == answer else rival
        own = weights[:, answer]
        return Explanation(
            answer,
            rival,
            probabilities,
            features @ (own - weights.mean(axis=1)),
            features @ (own - weights[:, rival]),
        )


def figure(image: Pixels, explanation: Explanation, class_names: tuple[str, ...]) -> Image.Image:
    """Return an image as the network sees it, then heat maps for the answer and against the rival, side by side.

    Args:
        image: (height, width, 3) uint8 RGB.
        explanation: the explanation for this image.
        class_names: the network's class names.
    """
    answer, rival = (one_line(class_names[number]) for number in (explanation.answer, explanation.rival))
    certain, other = (explanation.probabilities[number] for number in (explanation.answer, explanation.rival))
    scale = _SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    large = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
    parts = [
        captioned(large, "seen by the network"),
        captioned(heated(large, explanation.for_answer), f"{answer} {certain:.0%}"),
        captioned(heated(large, explanation.against_rival), f"not {rival} {other:.0%}"),
    ]
    whole = Image.new("RGB", (sum(part.width for part in parts), parts[0].height))
    for number, part in enumerate(parts):
        whole.paste(part, (number * part.width, 0))
    return whole


def figures(classifier: Classifier, is_calibrated: bool = False) -> Callable[[DecodedImage, Box | None], Image.Image]:
    """Return a function that draws the figure of an image, or of a vehicle in it, as a classifier sees it.

    With `is_calibrated`, the probabilities shown are calibrated, as in the rows of `predict` with a confidence.
    """
    explainer = classifier.explainer()
    temperature = classifier.calibration.temperature if is_calibrated and classifier.calibration else 1.0

    def explained(image: DecodedImage, box: Box | None) -> Image.Image:
        seen = image.resized(classifier.image_size, box)
        explanation = explainer.explain(seen)
        shown = replace(explanation, probabilities=tempered(explanation.probabilities, temperature))
        return figure(seen, shown, classifier.class_names)

    return explained


def heated(image: Image.Image, places: Map) -> Image.Image:
    """Return the image with locations that add to the logit coloured; brighter means more."""
    positive = np.maximum(places, 0)
    heat = Image.fromarray(positive / max(float(positive.max()), 1e-12)).resize(image.size, Image.Resampling.BICUBIC)
    share = np.clip(np.asarray(heat), 0, 1)
    steps = np.linspace(0, 1, len(_HEAT))
    colour = np.stack([np.interp(share, steps, channel) for channel in _HEAT.T], axis=-1)
    opacity = _OPACITY * np.sqrt(share)[..., None]
    mixed = (1 - opacity) * np.asarray(image, np.float32) + opacity * colour
    return Image.fromarray(np.rint(mixed).astype(np.uint8))
