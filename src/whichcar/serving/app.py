"""The routes of the server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from whichcar.serving import infer
from whichcar.serving.frame import Frame
from whichcar.serving.metrics import CONTENT_TYPE
from whichcar.serving.options import OPTIONS, options_of
from whichcar.serving.page import page_file
from whichcar.serving.problems import Refused, busy
from whichcar.serving.schema import PredictAnswer, Problem
from whichcar.serving.service import Row, Service
from whichcar.serving.settings import Job
from whichcar.serving.uploads import FIELD, check_announced, discard, parse, read_body
from whichcar.version import VERSION

_LARGE = 1_000_000  # bytes above which a body is parsed in a thread
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "The body is empty or the form is broken.",
        401: "No valid token.",
        408: "The request was not whole in time.",
        413: "Too many bytes or images.",
        415: "Not an image.",
        422: "An image that cannot be read, or an option or field that is not known.",
        429: "Too many images in a minute; `Retry-After` says when to send it again.",
        503: "The queue is full, the time was over, or a worker died; `Retry-After` says when to send it again.",
    }.items()
}
_IMAGE_FILE = {"type": "string", "format": "binary"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FIELD],
                    "properties": {FIELD: {"type": "array", "items": _IMAGE_FILE}, **OPTIONS},
                }
            },
            "image/*": {"schema": _IMAGE_FILE},
        },
    },
    "parameters": [{"name": name, "in": "query", "schema": schema} for name, schema in OPTIONS.items()],
}


def create_app(service: Service) -> FastAPI:
    """Return the server as an ASGI application; it closes the service on shutdown."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(one) for one in service.started()]
        yield
        for task in tasks:
            task.cancel()
        await asyncio.to_thread(service.close)

    app = FastAPI(title="whichcar", version=VERSION, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(Frame, metrics=service.metrics, draining=lambda: service.draining)
    app.add_exception_handler(Refused, _refused(service))
    app.add_exception_handler(HTTPException, _no_route)
    _add_pages(app, service)
    _add_state(app, service)
    _add_predict(app, service)
    infer.add_routes(app, service)
    return app


def _add_pages(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return page_file("index.html")

    @app.get("/page/{name}", include_in_schema=False)
    def file(name: str) -> Response:
        return page_file(name)

    @app.get("/model/card", include_in_schema=False)
    def card() -> Response:
        page = service.description["page"]
        if not page:
            raise HTTPException(404)
        return HTMLResponse(page)


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health", summary="200 while the process is alive", response_class=PlainTextResponse)
    async def health() -> str:
        return "alive\n"

    @app.get("/ready", summary="200 while requests are accepted", response_class=PlainTextResponse)
    async def ready() -> str:
        if service.draining:
            raise busy("The server is stopping.", "stopping")
        return "ready\n"

    @app.get("/metrics", summary="Counters in the format of Prometheus", response_class=PlainTextResponse)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/model", summary="The model: its classes, checksum, licence and card")
    async def model() -> dict[str, Any]:
        return {name: value for name, value in service.description.items() if name != "page"}


def _add_predict(app: FastAPI, service: Service) -> None:
    @app.post(
        "/predict", response_model=PredictAnswer, responses=_REFUSALS, openapi_extra=_BODY, summary="Classify images"
    )
    async def predict(request: Request) -> Response:
        started = time.monotonic()
        caller = service.access.caller(request.headers.get("authorization"), address_of(request))
        until = started + service.settings.timeout
        async with received(request, service, until) as body:
            kind = request.headers.get("content-type", "")
            most = service.settings.max_images
            parsing = (body, kind, most)
            upload = await asyncio.to_thread(parse, *parsing) if len(body) > _LARGE else parse(*parsing)
            body.clear()  # the images are copies
            options = options_of([*request.query_params.multi_items(), *upload.options.items()], service.description)
            service.access.count(caller, len(upload.images))
            service.metrics.seconds.labels("read").observe(time.monotonic() - started)
            jobs = [Job(name, content, **options.model_dump()) for name, content in upload.images]
            model, rows = await service.rows(jobs, until, lambda: gone(request))
        _count(service, rows)
        seconds = time.monotonic() - started
        service.metrics.seconds.labels("all").observe(seconds)
        if all(row["problem"] for row in rows):
            raise Refused(422, _sentence(rows), "unreadable")
        return JSONResponse({"model": model, "seconds": round(seconds, 4), "images": rows})


@contextlib.asynccontextmanager
async def received(request: Request, service: Service, until: float) -> AsyncIterator[bytearray]:
    """Read a request's body, within the limits of size, memory and time, and count it while the block runs.

    Raises:
        Refused: the body is too large or too slow, too much is queued or in memory, or the client has disconnected.
    """
    most, stream = service.settings.max_bytes, request.stream()
    try:
        check_announced(request.headers, most)
        if service.is_full:
            raise busy("The queue is full; send this request again later.", "queue full")
        with service.buffered.held() as count:
            async with asyncio.timeout(max(0.0, until - time.monotonic())):
                body = await read_body(stream, most, count)
            yield body
    except TimeoutError as error:
        raise Refused(408, "The request was not whole in time; send it again.", "slow") from error
    except ClientDisconnect as error:
        raise Refused(499, "The client closed the connection.", "client gone") from error
    except Refused:
        await discard(stream)
        raise


def address_of(request: Request) -> str:
    """Return the client's address; empty if the transport does not know it."""
    return request.client.host if request.client else ""


async def gone(request: Request) -> None:
    """Wait until the client closes its connection; its request must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _count(service: Service, rows: Sequence[Row]) -> None:
    for row in rows:
        if row["problem"]:
            service.metrics.problems.inc()
            continue
        for answer in row.get("vehicles", [row]):
            level = answer["answer"]["level"] or "unknown" if answer["answer"] else "class"
            service.metrics.answers.labels(level).inc()


def _sentence(rows: Sequence[Row]) -> str:
    first = f"{rows[0]['name']}: {rows[0]['problem']}"
    return f"{first}." if len(rows) == 1 else f"None of the {len(rows)} images can be read; {first}."


def _refused(service: Service) -> Any:  # noqa: ANN401  (FastAPI's type of a handler is that of any exception)
    async def answer(_: Request, error: Refused) -> Response:
        service.metrics.rejected.labels(error.reason).inc()
        return JSONResponse({"error": error.sentence, "reason": error.reason}, error.status, error.headers)

    return answer


async def _no_route(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = getattr(error, "headers", None) or {}
    sentences = {
        404: "There is nothing here; /openapi.json lists the routes.",
        405: f"This route does not have this method; use {headers.get('Allow', 'another')}.",
    }
    sentence = sentences.get(status, "The request cannot be answered.")
    return JSONResponse({"error": sentence, "reason": "route"}, status, headers)
