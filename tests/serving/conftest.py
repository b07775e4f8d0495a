"""A server of the colour bundle in a process of its own, as `whichcar serve` starts it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from whichcar.inference.bundle import write_bundle

from ..bundles import calibrated_for, colour_bundle

RED, BLUE, GREEN = (250, 10, 10), (10, 10, 250), (20, 200, 30)
CELL = 80  # pixels of a vehicle in a street
Part = tuple[str, str | None, bytes]


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401
        return json.loads(self.body)


@dataclass
class Running:
    """A server, and what it wrote to standard error once it has ended."""

    process: subprocess.Popen[str]
    port: int
    log: str = ""
    seen: list[int] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            self.seen.append(answer.status)
            return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def post(self, body: bytes, query: str = "", **headers: str) -> Reply:
        return self.ask("POST", f"/predict{query}", body, {"Content-Type": "image/png"} | headers)

    def send(self, *parts: Part, query: str = "") -> Reply:
        body, kind = form(*parts)
        return self.ask("POST", f"/predict{query}", body, {"Content-Type": kind})

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        self.log += self.process.communicate(timeout=40)[1]
        return self.process.returncode

    def workers(self) -> list[int]:
        threads = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sorted(int(child) for thread in threads for child in (thread / "children").read_text().split())


def form(*parts: Part) -> tuple[bytes, str]:
    """A form of (field, file name or None, content), and its content type."""
    boundary, body = uuid.uuid4().hex, bytearray()
    for name, file, content in parts:
        shown = "" if file is None else f'; filename="{file}"'
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'.encode()
        body += content + b"\r\n"
    return bytes(body) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def image(colour: Sequence[int] = RED, kind: str = "PNG", size: tuple[int, int] = (48, 36), **options: Any) -> bytes:  # noqa: ANN401
    file = io.BytesIO()
    Image.fromarray(np.full((size[1], size[0], 3), colour, np.uint8)).save(file, kind, **options)
    return file.getvalue()


def street(*vehicles: tuple[tuple[int, int], Sequence[int]], cell: int = CELL) -> bytes:
    """An image with a vehicle of a colour in each cell (column, row) of 4 x 4, as the blue-spot detector sees them."""
    pixels = np.full((4 * cell, 4 * cell, 3), 128, np.uint8)
    pixels[..., 2] = 0
    spot = slice(7 * cell // 20, 13 * cell // 20)
    for (column, row), colour in vehicles:
        vehicle = pixels[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        vehicle[:] = colour
        vehicle[spot, spot] = (0, 0, 250)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@contextlib.contextmanager
def running(bundle: Path, *options: str, stdin: int | None = None, **environment: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "whichcar", "serve", str(bundle), "--port", "0", *options]
    process = subprocess.Popen(
        command,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        pytest.fail(process.communicate(timeout=40)[1])
    server = Running(process, int(line.split("127.0.0.1:")[1].split()[0]))
    try:
        yield server
    finally:
        if process.poll() is None:
            server.stop()
        process.stdout.close()


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("serving") / "colours.whichcar"
    write_bundle(colour_bundle(thresholds=calibrated_for({"class": 0.8})), path)
    return path


@pytest.fixture(scope="session")
def server(calibrated: Path) -> Iterator[Running]:
    """A server that stays; its limits are small."""
    with running(calibrated, "--max-megabytes", "1", "--timeout", "10") as server:
        yield server


@pytest.fixture(scope="session")
def cropped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose network was trained on vehicles of 60 pixels or more, cropped with a margin of a tenth."""
    path = tmp_path_factory.mktemp("cropped") / "vehicles.whichcar"
    record = {"settings": {"margin": 0.1, "min_size": 60}, "detector": {"name": "", "sha256": None}}
    thresholds = calibrated_for({"class": 0.5, "make": 0.1})
    write_bundle(colour_bundle(name="vehicles", crop=record, thresholds=thresholds), path)
    return path


@pytest.fixture(scope="session")
def cropping(cropped: Path, blue_spot_file: Path) -> Iterator[Running]:
    """A server that crops images to their vehicles."""
    with running(cropped, "--detector", str(blue_spot_file)) as server:
        yield server
