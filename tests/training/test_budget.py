"""How long a training takes, by the numbers of its steps."""

from __future__ import annotations

import pytest

from whichcar.training.budget import Facts, Speed, seconds_of, seconds_of_head

SPEED = Speed(0.12, 0.0005, 5e-7, 10, 3, 12, 0, 0.5)


def test_the_last_batch_of_a_validation_takes_as_long_as_a_full_one() -> None:
    few, filled = (Facts(2, 40, validation, 224) for validation in (20, 32))
    assert seconds_of(few, SPEED, [(5, 128)]) == seconds_of(filled, SPEED, [(5, 128)])
    features = 12 * SPEED.predict(128)  # of the images that are not there
    assert seconds_of_head(filled, SPEED, 128) - seconds_of_head(few, SPEED, 128) == pytest.approx(features)


def test_a_head_takes_longer_the_more_classes_it_has() -> None:
    few, many = (Facts(classes, 5000, 0, 224) for classes in (10, 510))
    steps = 26 * 156  # epochs of 5000 images in batches of 32
    assert seconds_of_head(many, SPEED, 128) - seconds_of_head(few, SPEED, 128) == pytest.approx(steps * 0.005)
