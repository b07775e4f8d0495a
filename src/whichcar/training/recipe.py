"""A recipe for a dataset: from its images, the speed of this machine and the minutes given to the settings of a run.

`choose` is a pure function and reads nothing. Where a rule is from published work it says so; "ours" are the runs of
`experiments/README.md` and what `experiments/LOG.md` says of those that failed.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from whichcar.errors import ConfigError
from whichcar.text import plural

AIM = 0.94  # of the minutes are planned: a machine is seldom as quiet as when it was measured
MOST_PASSES = 100  # ours: training accuracy is 0.97 after 10; Salman et al. 2020 gain 4 points from 59 to 150
ENOUGH_PASSES, ENOUGH_UPDATES = 12, 800  # before images above FIRST_PHASE are worth more than further passes
LEAST_PASSES, LEAST_UPDATES = 5, 100  # ours: 5 passes of all layers gave 0.59, a head alone 0.41, 2 passes 0.20
LARGEST = 224  # the size of the ImageNet weights; more costs more than it gave us
SMALLEST = 96
FIRST_PHASE = 128  # no phase before the last is smaller; ours: exp_003
LAST_SHARE = 3 / 17  # of the passes that each phase after the first takes; ours: exp_003
CROP = (0.75, 1.0)  # sides of the random crop; ours: exp_003
COSINE_SCALE, HEAD_RATE = 16, 10  # ours: experiments/README.md, few images
HEAD_UPDATES = 4000
SECONDS_OF_HEAD_STEP = 0.01
BACKWARD = 2  # times a forward pass

Phases = list[tuple[int, int]]  # (epochs, size), small images first


@dataclass(frozen=True, slots=True)
class Facts:
    """What a recipe needs to know of a dataset, and of the weights that training starts from.

    `side` is the shorter side of the median image in pixels; `has_classifier` is true where ImageNet's classifier comes
    with the weights.
    """

    classes: int
    train: int
    validation: int
    side: int
    has_classifier: bool = False

    @property
    def batch_size(self) -> int:
        """Images per step: few images are trained in smaller batches, for more updates in a pass."""
        return min(self.train, 32 if self.train >= 1000 else 16)

    @property
    def updates(self) -> int:
        """Updates in a pass; an incomplete last batch is dropped."""
        return self.train // self.batch_size


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds measured on this machine.

    A forward pass of one image takes `image` and, for each of its pixels, `pixel`; a training step takes three such
    passes of its images and `update`. `compile_step` and `compile_predict` are spent at each new image size, `start`
    once, `decode` for each image and size, `save` for a checkpoint.
    """

    update: float
    image: float
    pixel: float
    compile_step: float
    compile_predict: float
    start: float
    decode: float
    save: float

    def predict(self, size: int) -> float:
        """Seconds for one image in validation."""
        return self.image + self.pixel * size**2

    def train(self, size: int, batch_size: int) -> float:
        """Seconds for one image in training."""
        return (1 + BACKWARD) * self.predict(size) + self.update / batch_size


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings of a run, nested as in YAML, the reason for some by dotted name, and how long it takes.

    `is_complete` is true where more time would not help: the largest images and `MOST_PASSES`.
    """

    settings: dict[str, Any]
    reasons: dict[str, str]
    minutes: float
    is_complete: bool
    remark: str = ""


def frozen_blocks(facts: Facts, weights: str | None) -> int:
    """Blocks of the backbone that stay fixed when the others are trained.

    The first ones find edges and colours, which are the same for every task (Yosinski et al. 2014).
    """
    return 2 if weights and facts.train < 2000 else 0


def largest_size(side: int, crop: float = sum(CROP) / 2) -> int:
    """Return the largest size worth training at, a multiple of 32: a crop is not enlarged.

    An enlarged crop is blurred while a test image is not, which cost us two points. At other sizes feature maps of odd
    width are sampled otherwise, and the network loses confidence.
    """
    return min(LARGEST, max(32, 32 * round(crop * side / 32)))


def choose(facts: Facts, speed: Speed, minutes: float, directory: str, weights: str | None, share: float) -> Choice:
    """Choose the settings of a run that takes the minutes given, or less where more would not help.

    Args:
        facts: of the dataset.
        speed: of this machine, measured with `facts.batch_size` and `frozen_blocks`.
        minutes: for everything from start to end.
        directory: value of `data.directory`.
        weights: value of `model.weights`.
        share: value of `data.validation_split`.

    Raises:
        ConfigError: the minutes do not suffice for any training.
    """
    budget = 60 * AIM * minutes
    phases = _phases(facts, speed, budget)
    if phases and (weights is None or _learns(facts, _passes(phases))):
        return _all_layers(facts, speed, phases, _Start(directory, weights, share))
    sizes = _sizes(largest_size(facts.side, 1.0 if weights else sum(CROP) / 2))
    if weights:
        size = next((size for size in sizes if _head_seconds(facts, speed, size) <= budget), None)
        if size:
            return _head_only(facts, _head_seconds(facts, speed, size), size, _Start(directory, weights, share))
    needed = _head_seconds(facts, speed, sizes[-1]) if weights else _seconds(facts, speed, [(1, sizes[-1])])
    what = "a head on the frozen network" if weights else "one pass over the training images"
    least = math.ceil(needed / 60 / AIM)
    short = f"{minutes:g} minutes do not suffice"
    raise ConfigError(f"{short}: {what} takes {least} on this machine; give --minutes {least}")


@dataclass(frozen=True, slots=True)
class _Start:
    directory: str
    weights: str | None
    share: float


def _sizes(largest: int) -> list[int]:
    """Return the sizes that may be the last, largest first."""
    return [largest, *range(largest - 32, SMALLEST - 1, -32)]


def _phases(facts: Facts, speed: Speed, budget: float) -> Phases:
    """Return the phases that fit: the largest last size that leaves enough passes, else the most passes.

    Empty where not one pass fits.
    """
    best: Phases = []
    for size in _sizes(largest_size(facts.side)):
        phases = _longest(facts, speed, budget, size)
        few = size <= FIRST_PHASE
        passes, updates = (LEAST_PASSES, ENOUGH_UPDATES // 2) if few else (ENOUGH_PASSES, ENOUGH_UPDATES)
        if _passes(phases) >= max(passes, min(3 * passes, math.ceil(updates / facts.updates))):
            return phases
        if _passes(phases) > _passes(best):
            best = phases
    return best


def _learns(facts: Facts, passes: int) -> bool:
    """True where these passes of all layers are worth more than a head on a frozen backbone."""
    updates = passes * facts.updates
    return updates >= LEAST_UPDATES and (passes >= LEAST_PASSES or updates >= ENOUGH_UPDATES)


def _longest(facts: Facts, speed: Speed, budget: float, size: int) -> Phases:
    """Return the most passes that fit when the last are at `size`: all at one size, or where there are many, growing.

    Each phase compiles the step again, which short trainings cannot afford.
    """
    smaller = [small for small in (size - 64, size - 32) if small >= FIRST_PHASE]
    one, growing = (_fitting(facts, speed, budget, sizes) for sizes in ([size], [*smaller, size]))
    return growing if _passes(growing) >= max(ENOUGH_PASSES, _passes(one)) else one


def _fitting(facts: Facts, speed: Speed, budget: float, sizes: list[int]) -> Phases:
    """Return the most passes over these sizes that fit, the first one taking what `LAST_SHARE` leaves."""

    def phases(passes: int) -> Phases:
        last = max(1, round(LAST_SHARE * passes))
        return [(passes - last * (len(sizes) - 1), sizes[0]), *((last, size) for size in sizes[1:])]

    counts = range(len(sizes), MOST_PASSES + 1)
    fit = bisect.bisect_right(counts, budget, key=lambda passes: _seconds(facts, speed, phases(passes)))
    return phases(counts[fit - 1]) if fit else []


def _passes(phases: Phases) -> int:
    return sum(epochs for epochs, _ in phases)


def _test_sizes(facts: Facts, size: int) -> list[int]:
    """Return the sizes tried at the end: the last one, and the next above it where the images have it."""
    return [size] + ([size + 32] if facts.validation and size + 32 <= min(facts.side, LARGEST + 32) else [])


def _seconds(facts: Facts, speed: Speed, phases: Phases) -> float:
    """Return how long a training of all layers takes, with all that surrounds it."""
    batch, tried = facts.batch_size, _test_sizes(facts, phases[-1][1])
    scored = {size for _, size in phases} | set(tried)
    total = speed.start + speed.decode * (facts.train + facts.validation * len(scored))
    for epochs, size in phases:
        epoch = speed.train(size, batch) * facts.updates * batch + speed.predict(size) * facts.validation
        # A checkpoint and a state, three times its size, at most every 30 seconds; copying the weights for validation.
        writing = speed.save * epochs * (4 * min(1, epoch / 30) + 0.5)
        total += epochs * epoch + writing + speed.compile_step + speed.compile_predict
    if facts.has_classifier:  # co-tuning begins with its answers
        total += speed.compile_predict + speed.predict(phases[0][1]) * facts.train
    last = sum(speed.compile_predict + speed.predict(size) * facts.validation for size in tried)
    return total + last + 5 * speed.save


def _head_seconds(facts: Facts, speed: Speed, size: int) -> float:
    """Return how long a head on cached features takes."""
    images = facts.train + facts.validation
    epochs = _head_epochs(facts)
    steps = epochs * (facts.updates + facts.validation / facts.batch_size)
    features = speed.compile_predict + images * (speed.predict(size) + speed.decode)
    return speed.start + features + steps * SECONDS_OF_HEAD_STEP + epochs / 2 * speed.save


def _head_epochs(facts: Facts) -> int:
    return min(40, max(6, round(HEAD_UPDATES / facts.updates)))


def _head_only(facts: Facts, seconds: float, size: int, start: _Start) -> Choice:
    reasons = {
        "data.image_size": "at most the images' own size, in steps of 32",
        "recipe.freeze": "the time does not suffice to train all layers: the whole backbone stays as it is",
        "recipe.cached_features": "the backbone runs once over the images, then only the head is trained",
        "compile.optimizer": "Adam needs no tuning for a head alone",
    }
    settings = _frame(facts, start, size, _head_epochs(facts))
    settings["compile"] = {"optimizer": {"adam": {"learning_rate": 0.001}}}
    settings["recipe"] = {"schedule": "cosine", "freeze": 5, "cached_features": True}
    remark = "too few passes of all layers fit: only the head is trained, on a frozen backbone; more minutes give more"
    return Choice(settings, _common(facts) | reasons, seconds / 60, True, remark)


def _all_layers(facts: Facts, speed: Speed, phases: Phases, start: _Start) -> Choice:
    passes, size = _passes(phases), phases[-1][1]
    is_complete = passes >= MOST_PASSES and size == largest_size(facts.side)
    settings = _frame(facts, start, size, passes)
    settings["model"]["data_aug_layer"] = {
        "random_flip": {"mode": "horizontal"},
        "random_brightness": {"factor": 0.2},
        "random_contrast": {"factor": 0.2},
    }
    if start.weights:
        settings["model"]["cosine_scale"] = COSINE_SCALE
    rate = round(0.02 * facts.batch_size / 32, 5)
    settings["compile"] = {"optimizer": _optimizer(start.weights, rate)}
    settings["recipe"] = recipe = dict(_recipe(facts, phases, start.weights))
    if facts.validation:
        recipe["test_sizes"] = [[tried, tried] for tried in _test_sizes(facts, size)]
    remark = ""
    if passes < ENOUGH_PASSES and facts.updates * passes < ENOUGH_UPDATES:
        remark = f"only {plural(passes, 'pass', 'passes')} over the training images: more minutes give more"
    reasons = _common(facts) | _reasons(facts, passes, is_complete)
    return Choice(settings, reasons, _seconds(facts, speed, phases) / 60, is_complete, remark)


def _optimizer(weights: str | None, rate: float) -> dict[str, Any]:
    if weights is None:
        return {"adamw": {"learning_rate": 0.001, "weight_decay": 0.02}}
    return {"sgd": {"learning_rate": rate, "momentum": 0.9, "nesterov": True, "weight_decay": 0.003}}


def _recipe(facts: Facts, phases: Phases, weights: str | None) -> Iterator[tuple[str, Any]]:
    """Yield the settings of `recipe` by name."""
    passes = _passes(phases)
    yield "schedule", "cosine"
    yield "warmup_share", 0.06
    if weights:
        yield "head_rate", HEAD_RATE
    if facts.has_classifier:
        yield "co_tuning", 1
    yield "label_smoothing", 0.1
    yield "batch_norm_momentum", 0.9
    yield "random_resized_crop", {"side": list(CROP)}
    if passes >= ENOUGH_PASSES:
        yield "mixup", 0.2
        yield "cutmix", 1.0
        yield "mix_share", 0.5
        yield "plain_epochs", max(1, round(LAST_SHARE * passes))
    if frozen := frozen_blocks(facts, weights):
        yield "freeze", frozen
    if len(phases) > 1:
        yield "stages", [{"epochs": epochs, "image_size": [size, size]} for epochs, size in phases]


def _frame(facts: Facts, start: _Start, size: int, epochs: int) -> dict[str, Any]:
    """Return the settings that do not depend on what is trained."""
    # The accuracy on few validation images takes few values.
    monitor = "epoch" if not facts.validation else "val_accuracy" if facts.validation >= 500 else "val_loss"
    name = "model.{epoch:02d}-{val_loss:.4f}.h5" if facts.validation else "model.{epoch:02d}-{loss:.4f}.h5"
    return {
        "seed": 123,
        "data": {
            "directory": start.directory,
            "validation_split": start.share if facts.validation else 0,
            "image_size": [size, size],
            "batch_size": facts.batch_size,
        },
        "model": {"weights": start.weights},
        "compile": {},
        "fit": {
            "epochs": epochs,
            "callbacks": {
                "model_checkpoint": {"filepath": name, "monitor": monitor, "save_best_only": True, "keep": 1}
            },
        },
    }


def _common(facts: Facts) -> dict[str, str]:
    few = {
        "data.validation_split": "too few images to set any aside: the last epoch is evaluated",
        "fit.callbacks.model_checkpoint.monitor": "without validation images, the last epoch",
    }
    return {
        "data.validation_split": "share of the training images that epochs and sizes are chosen on",
        "data.batch_size": "smaller for fewer than 1,000 images, for more steps in a pass",
        "fit.callbacks.model_checkpoint.monitor": "the loss where there are fewer than 500 validation images",
        "fit.callbacks.model_checkpoint.keep": "a checkpoint takes about 95 MB",
    } | ({} if facts.validation else few)


def _reasons(facts: Facts, passes: int, is_complete: bool) -> dict[str, str]:
    fits = "the most passes that are planned" if is_complete else "all that fit into the minutes"
    return {
        "data.image_size": f"crops of {facts.side} pixels are not enlarged; in steps of 32, up to {LARGEST}",
        "compile.optimizer": "a rate of 0.02 for 32 images a step, in proportion for fewer",
        "fit.epochs": fits,
        "recipe.warmup_share": "the rate grows from zero, then falls to zero along a cosine",
        "recipe.head_rate": "the new head learns faster than the backbone, which has learned before",
        "recipe.co_tuning": "ImageNet's classifier stays while training, so that features are not forgotten",
        "model.cosine_scale": "a head that answers by angle alone: its loss does not explode, also with few classes",
        "recipe.mixup": f"half of the batches are mixed: more passes than about {ENOUGH_PASSES} are learned by heart",
        "recipe.plain_epochs": "the last passes see images as they are",
        "recipe.freeze": "with fewer than 2,000 images the first blocks stay as they are; also faster",
        "recipe.stages": "small images first: most of the learning at a third of the cost, then the details",
        "recipe.test_sizes": "tried on the validation images at the end; the best is kept",
    }
