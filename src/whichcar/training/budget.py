"""What fits into a time budget: the number of passes over the training images, and the image sizes.

Nothing here reads files or measures. Numbers from published work name their source; "ours" refers to the runs in
`experiments/README.md` and the failed ones in `experiments/LOG.md`.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from whichcar.config.backbones import DEFAULT, KERAS
from whichcar.config.recipe import MOMENT_IMAGES

MOST_PASSES = 100  # ours: training accuracy is 0.97 after 10; Salman et al. 2020 gain 4 points from 59 to 150
ENOUGH_PASSES, ENOUGH_UPDATES = 12, 800  # from here on, images above FIRST_PHASE are worth more than further passes
LEAST_PASSES, LEAST_UPDATES = 5, 100  # ours: 5 passes of all layers gave 0.59, a head alone 0.41, 2 passes 0.20
LARGEST = 224  # the size of the ImageNet weights; ours: larger images cost more than they gained
SMALLEST = 96
FIRST_PHASE = 128  # minimum size of all phases before the last; ours: exp_003
LAST_SHARE = 3 / 17  # share of the passes in each phase after the first; ours: exp_003
CROP = (0.75, 1.0)  # share of each side that the random crop keeps; ours: exp_003
HEAD_UPDATES = 4000
SECONDS_OF_HEAD_STEP = (0.003, 0.00001)  # and per class; ours: 0.002 with 12 classes, 0.006 with 196, 0.008 with 500
BACKWARD = 2  # cost of a backward pass, in forward passes
FROZEN, FROZEN_OF_FEW = 2, 3  # number of first stages frozen, in general and with few images; ours
FROZEN_SHARE = {0: 0.0, FROZEN: 0.25, FROZEN_OF_FEW: 0.5}  # share of a forward pass in the frozen stages

Phases = list[tuple[int, int]]  # (epochs, size), small images first


@dataclass(frozen=True, slots=True)
class Facts:
    """What a recipe needs to know about a dataset and about the network that training starts from.

    `side` is the median of the images' shorter sides in pixels; `has_classifier` is true if the weights include the
    ImageNet classifier; `backbone` is a name in `config.backbones.KERAS`.
    """

    classes: int
    train: int
    validation: int
    side: int
    has_classifier: bool = False
    backbone: str = DEFAULT

    @property
    def batch_size(self) -> int:
        """Images per step; fewer for a small dataset, for more updates per pass."""
        return min(self.train, 32 if self.train >= 1000 else 16)

    @property
    def updates(self) -> int:
        """Updates in a pass; an incomplete last batch is dropped."""
        return self.train // self.batch_size

    @property
    def scored(self) -> int:
        """Images predicted per validation, with the last batch padded."""
        batch_size = min(self.batch_size, self.validation or 1)
        return -(-self.validation // batch_size) * batch_size


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds measured on this machine.

    A forward pass of one image takes `image`, plus `pixel` for each of its pixels. A training step takes a forward pass
    for each of its images, `backward` times as much for the backward pass, and `update`. Each new image size costs
    `compile_step` and `compile_predict`; `start` is spent once, `decode` per image and size, `save` per checkpoint.
    """

    update: float
    image: float
    pixel: float
    compile_step: float
    compile_predict: float
    start: float
    decode: float
    save: float
    backward: float = BACKWARD

    def predict(self, size: int) -> float:
        """Return the seconds for one image in validation."""
        return self.image + self.pixel * size**2

    def train(self, size: int, batch_size: int) -> float:
        """Return the seconds for one image in training."""
        return (1 + self.backward) * self.predict(size) + self.update / batch_size


def frozen_stages(facts: Facts, weights: str | None) -> int:
    """Return how many stages of the backbone stay frozen while the others are trained.

    The first stages detect edges and colours, which are the same for every task (Yosinski et al. 2014). Their number
    was measured with resnet50 only.
    """
    if not weights or facts.backbone != DEFAULT:
        return 0
    return FROZEN_OF_FEW if facts.train < 2000 else FROZEN


def largest_size(side: int, crop: float = sum(CROP) / 2) -> int:
    """Return the largest size worth training at, a multiple of 32: crops should not be enlarged.

    An enlarged crop is blurred while a test image is not, which cost us two points. At sizes other than multiples of
    32, feature maps of odd width are sampled differently, and the network becomes less confident.
    """
    return min(LARGEST, max(32, 32 * round(crop * side / 32)))


def image_sizes(largest: int) -> list[int]:
    """Return the candidates for the size of the last phase, largest first."""
    return [largest, *range(largest - 32, SMALLEST - 1, -32)]


def phases_that_fit(facts: Facts, speed: Speed, budget: float) -> Phases:
    """Return the phases that fit: the largest final size that leaves enough passes, else the most passes.

    The list is empty if not even one pass fits.
    """
    best: Phases = []
    for size in image_sizes(largest_size(facts.side)):
        phases = _longest(facts, speed, budget, size)
        few = size <= FIRST_PHASE
        passes, updates = (LEAST_PASSES, ENOUGH_UPDATES // 2) if few else (ENOUGH_PASSES, ENOUGH_UPDATES)
        if passes_of(phases) >= max(passes, min(3 * passes, math.ceil(updates / facts.updates))):
            return phases
        if passes_of(phases) > passes_of(best):
            best = phases
    return best


def is_enough(facts: Facts, passes: int) -> bool:
    """Return whether `passes` over all layers are worth more than training a head on a frozen backbone."""
    updates = passes * facts.updates
    return updates >= LEAST_UPDATES and (passes >= LEAST_PASSES or updates >= ENOUGH_UPDATES)


def _longest(facts: Facts, speed: Speed, budget: float, size: int) -> Phases:
    """Return the phases with the most passes that fit, at `size` only or, if there are many, growing up to it.

    Each phase compiles the step again, which short trainings cannot afford.
    """
    smaller = [small for small in (size - 64, size - 32) if small >= FIRST_PHASE]
    one, growing = (_fitting(facts, speed, budget, sizes) for sizes in ([size], [*smaller, size]))
    return growing if passes_of(growing) >= max(ENOUGH_PASSES, passes_of(one)) else one


def _fitting(facts: Facts, speed: Speed, budget: float, sizes: list[int]) -> Phases:
    """Return the phases with the most passes that fit; each phase after the first takes `LAST_SHARE` of them."""

    def phases(passes: int) -> Phases:
        last = max(1, round(LAST_SHARE * passes))
        return [(passes - last * (len(sizes) - 1), sizes[0]), *((last, size) for size in sizes[1:])]

    counts = range(len(sizes), MOST_PASSES + 1)
    fit = bisect.bisect_right(counts, budget, key=lambda passes: seconds_of(facts, speed, phases(passes)))
    return phases(counts[fit - 1]) if fit else []


def passes_of(phases: Phases) -> int:
    """Return the number of epochs of all phases."""
    return sum(epochs for epochs, _ in phases)


def sizes_tried(facts: Facts, size: int) -> list[int]:
    """Return the sizes tried at the end: the last one, one below it and two above, also above the images' own size.

    A random crop enlarges the car, as a larger test image does (Touvron et al. 2019): after training at 160 pixels,
    testing at 176 gained two points, and after 128, at 160, six; after 192, at 176, half a point; after 224, at 256,
    3.5 points where training was long, and up to 1.3 where it was short (images of 224 pixels).
    """
    if not facts.validation:
        return [size]
    return [tried for tried in (size - 16, size, size + 16, size + 32) if tried >= 32]


def seconds_of(facts: Facts, speed: Speed, phases: Phases) -> float:
    """Return the seconds that training all layers takes, including decoding, validation and checkpoints."""
    batch, tried = facts.batch_size, sizes_tried(facts, phases[-1][1])
    scored = {size for _, size in phases} | set(tried)
    moments = min(MOMENT_IMAGES, facts.train) if KERAS[facts.backbone].has_batch_norm else 0
    total = speed.start + speed.decode * (facts.train + facts.validation * len(scored) + moments * len(tried))
    for epochs, size in phases:
        epoch = speed.train(size, batch) * facts.updates * batch + speed.predict(size) * facts.scored
        # A checkpoint and a state three times its size, at most every 30 seconds; a copy of the weights per validation.
        writing = speed.save * epochs * (4 * min(1, epoch / 30) + 0.5)
        total += epochs * epoch + writing + speed.compile_step + speed.compile_predict
    if facts.has_classifier:  # co-tuning starts by predicting the training images
        total += speed.compile_predict + speed.predict(phases[0][1]) * facts.train
    compiled = speed.compile_predict * (2 if moments else 1)
    last = sum(compiled + speed.predict(size) * (facts.scored + moments) for size in tried)
    return total + last + 5 * speed.save


def seconds_of_head(facts: Facts, speed: Speed, size: int) -> float:
    """Return the seconds that training a head on cached features takes."""
    images = facts.train + facts.validation
    epochs = epochs_of_head(facts)
    steps = epochs * (facts.updates + facts.scored / facts.batch_size)
    features = speed.compile_predict + images * (speed.predict(size) + speed.decode)
    step, step_per_class = SECONDS_OF_HEAD_STEP
    training = speed.compile_predict + steps * (step + step_per_class * facts.classes)
    return speed.start + features + training + epochs / 2 * speed.save


def epochs_of_head(facts: Facts) -> int:
    """Return the number of epochs of a head on cached features, for about `HEAD_UPDATES` updates."""
    return min(40, max(6, round(HEAD_UPDATES / facts.updates)))
