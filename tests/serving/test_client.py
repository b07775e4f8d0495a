"""`whichcar.Client` answers as `Classifier` does."""

from __future__ import annotations

from pathlib import Path

import pytest

import whichcar
from whichcar.errors import ServerError
from whichcar.records import Prediction, Skipped

from ..colours import COLOURS, draw
from .conftest import BLUE, Running, image


def test_the_client_answers_as_the_classifier_does(server: Running, calibrated: Path, tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{number}.jpg", colour) for number, colour in enumerate(COLOURS.values())]
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    paths += [tmp_path / "broken.jpg"]
    wanted = whichcar.Classifier(calibrated).predict(paths, top=2, confidence=0.9)
    answered = whichcar.Client(server.address).predict(paths, top=2, confidence=0.9)
    assert [type(row) for row in answered] == [Prediction] * 3 + [Skipped]
    for one, other in zip(answered, wanted, strict=True):
        assert one.as_row() == pytest.approx(other.as_row(), abs=1e-6)


def test_bytes_and_missing_files_are_rows_and_wrong_options_an_error(server: Running, tmp_path: Path) -> None:
    client = whichcar.Client(f"{server.address}/")
    good, bad = client.predict([image(BLUE), tmp_path / "no.jpg"])
    assert isinstance(good, Prediction) and good.path == "image 1"
    assert isinstance(bad, Skipped)
    assert client.model()["name"] == "colours"
    with pytest.raises(ServerError, match="`top` is a whole number"):
        client.predict(image(), top=0)


def test_a_server_that_is_not_there_and_an_address_that_is_none() -> None:
    with pytest.raises(ServerError, match="cannot be reached"):
        whichcar.Client("http://127.0.0.1:9").predict(b"x")
    with pytest.raises(ServerError, match="is no address of a server"):
        whichcar.Client("localhost:8000")
