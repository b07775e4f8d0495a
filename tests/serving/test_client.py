"""`whichcar.Client` answers as `Classifier` does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import whichcar
from whichcar.errors import ConfigError, DataError, ServerError
from whichcar.records import NoVehicle, Prediction, Skipped

from ..colours import COLOURS, draw
from ..loopback import Silent, served
from .conftest import BLUE, GREEN, RED, Running, image, street


def test_the_client_answers_as_the_classifier_does(server: Running, calibrated: Path, tmp_path: Path) -> None:
    paths = [draw(tmp_path / f"{number}.jpg", colour) for number, colour in enumerate(COLOURS.values())]
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    paths += [tmp_path / "broken.jpg"]
    wanted = whichcar.Classifier(calibrated).predict(paths, top=2, confidence=0.9)
    answered = whichcar.Client(server.address).predict(paths, top=2, confidence=0.9)
    assert [type(row) for row in answered] == [Prediction] * 3 + [Skipped]
    for one, other in zip(answered, wanted, strict=True):
        assert one.as_row() == pytest.approx(other.as_row(), abs=1e-6)


def test_each_vehicle_is_a_row_as_with_the_classifier(
    cropping: Running, cropped: Path, blue_spot_file: Path, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{name}.png" for name in ("two", "none", "far")]
    paths[0].write_bytes(street(((0, 0), RED), ((2, 1), GREEN)))
    paths[1].write_bytes(street())
    paths[2].write_bytes(street(((0, 0), RED), cell=40))
    wanted = whichcar.Classifier(cropped, detector=blue_spot_file).predict(paths, vehicles="all")
    first, second, none, far = answered = whichcar.Client(cropping.address).predict(paths, vehicles="all", explain=True)
    assert [type(none), type(far)] == [NoVehicle, NoVehicle]
    for one, other in zip(answered, wanted, strict=True):
        assert one.as_row() == pytest.approx(other.as_row(), abs=1e-6)
    assert isinstance(first, Prediction) and isinstance(second, Prediction)
    assert first.explanation is not None and first.crop is not None
    assert (first.explanation.rival, len(first.explanation.for_answer)) == (first.classes[1], 24)
    assert first.explanation.box is not None and first.crop.box is not None
    assert first.explanation.box.area > first.crop.box.area


def test_bytes_and_missing_files_are_rows_and_wrong_options_an_error(server: Running, tmp_path: Path) -> None:
    client = whichcar.Client(f"{server.address}/")
    good, bad = client.predict([image(BLUE), tmp_path / "no.jpg"])
    assert isinstance(good, Prediction) and good.path == "image 1"
    assert isinstance(bad, Skipped)
    assert client.model()["name"] == "colours"
    with pytest.raises(ServerError, match="`top` must be at least 1; got 0"):
        client.predict(image(), top=0)


@pytest.mark.parametrize("given", [Image.new("RGB", (9, 9)), [3], np.zeros((9, 9, 3), np.uint8)])
def test_what_is_neither_a_path_nor_bytes_is_one_line(given: Any) -> None:  # noqa: ANN401
    with pytest.raises(DataError, match="images: takes paths of files, or their content as bytes; got "):
        whichcar.Client("http://127.0.0.1:9").predict(given)


def test_a_server_that_is_not_there_cannot_be_reached() -> None:
    with pytest.raises(ServerError, match="cannot be reached"):
        whichcar.Client("http://127.0.0.1:9").predict(b"x")


@pytest.mark.parametrize(
    "address",
    [
        "localhost:8000",
        "http://h:abc",
        "http://h:99999",
        "http://\n:80",
        "http://[::1",
        "ftp://h",
        "http://",
        f"http://{'a' * 64}.de",
    ],
)
def test_what_is_no_address_of_a_server_is_one_line(address: str) -> None:
    with pytest.raises(ServerError, match=r"^[^\n]*: is no address of a server[^\n]*; write http://HOST:PORT$"):
        whichcar.Client(address)


@pytest.mark.parametrize("token", ["a\nb", "a\r", "ключ"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ConfigError, match="token: must be one line of Latin-1 characters, as headers of HTTP are"):
        whichcar.Client(token=token)


@pytest.mark.parametrize(
    "body",
    [b"<html>a proxy's page</html>", b"", b"\xff", b"[" * 100_000, b"[]", b"{}", b'{"images": []}', b'{"images": [3]}',
     b'{"images": [{"classes": 3, "crop": null, "answer": null, "explanation": null}]}',
     b'{"images": [{"vehicles": []}]}'],
)  # fmt: skip
def test_an_answer_of_another_program_is_an_error_of_the_server(body: bytes) -> None:
    with other_program(body) as address, pytest.raises(ServerError, match=r"is not one of `whichcar serve`; see what"):
        whichcar.Client(f"{address}/größe x").predict(b"x")


def test_ctrl_c_ends_the_pauses_between_the_retries() -> None:
    asked: list[str] = []
    answered = threading.Event()

    class Busy(Silent):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(429)
            self.send_header("Retry-After", "10")
            self.send_header("Content-Length", "0")
            self.end_headers()
            answered.set()

    def images() -> Iterator[bytes]:
        yield b"x"
        answered.wait(60)
        raise KeyboardInterrupt

    with served(Busy) as address, pytest.raises(KeyboardInterrupt):
        whichcar.Client(address).predict(images())
    assert len(asked) == 1


def other_program(body: bytes) -> contextlib.AbstractContextManager[str]:
    """The address of a server that answers everything with a status of 200 and this."""

    class Handler(Silent):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return served(Handler)
