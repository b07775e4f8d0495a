"""The model card describes what the classes are: vehicles only where their names have makes."""

from __future__ import annotations

from typing import Any

import pytest

from whichcar.exporting.images import NOISE
from whichcar.exporting.model_card import with_card
from whichcar.exporting.verify import Form, Verification
from whichcar.metrics import Proportion
from whichcar.taxonomy import taxonomy_of

from ..bundles import colour_bundle

CARS = ("Audi A4 Sedan 2011", "Audi TT Coupe 2011", "BMW M3 Coupe 2012")
BIRDS = ("Black Tern", "House Wren", "Song Sparrow")
VERIFICATION = Verification(NOISE, False, (Form("Keras", 1, Proportion(1, 1), 0, None, None, 1),), "CPU", 1)


@pytest.mark.parametrize(
    ("names", "use"),
    [
        (CARS, "Predicting the make, model and year of the vehicle that an image shows"),
        (BIRDS, "Predicting the class of the object that an image shows"),
    ],
)
def test_the_intended_use_is_that_of_the_classes(names: tuple[str, ...], use: str) -> None:
    bundle = colour_bundle(class_names=names, taxonomy=taxonomy_of(names).as_json())
    card = with_card(bundle, VERIFICATION, None).card
    assert f"{use}, if it fills most of the image." in card
    assert ("vehicle" in card) == (names is CARS)


@pytest.mark.parametrize("classes", [5, 6])
def test_top_5_accuracy_is_shown_for_more_than_five_classes(classes: int) -> None:
    accuracy = {"value": 0.5, "interval_95": [0.4, 0.6]}
    result: dict[str, Any] = {"top_1": accuracy, "top_5": accuracy, "mean_recall": 0.5, "log_loss": 1.0}
    result |= {"data": {"split": "test", "images": 100, "fingerprint": "f", "evaluations": 1}}
    result |= {"classes": [{"images": 0}] * classes, "most_confused": []}
    bundle = with_card(colour_bundle(), VERIFICATION, result)
    for card in (bundle.card, bundle.page):
        assert "top-1 accuracy" in card
        assert ("top-5 accuracy" in card) == (classes > 5)
