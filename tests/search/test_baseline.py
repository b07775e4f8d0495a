"""The base's own values, by which a search starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from whichcar.search.baseline import start_values
from whichcar.search.space import read_spec

BASE = {
    "seed": 1,
    "data": {"directory": "images", "batch_size": 16},
    "model": {"dropout_rate": 0.3, "data_aug_layer": {"random_flip": {"mode": "horizontal"}}},
    "compile": {"optimizer": {"sgd": {"learning_rate": 0.02, "momentum": 0.9}}},
    "recipe": {"label_smoothing": 0.1},
}
OPTIMIZERS = {"adam": {"adam": {}}, "plain": {"sgd": {}}, "sgd": {"sgd": {"momentum": 0.9}}}


def own(folder: Path, space: dict[str, Any]) -> dict[str, Any]:
    (folder / "base.yml").write_text(yaml.safe_dump(BASE))
    (folder / "few.yml").write_text(yaml.safe_dump({"base": "base.yml", "space": space}, sort_keys=False))
    return start_values(read_spec(folder / "few.yml"))


@pytest.mark.parametrize(
    ("space", "values"),
    [
        ({"data.batch_size": [8, 16, 32]}, {"data.batch_size": 16}),
        ({"data.batch_size": [8, 32]}, {}),
        ({"data.batch_size": {"low": 8, "high": 32, "step": 8}}, {"data.batch_size": 16}),
        ({"model.dropout_rate": {"low": 0.0, "high": 0.5}}, {"model.dropout_rate": 0.3}),
        ({"model.dropout_rate": {"low": 0.0, "high": 0.6, "step": 0.1}}, {"model.dropout_rate": 0.3}),
        ({"model.dropout_rate": {"low": 0.0, "high": 0.5, "step": 0.25}}, {}),
        ({"model.dropout_rate": {"low": 0.4, "high": 0.5}}, {}),
        ({"fit.epochs": [5, 10]}, {"fit.epochs": 10}),  # the default, where the base says nothing
        ({"recipe.random_resized_crop": [None, {"side": [0.5, 1.0]}]}, {"recipe.random_resized_crop": None}),
        (
            {"model.data_aug_layer.random_flip": [None, {"mode": "horizontal"}]},
            {"model.data_aug_layer.random_flip": '{"mode": "horizontal"}'},
        ),
    ],
)
def test_the_bases_values_are_found_in_the_space(tmp_path: Path, space: dict[str, Any], values: dict[str, Any]) -> None:
    assert own(tmp_path, space) == values


def test_a_section_equals_the_base_where_only_its_varied_numbers_differ(tmp_path: Path) -> None:
    rate = {"low": 0.001, "high": 0.1, "log": True, "when": {"compile.optimizer": ["plain", "sgd"]}}
    space = {"compile.optimizer": {"choices": OPTIMIZERS}, "compile.optimizer.sgd.learning_rate": rate}
    assert own(tmp_path, space) == {"compile.optimizer": "sgd", "compile.optimizer.sgd.learning_rate": 0.02}


def test_without_the_base_among_the_choices_dependent_hyperparameters_are_left_out(tmp_path: Path) -> None:
    rate = {"low": 0.001, "high": 0.1, "when": {"compile.optimizer": "plain"}}
    optimizers = {"choices": {name: OPTIMIZERS[name] for name in ("adam", "plain")}}
    space = {"compile.optimizer": optimizers, "compile.optimizer.sgd.learning_rate": rate, "recipe.ema": [0.0, 0.9]}
    assert own(tmp_path, space) == {"recipe.ema": 0.0}
