from __future__ import annotations

import base64
import io
import socket
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from whichcar.errors import ImageError
from whichcar.images import web
from whichcar.images.web import read_url

from ..loopback import Silent

PAIR = base64.b64encode("jo:pa ss/é".encode()).decode()


def car() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((60, 80, 3), (210, 40, 30), np.uint8)).save(file, "png")
    return file.getvalue()


class Server(ThreadingHTTPServer):
    """An HTTP server on loopback that notes the headers of each request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.seen: list[tuple[str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(Silent):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, dict(self.headers)))
        path = self.path.partition("?")[0]
        if path == "/redirect":
            self.answer(302, {"Location": f"http://localhost:{self.server.server_port}/car.png"})
        elif path == "/to-file":
            self.answer(302, {"Location": "file:///etc/hostname"})
        elif path == "/loop":
            self.answer(302, {"Location": "/loop"})
        elif path == "/private.png" and self.headers.get("Authorization") != f"Basic {PAIR}":
            self.answer(401, {})
        elif path == "/short.png":
            self.answer(200, {"Content-Length": "9999"}, car())
        elif path == "/huge.png":
            self.answer(200, {"Content-Length": str(1 << 40)}, car())
        elif path == "/endless.png":
            self.answer(200, {}, b"x" * 300_000)
        elif path == "/silent.png":
            self.server.stopping.wait(30)
        elif path == "/page.html":
            self.answer(200, {}, b"<!DOCTYPE html><p>no image here</p>")
        elif path.endswith(".png"):
            self.answer(200, {"Content-Length": str(len(car()))}, car())
        else:
            self.answer(404, {})

    def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for header in headers.items():
            self.send_header(*header)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as running:
        running.stopping = threading.Event()  # type: ignore[attr-defined]
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.stopping.set()  # type: ignore[attr-defined]
        running.shutdown()


@pytest.mark.parametrize("path", ["/car.png", "/redirect", "/a%20car.png", "/a car é.png", "/x.png?size=1&a=b c#top"])
def test_the_bytes_at_an_address_come_as_they_are(server: Server, path: str) -> None:
    assert read_url(server.url + path) == car()
    assert all(word.isascii() and " " not in word for word, _ in server.seen)


def test_user_and_password_become_a_header_that_no_other_host_gets(server: Server) -> None:
    with_password = server.url.replace("//", "//jo:pa%20ss%2F%C3%A9@")
    assert read_url(f"{with_password}/private.png") == car()
    read_url(f"{with_password}/redirect")
    assert [path for path, headers in server.seen if "Authorization" in headers] == ["/private.png", "/redirect"]
    with pytest.raises(ImageError) as caught:
        read_url(f"{with_password}/gone.jpg")
    assert (
        str(caught.value) == f"http://jo:***@127.0.0.1:{server.server_port}/gone.jpg: the server answers 404 Not Found"
    )


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/gone.jpg", "the server answers 404 Not Found"),
        ("/private.png", "the server answers 401 Unauthorized"),
        ("/to-file", "the server answers 302"),
        ("/loop", "the server answers 302"),
        ("/short.png", "the connection ended after"),
        ("/huge.png", "larger than 100 MB"),
    ],
)
def test_what_cannot_be_had_says_why(server: Server, path: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        read_url(server.url + path)
    assert str(caught.value).startswith(f"{server.url}{path}: ")
    assert "\n" not in str(caught.value)


def test_an_endless_answer_is_left_at_the_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "LARGEST", 100_000)
    with pytest.raises(ImageError, match="larger than"):
        read_url(f"{server.url}/endless.png")


def test_a_server_that_does_not_answer_is_left(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "SILENCE", 0.2)
    with pytest.raises(ImageError, match="timed out"):
        read_url(f"{server.url}/silent.png")


def test_no_server_is_no_connection() -> None:
    with socket.socket() as silent:  # it has the port and does not listen
        silent.bind(("127.0.0.1", 0))
        with pytest.raises(ImageError, match="no connection"):
            read_url(f"http://127.0.0.1:{silent.getsockname()[1]}/a.jpg")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://host/a.jpg", "ftp:// addresses are not supported"),
        ("s3://bucket/a.jpg", "s3:// addresses are not supported"),
        ("file:///etc/hostname", "file:// addresses are not supported"),
        ("data:://a", "not supported"),
        ("http:///a.jpg", "names no host"),
        ("http://host:port/a.jpg", "not a usable address"),
        ("http://[::1/a.jpg", "not a usable address"),
        ("http://host/caf\udce9.jpg", "not a usable address"),
        (f"http://{'x' * 70}.org/a.jpg", "not a usable address"),
        ("http://host:1/a\nb.jpg", "no connection"),
    ],
)
def test_an_address_that_cannot_be_asked_says_why(url: str, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_url(url)
