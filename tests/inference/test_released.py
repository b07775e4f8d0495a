"""The model that comes with the package."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from whichcar.inference.bundle import read_bundle
from whichcar.inference.classifier import Classifier
from whichcar.inference.released import released
from whichcar.synthetic.draw import draw

DATA = os.environ.get("WHICHCAR_DATA")


def test_the_released_model_names_its_data_its_licence_and_what_it_was_measured_on() -> None:
    path = released()["cars196"]
    bundle = read_bundle(path)
    assert (len(bundle.class_names), bundle.image_size, bundle.precision) == (196, (256, 256), "int8")
    assert path.stat().st_size < 26_000_000
    assert "non-commercial" in bundle.licence and bundle.licence in bundle.card
    assert bundle.temperature != 1 and bundle.thresholds is not None and bundle.crop is not None
    assert not re.search(r'"/\w', json.dumps(bundle.as_json())), "no path of the machine that made it"


def test_the_released_model_crops_a_photo_to_its_vehicle_and_answers(tmp_path: Path) -> None:
    draw(tmp_path, classes=2, per_class=2)
    image = next((tmp_path / "car_ims").iterdir())
    (row,) = Classifier().predict(image)
    assert row.crop is not None and len(row.classes) == 5
    assert 0 < sum(row.probabilities) <= 1


@pytest.mark.skipif(not DATA, reason="WHICHCAR_DATA is not set")
def test_the_released_model_knows_the_images_it_was_trained_on() -> None:
    classifier = Classifier(crop=False)
    paths = sorted((Path(str(DATA)) / "car_ims").iterdir())[::400]
    import csv

    with (Path(str(DATA)) / "car_dataset_labels.csv").open() as file:
        labels = {row["img_name"]: row["class"] for row in csv.DictReader(file)}
    correct = [row.best == labels[Path(str(row.path)).name] for row in classifier.predict(paths)]
    assert np.mean(correct) > 0.9
