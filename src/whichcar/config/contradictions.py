"""Settings that are valid by themselves but contradict each other."""

from __future__ import annotations

from collections.abc import Iterator

from whichcar.config.backbones import KERAS
from whichcar.config.experiment import Callbacks, Experiment
from whichcar.config.section import shown


def contradictions(experiment: Experiment) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each contradiction: the settings involved, the one to blame first, and the reason."""
    recipe, callbacks = experiment.recipe, experiment.fit.callbacks
    if recipe.warmup_steps and recipe.warmup_share:
        why = f"recipe.warmup_steps is {recipe.warmup_steps}, too; keep one of them"
        yield ("recipe.warmup_share", "recipe.warmup_steps"), why
    if recipe.schedule == "cosine" and callbacks.reduce_on_plateau:
        why = "both set the learning rate; delete reduce_on_plateau, or write schedule: constant"
        yield ("recipe.schedule", "fit.callbacks.reduce_on_plateau"), why
    if recipe.rate_factors and callbacks.reduce_on_plateau:
        why = "both lower the learning rate; delete one of them"
        yield ("recipe.rate_factors", "fit.callbacks.reduce_on_plateau"), why
    if recipe.cached_features:
        yield from _not_with_features(experiment)
    yield from _not_with_a_frozen_backbone(experiment)
    if experiment.recipe.co_tuning and experiment.model.weights is None:
        why = "needs ImageNet's classifier, but model.weights is null; give imagenet or a file with the top layer"
        yield ("recipe.co_tuning", "model.weights"), why
    yield from _not_with_the_backbone(experiment)
    size, shape = experiment.data.image_size, experiment.model.input_shape[:2]
    if any(fixed not in (None, wanted) for fixed, wanted in zip(shape, size, strict=True)):
        why = f"is {list(shape)} but data.image_size is {list(size)}; delete input_shape, and it follows image_size"
        yield ("model.input_shape", "data.image_size"), why
    trained = [stage.image_size for stage in recipe.stages] or [size]
    largest = [max(sides) for sides in zip(*trained, strict=True)]
    cache = experiment.data.cache_size
    if cache and not recipe.cached_features and (cache[0] < largest[0] or cache[1] < largest[1]):
        why = f"is {list(cache)}, and images are trained at {largest}, to which they would be enlarged; delete it"
        yield ("data.cache_size", "data.image_size"), why
    if not experiment.data.held_out_share:
        yield from _not_without_validation(experiment)
    yield from _not_the_evaluated(callbacks)
    for name in ("model_checkpoint", "early_stopping", "reduce_on_plateau"):
        callback = getattr(callbacks, name)
        if callback and callback.mode == ("max" if callback.monitor.endswith("loss") else "min"):
            key = f"fit.callbacks.{name}"
            why = f"{callback.mode} would take the worst {callback.monitor} for the best; write auto or delete the line"
            yield (f"{key}.mode", f"{key}.monitor"), why


def _not_with_the_backbone(experiment: Experiment) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield settings that the backbone does not support: stages, layers, image sizes or file format."""
    name, recipe = experiment.model.backbone, experiment.recipe
    known = KERAS.get(name)
    place, filepath = "fit.callbacks.model_checkpoint.filepath", experiment.fit.callbacks.model_checkpoint.filepath
    if filepath.endswith(".h5") and not (known and known.fits_h5):
        why = f"Keras loads no {name} from .h5; write {filepath.removesuffix('.h5')}.keras"
        yield (place, "model.backbone"), why
    if known is None:
        return
    if recipe.freeze > len(known.stages):
        yield (
            ("recipe.freeze", "model.backbone"),
            f"must be at most {len(known.stages)}, the stages of {name}; got {recipe.freeze}",
        )
    for key in ("precise_batch_norm", "batch_norm_momentum"):
        if getattr(recipe, key) and not known.has_batch_norm:
            yield (f"recipe.{key}", "model.backbone"), f"{name} has no batch normalization; delete it"
    if recipe.co_tuning and not known.has_classifier:
        why = f"{name} has no single layer from its features to ImageNet's classes; delete it"
        yield ("recipe.co_tuning", "model.backbone"), why
    sizes = {"data.image_size": [experiment.data.image_size], "recipe.test_sizes": recipe.test_sizes}
    for place, used in {**sizes, "recipe.stages": [stage.image_size for stage in recipe.stages]}.items():
        small = [list(size) for size in used if min(size) < known.smallest]
        if small:
            yield (place, "model.backbone"), f"{name} takes at least {known.smallest} pixels a side; got {small[0]}"


def _not_without_validation(experiment: Experiment) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield settings that need validation images."""
    callbacks, joins = experiment.fit.callbacks, experiment.data.train_on_validation
    share = "data.train_on_validation" if joins else "data.validation_split"
    why = f"needs validation images, but {share} is {'true' if joins else 0}"
    for name in ("model_checkpoint", "early_stopping", "reduce_on_plateau"):
        callback = getattr(callbacks, name)
        if callback and callback.monitor.startswith("val_"):
            key = f"fit.callbacks.{name}.monitor"
            yield (key, share), f"{callback.monitor} {why}; write {callback.monitor.removeprefix('val_')}"
    filepath = callbacks.model_checkpoint.filepath
    if "{val_" in filepath:
        key = "fit.callbacks.model_checkpoint.filepath"
        yield (key, share), f"{shown(filepath)} {why}; write {filepath.replace('{val_', '{')}"
    if len(experiment.recipe.test_sizes) > 1:
        yield ("recipe.test_sizes", share), f"{why}; keep the one size to predict at"


def _not_the_evaluated(callbacks: Callbacks) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield settings with which another epoch would be evaluated than restore_best_weights asks for."""
    stopping, checkpoint = callbacks.early_stopping, callbacks.model_checkpoint
    if stopping is None or stopping.evaluated is None:
        return
    here, there = "fit.callbacks.early_stopping.restore_best_weights", "fit.callbacks.model_checkpoint"
    epoch = f"the best epoch by {stopping.monitor}" if stopping.restore_best_weights else "the last epoch"
    if checkpoint.monitor != stopping.evaluated:
        why = f"{epoch} is to be evaluated, but model_checkpoint.monitor is {checkpoint.monitor}; delete one of the two"
        yield (here, f"{there}.monitor"), why
    elif checkpoint.save_best_only and not stopping.restore_best_weights:
        yield (here, f"{there}.save_best_only"), f"{epoch} is to be evaluated, but save_best_only is true; delete one"


def _not_with_features(experiment: Experiment) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield settings that would make the backbone's output differ from one epoch to the next."""
    here, recipe, model = "recipe.cached_features", experiment.recipe, experiment.model
    known = KERAS.get(model.backbone)
    if known and recipe.freeze < len(known.stages):
        advice = f"write recipe.freeze: {len(known.stages)}; got {recipe.freeze}"
        yield (here, "recipe.freeze"), f"the backbone is run once, so it must not change: {advice}"
    if model.weights is None:
        yield (here, "model.weights"), "a backbone with random weights is of no use; give imagenet or a file"
    changing = {
        "model.data_aug_layer": model.data_aug_layer,
        "recipe.random_resized_crop": recipe.random_resized_crop,
        "recipe.mixup": recipe.mixup,
        "recipe.cutmix": recipe.cutmix,
        "recipe.rand_augment": recipe.rand_augment,
        "recipe.stages": recipe.stages,
        "recipe.test_sizes": recipe.test_sizes,
    }
    for name, value in changing.items():
        if value:
            yield (here, name), f"the backbone sees each image once, as it is; delete {name}"


def _not_with_a_frozen_backbone(experiment: Experiment) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield settings that have no effect if no layer of the backbone is trained."""
    recipe, known = experiment.recipe, KERAS.get(experiment.model.backbone)
    if recipe.cached_features or (known and recipe.freeze == len(known.stages)):
        for name in ("co_tuning", "precise_batch_norm", "batch_norm_momentum"):
            if getattr(recipe, name):
                here = "recipe.cached_features" if recipe.cached_features else "recipe.freeze"
                why = f"it serves to train the backbone, which is frozen; delete recipe.{name}"
                yield (here, f"recipe.{name}"), why
