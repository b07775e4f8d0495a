"""A client for `whichcar serve` that needs only Python."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whichcar.errors import ConfigError, DataError, ServerError
from whichcar.parallel import ordered_map
from whichcar.records import Answer, Box, Crop, ExplanationMap, NoVehicle, Prediction, Skipped
from whichcar.text import one_line, reason_of, without_password

if TYPE_CHECKING:
    from whichcar.inference.input_crop import Vehicles

_Idle = list[http.client.HTTPConnection]
_CONNECTIONS = 4
_AGAIN = (429, 503)
_OF_THE_IMAGE = ("unreadable", "empty", "too large")
_LONGEST_PAUSE = 30.0  # seconds
_NOT_OURS = "the answer is not one of `whichcar serve`; see what listens at this address"


class Client:
    """A model on a server, used like `Classifier`.

    Args:
        address: the server's address.
        token: a bearer token, if the server needs one.
        timeout: seconds for one answer.
        retries: how often an image is sent again if the server is busy, after the delay that it asks for.

    Raises:
        ServerError: the address is not a valid server address.
        ConfigError: the token cannot be sent.

    Example:
        >>> client = Client("http://127.0.0.1:8000")
        >>> client.predict(["street.jpg", "yard.png"], confidence=0.95)[0].answer
    """

    def __init__(
        self, address: str = "http://127.0.0.1:8000", token: str | None = None, timeout: float = 60.0, retries: int = 8
    ) -> None:
        """Store the address; the first connection is made with the first request."""
        self._name = one_line(without_password(address))
        try:
            parts = urllib.parse.urlsplit(address)
            host, port = (parts.hostname or "").encode("idna").decode(), parts.port
        except ValueError as error:
            raise self._error(f"is no address of a server ({reason_of(error)}); write http://HOST:PORT") from error
        if parts.scheme not in ("http", "https") or not host:
            raise self._error("is no address of a server; write http://HOST:PORT")
        if token and not re.fullmatch(r"[ -~\xa0-\xff]+", token):
            raise ConfigError("token: must be one line of Latin-1 characters, as headers of HTTP are")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connect: Callable[[], http.client.HTTPConnection] = lambda: kind(host, port, timeout=timeout)
        self._path = urllib.parse.quote(parts.path.rstrip("/"), safe="/%")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._retries = retries

    def model(self) -> dict[str, Any]:
        """Return the server's description of its model: name, checksum, class names, card.

        Raises:
            ServerError: the server cannot be reached, or refuses the request.
        """
        with self._connections() as idle:
            return self._answer(idle, threading.Event(), "GET", "/model")

    def predict(
        self,
        images: str | os.PathLike[str] | bytes | Iterable[str | os.PathLike[str] | bytes],
        top: int = 5,
        confidence: float | None = None,
        vehicles: Vehicles | None = None,
        explain: bool = False,
    ) -> list[Prediction | Skipped]:
        """Return one row per image or vehicle, in order, as `Classifier.predict` does; a few are sent at once.

        Args:
            images: a file's path or its content (bytes), or several of these.
            top: number of classes per row.
            confidence: the required accuracy, as for `Classifier.predict`.
            vehicles: `all` or `largest`, as for `Classifier.predict`.
            explain: add an `explanation` to each row: where in the image the network sees its answer.

        Raises:
            DataError: `images` contains something else.
            ServerError: the server cannot be reached, or refuses the request.
        """
        several = isinstance(images, Iterable) and not isinstance(images, str | bytes | os.PathLike)
        given = {"top": top, "confidence": confidence, "vehicles": vehicles, "explain": "true" if explain else None}
        options = {name: value for name, value in given.items() if value is not None}
        route = f"/predict?{urllib.parse.urlencode(options)}"

        def rows(numbered: tuple[int, str | os.PathLike[str] | bytes]) -> list[Prediction | Skipped]:
            number, image = numbered
            if not isinstance(image, str | bytes | os.PathLike):
                raise DataError(f"images: takes paths of files, or their content as bytes; got {type(image).__name__}")
            path = f"image {number}" if isinstance(image, bytes) else Path(image)
            try:
                content = image if isinstance(image, bytes) else Path(image).read_bytes()
            except OSError as error:
                return [Skipped(path, reason_of(error))]
            return self._rows(idle, stop, route, path, content)

        listed: Any = images if several else [images]
        stop = threading.Event()
        with self._connections() as idle:
            answers = ordered_map(rows, enumerate(listed, 1), _CONNECTIONS, stop=stop)
            return [row for found in answers for row in found]

    @contextlib.contextmanager
    def _connections(self) -> Iterator[_Idle]:
        """Yield a list in which threads leave their connections for the next request; all are closed at the end."""
        idle: _Idle = []
        try:
            yield idle
        finally:
            for connection in idle:
                connection.close()

    def _rows(
        self, idle: _Idle, stop: threading.Event, route: str, path: Path | str, content: bytes
    ) -> list[Prediction | Skipped]:
        try:
            answer = self._answer(idle, stop, "POST", route, content)
        except ServerError as error:
            if error.reason not in _OF_THE_IMAGE:
                raise
            return [Skipped(path, error.sentence.removeprefix("image: ").removesuffix("."))]
        try:
            row = answer["images"][0]
            return [_prediction(path, one) for one in row.get("vehicles", [row])] or [NoVehicle(path, row["outcome"])]
        except (LookupError, TypeError, AttributeError) as error:
            raise self._error(_NOT_OURS) from error

    def _answer(
        self, idle: _Idle, stop: threading.Event, method: str, route: str, body: bytes | None = None
    ) -> dict[str, Any]:
        for attempt in range(self._retries + 1):
            try:
                status, headers, content = self._ask(idle, method, route, body)
            except (OSError, http.client.HTTPException) as error:
                raise self._error(f"cannot be reached ({reason_of(error)})") from error
            if status == 200:
                return self._read(content)
            if status not in _AGAIN or attempt == self._retries:
                break
            pause = headers.get("Retry-After", "")
            if stop.wait(min(_LONGEST_PAUSE, float(pause) if pause.isdecimal() else 1.0)):
                break
        try:
            problem = json.loads(content)
            sentence, reason = str(problem["error"]), str(problem.get("reason", ""))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            sentence, reason = f"the server answers {status}", ""
        raise ServerError(f"{self._name}: {sentence}", sentence, status, reason)

    def _read(self, content: bytes) -> dict[str, Any]:
        """Return an answer as a JSON object; the page of another program, such as a proxy, is an error."""
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._error(_NOT_OURS) from error
        if not isinstance(answer, dict):
            raise self._error(_NOT_OURS)
        return answer

    def _error(self, reason: str) -> ServerError:
        return ServerError(f"{self._name}: {reason}")

    def _ask(
        self, idle: _Idle, method: str, route: str, body: bytes | None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        headers = self._headers | ({} if body is None else {"Content-Type": "application/octet-stream"})
        try:
            connection, is_new = idle.pop(), False
        except IndexError:
            connection, is_new = self._connect(), True
        try:
            connection.request(method, self._path + route, body, headers)
            answer = connection.getresponse()
            content = answer.read()
        except BaseException as error:
            connection.close()
            if is_new or not isinstance(error, ConnectionError):
                raise
            return self._ask(idle, method, route, body)  # the server has closed the idle connection
        if answer.will_close:
            connection.close()
        else:
            idle.append(connection)
        return answer.status, answer.headers, content


def _prediction(path: Path | str, row: dict[str, Any]) -> Prediction:
    crop, answer, explanation = row["crop"], row["answer"], row["explanation"]
    return Prediction(
        path,
        tuple(one["name"] for one in row["classes"]),
        tuple(one["probability"] for one in row["classes"]),
        crop and _crop(str(path), crop),
        answer and Answer(answer["level"], answer["name"], answer["probability"]),
        explanation and _explanation(explanation),
    )


def _explanation(maps: dict[str, Any]) -> ExplanationMap:
    for_answer, against_rival = (tuple(map(tuple, maps[name])) for name in ("for_answer", "against_rival"))
    return ExplanationMap(maps["rival"], maps["box"] and Box(**maps["box"]), for_answer, against_rival)


def _crop(path: str, crop: dict[str, Any]) -> Crop:
    box = crop["box"] and Box(**crop["box"])
    label, number = crop["vehicle"] or "", crop["number"]
    return Crop(path, box, label, crop["score"], crop["candidates"], crop["outcome"], number)
