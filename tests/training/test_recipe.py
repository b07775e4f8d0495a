"""The recipe for a dataset: what holds for all of them, and the rules that are worth a name."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from whichcar.config.backbones import DEFAULT, KERAS
from whichcar.config.experiment import Experiment
from whichcar.config.validate import validate
from whichcar.errors import ConfigError
from whichcar.training.budget import MOST_PASSES, Facts, Speed, largest_size
from whichcar.training.recipe import Choice, choose

CPU = Speed(0.12, 0.0005, 5e-7, 10, 3, 12, 0.002, 0.5)
LOADED = Speed(0.3, 0.002, 1.5e-6, 40, 8, 40, 0.005, 1.3)
GPU = Speed(0.01, 0.00002, 6e-9, 20, 5, 10, 0.0005, 0.3)
IMAGES = [(4, 0), (20, 2), (96, 24), (138, 34), (1600, 400), (5212, 1303), (200_000, 50_000)]
SIDES = [20, 96, 224, 3000]
MINUTES = [1, 4, 20, 60, 300]


def facts() -> Iterator[Facts]:
    for (train, validation), side, classes in itertools.product(IMAGES, SIDES, (2, 196)):
        if classes <= train:
            yield Facts(classes, train, validation, side)


@functools.cache
def choices(weights: str | None = "imagenet") -> list[tuple[Facts, Speed, int, Choice]]:
    return list(chosen_for_all(weights))


def chosen_for_all(weights: str | None) -> Iterator[tuple[Facts, Speed, int, Choice]]:
    for dataset, speed, minutes in itertools.product(facts(), (CPU, LOADED, GPU), MINUTES):
        dataset = replace(dataset, has_classifier=weights is not None and dataset.classes > 2)
        try:
            yield dataset, speed, minutes, choose(dataset, speed, minutes, "data", weights, 0.2)
        except ConfigError:
            continue


def chosen(train: int, minutes: float, speed: Speed = CPU, classes: int = 12, side: int = 224) -> Experiment:
    choice = choose(Facts(classes, train, train // 4, side), speed, minutes, "data", "imagenet", 0.2)
    return Experiment.model_validate(choice.settings)


@pytest.mark.parametrize("weights", ["imagenet", None])
def test_the_settings_are_valid_whatever_the_data(weights: str | None) -> None:
    count = 0
    for _, _, _, choice in choices(weights):
        experiment, problems = validate(choice.settings)
        assert (experiment is not None, problems) == (True, [])
        count += 1
    assert count > 400


def test_the_training_takes_no_more_than_the_minutes_given() -> None:
    assert all(choice.minutes <= minutes for _, _, minutes, choice in choices())


def test_most_of_the_minutes_are_used_unless_more_would_not_help_or_another_pass_does_not_fit() -> None:
    for dataset, speed, minutes, choice in choices():
        experiment = Experiment.model_validate(choice.settings)
        size, passes = experiment.data.image_size[0], experiment.fit.epochs
        if choice.minutes >= 0.7 * minutes or experiment.recipe.cached_features:
            continue
        a_pass = speed.train(size, dataset.batch_size) * dataset.train + speed.predict(size) * dataset.validation
        assert passes == MOST_PASSES or choice.minutes + a_pass / 60 > 0.9 * minutes, (dataset, minutes, choice)


def test_training_sizes_are_multiples_of_32_that_the_images_have_and_those_tried_lie_around_the_last() -> None:
    for dataset, _, _, choice in choices():
        recipe = Experiment.model_validate(choice.settings).recipe
        sizes = [
            *choice.settings["data"]["image_size"],
            *(size for phase in recipe.stages for size in phase.image_size),
        ]
        assert all(size % 32 == 0 and (size <= dataset.side + 16 or size == 32) for size in sizes)
        tried, last = {size for both in recipe.test_sizes for size in both}, sizes[0]
        assert tried in (set(), {size for size in (last - 16, last, last + 16, last + 32) if size >= 32})


def test_phases_grow_and_their_epochs_are_those_of_the_training() -> None:
    for _, _, _, choice in choices():
        experiment = Experiment.model_validate(choice.settings)
        stages = experiment.recipe.stages
        if stages:
            sizes = [stage.image_size for stage in stages]
            assert sizes == sorted(set(sizes)) and sizes[-1] == experiment.data.image_size
            assert sum(stage.epochs for stage in stages) == experiment.fit.epochs


def test_the_minutes_that_an_error_asks_for_suffice() -> None:
    refused = 0
    for dataset, speed in itertools.product(facts(), (CPU, LOADED)):
        try:
            choose(dataset, speed, 0.5, "data", "imagenet", 0.2)
        except ConfigError as error:
            needed = re.search(r"--minutes (\d+)$", str(error))
            assert needed
            assert choose(dataset, speed, float(needed[1]), "data", "imagenet", 0.2).settings
            refused += 1
    assert refused > 20


def test_without_weights_one_pass_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"one epoch of training takes \d+ .* --minutes \d+"):
        choose(Facts(196, 200_000, 50_000, 224), CPU, 3, "data", None, 0.2)


def test_few_minutes_train_a_head_only_and_more_all_layers() -> None:
    short, long = chosen(5212, 3, classes=196), chosen(5212, 60, classes=196)
    assert (short.recipe.freeze, short.recipe.cached_features) == (5, True)
    assert (long.recipe.freeze, long.recipe.cached_features) == (2, False)
    assert [stage.image_size[0] for stage in long.recipe.stages] == [128, 160, 192]


def test_more_minutes_are_spent_on_passes_then_on_size() -> None:
    runs = [chosen(5212, minutes, classes=196) for minutes in (20, 60, 200)]
    assert [run.data.image_size[0] for run in runs] == [128, 192, 192]
    assert sorted({run.fit.epochs for run in runs}) == [run.fit.epochs for run in runs]


def test_the_first_stages_stay_as_they_are_and_few_images_keep_more_of_them_and_are_trained_in_small_batches() -> None:
    few, many = chosen(96, 60), chosen(5212, 200)
    assert (few.recipe.freeze, few.data.batch_size) == (3, 16)
    assert (many.recipe.freeze, many.data.batch_size) == (2, 32)
    assert chosen(8, 60, classes=2).data.batch_size == 8


def test_without_validation_images_the_last_epoch_is_evaluated() -> None:
    choice = choose(Facts(2, 4, 0, 224), CPU, 20, "data", "imagenet", 0.2)
    settings = Experiment.model_validate(choice.settings)
    assert settings.data.validation_split == 0
    assert settings.fit.callbacks.model_checkpoint.monitor == "epoch"
    assert not settings.recipe.test_sizes
    assert choice.reasons["data.validation_split"] == "no images are held out: the last epoch is used"


@pytest.mark.parametrize(("side", "size"), [(10, 32), (64, 64), (96, 96), (224, 192), (256, 224), (4000, 224)])
def test_a_crop_of_the_images_is_not_enlarged(side: int, size: int) -> None:
    assert largest_size(side) == size


def test_a_head_on_pretrained_layers_answers_by_angle_whatever_the_number_of_classes() -> None:
    for classes in (2, 196):
        settings = chosen(5212, 200, classes=classes)
        assert (settings.model.cosine_scale, settings.recipe.head_rate) == (16, 10)
    assert (
        Experiment.model_validate(choose(Facts(2, 5212, 0, 224), CPU, 200, "data", None, 0).settings).model.cosine_scale
        == 0
    )


def test_co_tuning_is_chosen_where_the_weights_have_imagenets_classifier_and_takes_its_time() -> None:
    plain, co_tuned = (choose(Facts(50, 1600, 0, 224, has), CPU, 40, "data", "imagenet", 0) for has in (False, True))
    assert "co_tuning" not in plain.settings["recipe"]
    assert co_tuned.settings["recipe"]["co_tuning"] == 1
    assert co_tuned.settings["fit"]["epochs"] < plain.settings["fit"]["epochs"]


@pytest.mark.parametrize("backbone", sorted(KERAS.keys() - {DEFAULT}))
def test_another_backbone_is_trained_whole_or_frozen_whole_with_valid_settings(backbone: str) -> None:
    whole, head = {0: False}, {len(KERAS[backbone].stages): True}
    for side, validation, (minutes, frozen) in itertools.product((20, 224), (0, 500), ((3, head), (60, whole))):
        dataset = Facts(196, 5212, validation, side, backbone=backbone)
        choice = choose(dataset, CPU, minutes, "data", "imagenet", 0.2)
        experiment, problems = validate(choice.settings)
        assert experiment, problems
        recipe = experiment.recipe
        assert {recipe.freeze: recipe.cached_features} == frozen
        assert recipe.precise_batch_norm == (frozen is whole and not backbone.startswith(("convnext", "vgg")))


def test_every_reason_is_of_a_setting_that_some_choice_has() -> None:
    def names(content: dict, before: str = "") -> Iterator[str]:
        for key, value in content.items():
            yield before + key
            if isinstance(value, dict):
                yield from names(value, f"{before}{key}.")

    taken = [(set(choice.reasons), set(names(choice.settings))) for _, _, _, choice in choices()]
    assert set().union(*(reasons for reasons, _ in taken)) <= set().union(*(settings for _, settings in taken))
