"""Forms are parsed in memory, and what is wrong with one is said in a sentence."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest

from whichcar.serving import uploads
from whichcar.serving.app import create_app
from whichcar.serving.problems import Refused
from whichcar.serving.service import Row
from whichcar.serving.settings import Job, ServerSettings
from whichcar.serving.uploads import Buffered, parse

from .conftest import form
from .test_infer import START, Model, send


def test_a_form_has_images_and_options() -> None:
    upload = parse(*form(("image", "a.png", b"\0\1\r\n--"), ("top", None, b"3"), ("image", "b.png", b"")), 2)
    assert upload.images == [("a.png", b"\0\1\r\n--"), ("b.png", b"")]
    assert upload.options == {"top": "3"}


def test_a_form_is_the_same_in_pieces_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    _, kind = form()
    boundary = kind.partition("boundary=")[2]
    content = f"\r\n--{boundary[:-1]}\r\n-\r\r\n--".encode()  # almost the end of a part
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'.encode()
    body = head + content + f"\r\n--{boundary}--\r\n".encode()
    for size in range(1, len(body) + 1):
        monkeypatch.setattr(uploads, "MEGABYTE", size)
        assert parse(body, kind, 1).images == [("a.png", content)]


SIDES = (1000, 2000)
SIZE = 3 * SIDES[0] * SIDES[1]
FORM, KIND = form(("image", "a.png", bytes(SIZE)))
TENSOR = START.replace(b"1,4,4", b"1,1000,2000").replace(b'"data":[', b'"parameters":{"binary_data_size":1}}]}')


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/predict", FORM, {"content_type": KIND}),
        ("/predict", bytes(SIZE), {"content_type": "image/png"}),
        ("/v2/models/m/infer", TENSOR + bytes(SIZE), {"inference_header_content_length": str(len(TENSOR))}),
    ],
    ids=["form", "image", "tensor"],
)
def test_an_upload_is_in_memory_once_while_its_images_wait(path: str, body: bytes, headers: dict[str, str]) -> None:
    held: list[int] = []

    class Waiting(Model):
        @property
        def description(self) -> Row:
            return super().description | {"image_size": SIDES}

        async def rows(
            self, jobs: Sequence[Job], until: float, gone: Callable[[], Awaitable[None]] | None = None
        ) -> tuple[Row, list[Row]]:
            held.append(tracemalloc.get_traced_memory()[0])
            raise Refused(503, "", "")

    app = create_app(Waiting(ServerSettings()))
    tracemalloc.start()
    try:
        asyncio.run(send(app, body, path, **headers))
    finally:
        tracemalloc.stop()
    assert SIZE <= held[0] < 1.2 * SIZE


def test_any_other_body_is_one_image() -> None:
    assert parse(b"abc", "application/x-www-form-urlencoded", 1).images == [("image", b"abc")]


@pytest.mark.parametrize(
    ("name", "shown"), [("../../etc/passwd", "passwd"), ("C:\\fotos\\car.jpg", "car.jpg"), ("a\tb.png", "a\\tb.png")]
)
def test_a_name_is_without_folders_and_control_characters(name: str, shown: str) -> None:
    assert parse(*form(("image", name, b"x")), 1).images[0][0] == shown


@pytest.mark.parametrize(
    ("parts", "status", "sentence"),
    [
        ([("file", "a.png", b"x")], 422, "belongs in the form field `image`, not `file`"),
        ([("top", None, b"3")], 422, "has no image"),
        ([("top", None, b"3"), ("top", None, b"4"), ("image", "a", b"x")], 422, "`top` is given twice"),
        ([("image", None, b"x" * 999)], 422, "neither a file nor a short option"),
        ([("image", "a", b"x"), ("image", "b", b"x"), ("image", "c", b"x")], 413, "up to 2 images"),
    ],
)
def test_a_wrong_field_is_named(parts: list[tuple[str, str | None, bytes]], status: int, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence) as refused:
        parse(*form(*parts), 2)
    assert refused.value.status == status


def test_a_broken_form_is_refused_whatever_is_wrong() -> None:
    rng = np.random.default_rng(7)
    sound, kind = form(("image", "a.png", b"\x89PNG" * 20), ("top", None, b"3"))
    kinds = [
        kind,
        "multipart/form-data",
        'multipart/form-data; boundary="',
        "multipart/form-data; boundary=" + "x" * 99,
    ]
    for number in range(1500):
        broken = bytearray(sound)
        for _ in range(int(rng.integers(1, 12))):
            broken[int(rng.integers(len(broken)))] = int(rng.integers(256))
        cut = broken[: int(rng.integers(len(broken)))] if number % 2 else broken
        try:
            parse(bytes(cut), kinds[number % 4 if number % 3 == 0 else 0], 2)
        except Refused as refused:
            assert 400 <= refused.status < 500
            assert refused.sentence.endswith((".", "?"))


def test_memory_is_counted_as_it_comes_and_not_as_it_is_announced() -> None:
    buffered = Buffered(100)
    with buffered.held() as slow, buffered.held() as other:
        slow(10)
        other(80)
        assert buffered.used == 90
        with pytest.raises(Refused, match="holds as many uploads as it can"):
            slow(20)
    assert buffered.used == 0
    with buffered.held() as alone:
        alone(300)  # one that is larger than all may be finds room when it is alone
