"""The memory that a request of the Open Inference Protocol may take."""

from __future__ import annotations

import asyncio
import json
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from whichcar.serving import infer
from whichcar.serving.app import create_app
from whichcar.serving.service import Row, Service
from whichcar.serving.settings import Job, ServerSettings

START = b'{"inputs":[{"name":"images","datatype":"UINT8","shape":[1,4,4,3],"data":['


class Model(Service):
    """Takes up to two images of 4 x 4 pixels."""

    @property
    def description(self) -> Row:
        model = {"class_names": ["a"], "confidences": [], "vehicles": False}
        return {"name": "m", "sha256": "0" * 64, "image_size": (4, 4)} | model

    async def rows(
        self, jobs: Sequence[Job], until: float, gone: Callable[[], Awaitable[None]] | None = None
    ) -> tuple[Row, list[Row]]:
        return self.description, [{"probabilities": [1.0]} for _ in jobs]

    def close(self) -> None:
        pass


async def send(app: Any, body: bytes, path: str = "/v2/models/m/infer", **headers: str) -> tuple[int, bytes]:  # noqa: ANN401
    """Send a request to an ASGI application and return the status and the body of its response."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)

    given = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": given}
    await app(scope, receive, keep)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.mark.parametrize("value", [b"[]", b"{}", b'""', b"1"])
def test_more_values_than_the_images_can_have_are_refused_before_they_are_parsed(value: bytes) -> None:
    app = create_app(Model(ServerSettings(max_images=2)))
    status, answer = asyncio.run(send(app, START + b",".join([value] * 1200) + b"]}]}"))
    assert (status, b"The request has more values than 2 images." in answer) == (400, True)


def test_a_long_text_among_the_values_takes_no_more_memory_than_itself() -> None:
    app, body = create_app(Model(ServerSettings())), START + b'"",' * 47 + b'"' + b"x" * 1_000_000 + b'"]}]}'
    tracemalloc.start()
    try:
        status, answer = asyncio.run(send(app, body))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (status, json.loads(answer)["error"]) == (400, "`data` are 48 whole numbers from 0 to 255.")
    assert most < 20_000_000  # 48 texts as long as the longest are 192 MB


@pytest.mark.parametrize("value", ["true", "null", "1.0", '"1"', "-1", "256", "1e2", "[1]", "{}", "9" * 30])
def test_a_value_is_a_whole_number_of_a_byte(value: str) -> None:
    app = create_app(Model(ServerSettings()))
    body = START + b"1," * 47 + value.encode() + b"]}]}"
    status, answer = asyncio.run(send(app, body))
    assert (status, json.loads(answer)["reason"]) == (400, "tensor")
    assert asyncio.run(send(app, START + b"1," * 47 + b"255]}]}"))[0] == 200


def test_one_request_is_parsed_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    parsing: list[int] = []

    def images(*_: object) -> tuple[str, np.ndarray]:
        parsing.append(1)
        assert len(parsing) == 1
        time.sleep(0.02)
        parsing.pop()
        return "", np.zeros((1, 4, 4, 3), np.uint8)

    monkeypatch.setattr(infer, "_images", images)
    app = create_app(Model(ServerSettings()))

    async def both() -> list[tuple[int, bytes]]:
        return await asyncio.gather(send(app, b"{}"), send(app, b"{}"))

    assert [status for status, _ in asyncio.run(both())] == [200, 200]
