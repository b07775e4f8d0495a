"""Settings of a run for a dataset, chosen from its images, the speed of this machine and the time available.

`choose` is a pure function and reads nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from whichcar.config.backbones import DEFAULT, KERAS
from whichcar.errors import ConfigError
from whichcar.text import plural
from whichcar.training.budget import (
    CROP,
    ENOUGH_PASSES,
    ENOUGH_UPDATES,
    LARGEST,
    LAST_SHARE,
    MOST_PASSES,
    Facts,
    Phases,
    Speed,
    epochs_of_head,
    frozen_stages,
    image_sizes,
    is_enough,
    largest_size,
    passes_of,
    phases_that_fit,
    seconds_of,
    seconds_of_head,
    sizes_tried,
)

AIM = 0.94  # share of the minutes that is planned: a machine is rarely as idle as when it was measured
COSINE_SCALE, HEAD_RATE = 16, 10  # ours: experiments/README.md, few images


@dataclass(frozen=True, slots=True)
class Choice:
    """Settings of a run, nested as in YAML, the reasons for some by dotted name, and the expected minutes."""

    settings: dict[str, Any]
    reasons: dict[str, str]
    minutes: float
    remark: str = ""


def choose(facts: Facts, speed: Speed, minutes: float, directory: str, weights: str | None, share: float) -> Choice:
    """Choose the settings of a run that takes `minutes`, or less if more would not help.

    Args:
        facts: facts about the dataset.
        speed: speed of this machine, measured with `facts.batch_size` and `frozen_stages`.
        minutes: time for everything from start to end.
        directory: value of `data.directory`.
        weights: value of `model.weights`.
        share: value of `data.validation_split`.

    Raises:
        ConfigError: `minutes` does not suffice for any training.
    """
    budget = 60 * AIM * minutes
    phases = phases_that_fit(facts, speed, budget)
    if phases and (weights is None or is_enough(facts, passes_of(phases))):
        return _all_layers(facts, speed, phases, _Start(directory, weights, share))
    sizes = image_sizes(largest_size(facts.side, 1.0 if weights else sum(CROP) / 2))
    if weights:
        size = next((size for size in sizes if seconds_of_head(facts, speed, size) <= budget), None)
        if size:
            return _head_only(facts, seconds_of_head(facts, speed, size), size, _Start(directory, weights, share))
    needed = seconds_of_head(facts, speed, sizes[-1]) if weights else seconds_of(facts, speed, [(1, sizes[-1])])
    what = "a head on the frozen network" if weights else "one epoch of training"
    least = math.ceil(needed / 60 / AIM)
    raise ConfigError(
        f"{what} takes {plural(least, 'minute')} on this machine, more than {minutes:g}; use: whichcar new --minutes "
        f"{least}"
    )


@dataclass(frozen=True, slots=True)
class _Start:
    directory: str
    weights: str | None
    share: float


def _head_only(facts: Facts, seconds: float, size: int, start: _Start) -> Choice:
    reasons = {
        "data.image_size": f"near the images' {facts.side} pixels; up to {LARGEST}, and fewer where time is short",
        "recipe.freeze": "the time does not suffice to train all layers: the whole backbone is frozen",
        "recipe.cached_features": "the backbone runs once over the images, then only the head is trained",
        "compile.optimizer": "Adam needs no tuning for a head alone",
    }
    settings = _frame(facts, start, size, epochs_of_head(facts))
    settings["compile"] = {"optimizer": {"adam": {"learning_rate": 0.001}}}
    settings["recipe"] = {"schedule": "cosine", "freeze": len(KERAS[facts.backbone].stages), "cached_features": True}
    remark = "too few epochs of all layers fit: only the head is trained, on a frozen backbone; more minutes give more"
    return Choice(settings, _common(facts) | reasons, seconds / 60, remark)


def _all_layers(facts: Facts, speed: Speed, phases: Phases, start: _Start) -> Choice:
    passes, size = passes_of(phases), phases[-1][1]
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
    settings["compile"] = {"optimizer": optimizer(start.weights, rate)}
    settings["recipe"] = recipe = dict(_recipe(facts, phases, start.weights))
    if facts.validation:
        recipe["test_sizes"] = [[tried, tried] for tried in sizes_tried(facts, size)]
    remark = ""
    if passes < ENOUGH_PASSES and facts.updates * passes < ENOUGH_UPDATES:
        remark = f"only {plural(passes, 'epoch')} of training: more minutes give more"
    reasons = _common(facts) | _reasons(facts, passes, is_complete)
    if start.weights is None:
        del reasons["compile.optimizer"]  # that of SGD
    return Choice(settings, reasons, seconds_of(facts, speed, phases) / 60, remark)


def optimizer(weights: str | None, rate: float) -> dict[str, Any]:
    """Return the value of `compile.optimizer`; `rate` is for pretrained weights."""
    if weights is None:
        return {"adamw": {"learning_rate": 0.001, "weight_decay": 0.02}}
    return {"sgd": {"learning_rate": rate, "momentum": 0.9, "nesterov": True, "weight_decay": 0.003}}


def _recipe(facts: Facts, phases: Phases, weights: str | None) -> Iterator[tuple[str, Any]]:
    """Yield the settings of `recipe` by name."""
    passes = passes_of(phases)
    yield "schedule", "cosine"
    yield "warmup_share", 0.06
    if weights:
        yield "head_rate", HEAD_RATE
    if facts.has_classifier:
        yield "co_tuning", 1
    yield "label_smoothing", 0.1
    if KERAS[facts.backbone].has_batch_norm:
        yield "batch_norm_momentum", 0.9
        yield "precise_batch_norm", True
    yield "random_resized_crop", {"side": list(CROP)}
    if passes >= ENOUGH_PASSES:
        yield "mixup", 0.2
        yield "cutmix", 1.0
        yield "mix_share", 0.5
        yield "plain_epochs", max(1, round(LAST_SHARE * passes))
    if frozen := frozen_stages(facts, weights):
        yield "freeze", frozen
    if len(phases) > 1:
        yield "stages", [{"epochs": epochs, "image_size": [size, size]} for epochs, size in phases]


def _frame(facts: Facts, start: _Start, size: int, epochs: int) -> dict[str, Any]:
    """Return the settings that do not depend on which layers are trained."""
    # With few validation images, accuracy has few possible values.
    monitor = "epoch" if not facts.validation else "val_accuracy" if facts.validation >= 500 else "val_loss"
    loss = "val_loss" if facts.validation else "loss"
    name = f"model.{{epoch:02d}}-{{{loss}:.4f}}.{'h5' if KERAS[facts.backbone].fits_h5 else 'keras'}"
    return {
        "seed": 123,
        "data": {
            "directory": start.directory,
            "validation_split": start.share if facts.validation else 0,
            "image_size": [size, size],
            "batch_size": facts.batch_size,
        },
        "model": {"backbone": facts.backbone, "weights": start.weights},
        "compile": {},
        "fit": {
            "epochs": epochs,
            "callbacks": {
                "model_checkpoint": {"filepath": name, "monitor": monitor, "save_best_only": True, "keep": 1}
            },
        },
    }


def _common(facts: Facts) -> dict[str, str]:
    unvalidated = {
        "data.validation_split": "no images are held out: the last epoch is used",
        "fit.callbacks.model_checkpoint.monitor": "without validation images, the last epoch",
    }
    other = {
        "model.backbone": "the rules for these settings were found with resnet50; for others they are a starting point"
    }
    common = {
        "data.validation_split": "share of the training images that epochs and sizes are chosen on, unless the data "
        "has validation images of its own",
        "data.batch_size": "smaller for fewer than 1,000 images, so that an epoch has more steps",
        "fit.callbacks.model_checkpoint.monitor": "the loss if there are fewer than 500 validation images",
        "fit.callbacks.model_checkpoint.keep": "a checkpoint of resnet50 takes about 95 MB",
    }
    return common | ({} if facts.validation else unvalidated) | ({} if facts.backbone == DEFAULT else other)


def _reasons(facts: Facts, passes: int, is_complete: bool) -> dict[str, str]:
    fits = "the largest planned number" if is_complete else "the largest number that fits into the minutes"
    return {
        "data.image_size": f"random crops of images of {facts.side} pixels are hardly enlarged; a multiple of "
        f"32 up to {LARGEST} that fits into the minutes",
        "compile.optimizer": "learning rate 0.02 for batches of 32, in proportion for smaller ones",
        "fit.epochs": fits,
        "recipe.warmup_share": "the learning rate grows from zero, then falls to zero along a cosine",
        "recipe.head_rate": "the new head needs a higher rate than the pretrained backbone",
        "recipe.co_tuning": "keeps the ImageNet classifier as a second output, to preserve the pretrained features",
        "model.cosine_scale": "cosine head: its loss stays stable, also with few classes",
        "recipe.mixup": f"half of the batches are mixed: beyond about {ENOUGH_PASSES} epochs, the network "
        "would memorize the images",
        "recipe.plain_epochs": "the last epochs are without mixing",
        "recipe.freeze": "two stages are frozen, three if there are fewer than 2,000 images: as accurate, and faster",
        "recipe.precise_batch_norm": "moments recomputed at the end on images without augmentation, at each size "
        "that is tried",
        "recipe.stages": "small images first: more epochs in the same time; then the details",
        "recipe.test_sizes": "tried on the validation images at the end; the best is used",
    }
