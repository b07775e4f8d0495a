"""Options that a server cannot follow."""

from __future__ import annotations

import pytest

from whichcar.serving.options import OPTIONS, options_of
from whichcar.serving.problems import Refused


def test_vehicles_are_refused_where_images_are_taken_as_they_are() -> None:
    description = {"class_names": ["a", "b"], "confidences": [], "vehicles": False}
    with pytest.raises(Refused, match=r"takes images as they are \(--no-crop\); leave `vehicles` out"):
        options_of([("vehicles", "all")], description)
    assert options_of([("vehicles", "all")], description | {"vehicles": True}).vehicles == "all"


def test_an_accuracy_is_refused_where_none_can_be_promised() -> None:
    description = {"class_names": ["a", "b"], "confidences": [], "vehicles": False}
    with pytest.raises(Refused, match=r"not calibrated, or too few .* were correct; leave `confidence` out"):
        options_of([("confidence", "0.8")], description)


def test_the_description_of_the_options_is_that_of_values_that_are_sent() -> None:
    assert {name: schema["type"] for name, schema in OPTIONS.items()} == {
        "top": "integer",
        "confidence": "number",
        "vehicles": "string",
        "explain": "boolean",
    }
    assert (OPTIONS["confidence"]["exclusiveMaximum"], OPTIONS["vehicles"]["enum"]) == (1, ["all", "largest"])
    assert not any(value is None for schema in OPTIONS.values() for value in schema.values())
