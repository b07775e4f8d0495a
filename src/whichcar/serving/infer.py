"""A minimal form of the Open Inference Protocol, version 2, for clients of Triton and KServe: tensors in and out."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from whichcar.images.pixels import Pixels
from whichcar.serving.problems import Refused, busy
from whichcar.serving.schema import InferAnswer, InferInput, InferRequest
from whichcar.serving.service import Service
from whichcar.serving.settings import Job
from whichcar.version import VERSION

_INPUT, _OUTPUT = "images", "probabilities"
_OTHERS = 1000  # maximum number of commas in a request outside `data`
_BINARY = "inference-header-content-length"  # Triton's extension: JSON of that length, followed by the tensors


def add_routes(app: FastAPI, service: Service) -> None:
    """Add the routes under /v2."""

    @app.get("/v2", summary="Open Inference Protocol: the server")
    async def server() -> dict[str, Any]:
        return {"name": "whichcar", "version": VERSION, "extensions": ["binary_tensor_data"]}

    @app.get("/v2/health/live", summary="Open Inference Protocol: alive")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @app.get("/v2/health/ready", summary="Open Inference Protocol: ready")
    async def ready() -> dict[str, bool]:
        if service.draining:
            raise busy("The server is stopping.", "stopping")
        return {"ready": True}

    @app.get("/v2/models/{name}/ready", summary="Open Inference Protocol: the model is ready")
    async def model_ready(name: str) -> dict[str, Any]:
        _check_name(name, service)
        return {"name": name} | await ready()

    @app.get("/v2/models/{name}", summary="Open Inference Protocol: the model")
    async def model(name: str) -> dict[str, Any]:
        _check_name(name, service)
        classes, (height, width) = len(service.description["class_names"]), service.description["image_size"]
        return {
            "name": name,
            "versions": [service.description["sha256"][:12]],
            "platform": service.description["platform"],
            "inputs": [{"name": _INPUT, "datatype": "UINT8", "shape": [-1, height, width, 3]}],
            "outputs": [{"name": _OUTPUT, "datatype": "FP32", "shape": [-1, classes]}],
        }

    inputs = {"type": "array", "items": InferInput.model_json_schema()}
    schema = {"type": "object", "required": ["inputs"], "properties": {"id": {"type": "string"}, "inputs": inputs}}
    parsing = asyncio.Lock()  # a few megabytes of JSON take hundreds as objects
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}

    @app.post(
        "/v2/models/{name}/infer", response_model=InferAnswer, summary="Open Inference Protocol", openapi_extra=body
    )
    async def infer(name: str, request: Request) -> Response:
        from whichcar.serving.app import address_of, gone, received

        until = time.monotonic() + service.settings.timeout
        caller = service.access.caller(request.headers.get("authorization"), address_of(request))
        _check_name(name, service)
        async with received(request, service, until) as content:
            length = request.headers.get(_BINARY, "")
            async with parsing:
                asked, images = await asyncio.to_thread(_images, content, length, service)
            content.clear()  # the images are copies
            service.access.count(caller, len(images))
            jobs = [Job(f"image {number}", image) for number, image in enumerate(images, 1)]
            model, rows = await service.rows(jobs, until, lambda: gone(request))
        data = [value for row in rows for value in row["probabilities"]]
        output = {"name": _OUTPUT, "datatype": "FP32", "shape": [len(rows), len(data) // len(rows)], "data": data}
        version = model["sha256"][:12]
        return JSONResponse({"model_name": model["name"], "model_version": version, "id": asked, "outputs": [output]})


def _check_name(name: str, service: Service) -> None:
    if name != service.description["name"]:
        raise Refused(404, f"There is no such model; this server has `{service.description['name']}`.", "model")


def _images(content: bytearray, length: str, service: Service) -> tuple[str, Pixels]:
    """Return the id of a request and its images, (n, height, width, 3) uint8.

    Raises:
        Refused: the request does not fit the model's input.
    """
    end = int(length) if length.isascii() and length.isdigit() and len(length) < 12 else len(content)
    (height, width), most = service.description["image_size"], service.settings.max_images
    values = most * height * width * 3
    if content.count(b",", 0, end) > values + _OTHERS or sum(content.count(one, 0, end) for one in b"[{") > values:
        raise _wrong(f"The request has more values than {most} images.")
    try:
        asked = InferRequest.model_validate_json(content[:end])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise _wrong(f"The request is not of the protocol: {where + ': ' if where else ''}{first['msg']}.") from error
    if len(asked.inputs) != 1:
        raise _wrong(f"The model has one input, `{_INPUT}`; got {len(asked.inputs)}.")
    given = asked.inputs[0]
    shape = given.shape
    if (given.name, given.datatype) != (_INPUT, "UINT8"):
        raise _wrong(f"The model's input is `{_INPUT}` of the type UINT8.")
    if len(shape) != 4 or shape[1:] != [height, width, 3] or not 1 <= shape[0] <= most:
        raise _wrong(f"The shape is [n, {height}, {width}, 3] with n from 1 to {most}.")
    return asked.id, _values(given, content[end:]).reshape(shape)


def _values(given: InferInput, binary: bytearray) -> Pixels:
    count = math.prod(given.shape)
    if "binary_data_size" in given.parameters:
        if len(binary) != count:
            raise _wrong(f"The shape needs {count} bytes of data; got {len(binary)}.")
        return np.frombuffer(binary, np.uint8)
    values = np.asarray(given.data, object).ravel()  # an array of text has room for the longest in each place
    if values.size != count or {*map(type, values)} != {int} or values.min() < 0 or values.max() > 255:
        raise _wrong(f"`data` are {count} whole numbers from 0 to 255.")
    return values.astype(np.uint8)


def _wrong(sentence: str) -> Refused:
    return Refused(400, sentence, "tensor")
