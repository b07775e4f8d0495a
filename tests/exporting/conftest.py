from __future__ import annotations

from pathlib import Path

import pytest

from ..colours import COLOURS, FOLDERS, draw, make_experiment


@pytest.fixture(scope="session")
def colour_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 15 images, 4 of them for validation; not to be written to."""
    folder = tmp_path_factory.mktemp("colour_data") / "data"
    for number, (name, colour) in enumerate(zip(FOLDERS, COLOURS.values(), strict=True)):
        for copy in range(5):
            draw(folder / name / f"{number}{copy}.jpg", colour, seed=10 * number + copy)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, colour_data: Path, colour_model: object) -> Path:
    """An experiment with its data; not to be written to."""
    return make_experiment(tmp_path_factory.mktemp("trained") / "exp_9", colour_data, colour_model)
