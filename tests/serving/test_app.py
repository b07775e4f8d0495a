"""The server over HTTP: answers, refusals in a sentence, headers."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from whichcar.inference.bundle import read_bundle

from .conftest import BLUE, GREEN, RED, Part, Running, image, street


def test_one_image_as_the_body_and_several_in_a_form_have_the_same_answers(server: Running) -> None:
    alone = server.post(image(), "?top=2")
    assert alone.status == 200
    (row,) = alone.json["images"]
    assert row["classes"][0]["name"] == "Red Sedan 2011"
    assert len(row["classes"]) == 2
    several = server.send(
        ("image", "red.png", image()), ("image", "blue.jpg", image(BLUE, "JPEG")), ("top", None, b"2")
    )
    rows = several.json["images"]
    assert [one["name"] for one in rows] == ["red.png", "blue.jpg"]
    assert rows[0] == row | {"name": "red.png"}
    assert rows[1]["classes"][0]["name"] == "Blue C/V Van 2012"
    assert several.json["model"]["name"] == "colours"
    assert len(several.json["model"]["sha256"]) == 64


def test_an_answer_is_as_specific_as_the_accuracy_wanted_allows(server: Running) -> None:
    (sure,) = server.post(image(), "?confidence=0.9").json["images"]
    assert sure["answer"]["level"] == "class"
    (unsure,) = server.post(image((90, 90, 90)), "?confidence=0.9").json["images"]
    assert (unsure["answer"]["level"], unsure["answer"]["name"]) == ("", "unknown")


def test_each_vehicle_has_an_answer_with_its_box(cropping: Running) -> None:
    scene, empty, far = street(((0, 0), RED), ((2, 1), GREEN)), street(), street(((0, 0), RED), cell=40)
    images = [("image", f"{name}.png", content) for name, content in (("two", scene), ("none", empty), ("far", far))]
    two, none, small = cropping.send(*images, ("vehicles", None, b"all")).json["images"]
    best = {one["classes"][0]["name"]: one["crop"] for one in two["vehicles"]}
    assert best["Red Sedan 2011"]["box"] == {"left": 0, "top": 0, "right": 80, "bottom": 80}
    assert best["Green Coupe 2010"]["box"] == {"left": 160, "top": 80, "right": 240, "bottom": 160}
    assert [(one["crop"]["number"], one["crop"]["candidates"]) for one in two["vehicles"]] == [(1, 2), (2, 2)]
    assert none == {"name": "none.png", "problem": None, "vehicles": [], "outcome": "no vehicle"}
    assert (small["vehicles"], small["outcome"]) == ([], "1 vehicle smaller than 60 pixels")
    (one,) = cropping.post(scene, "?vehicles=largest&confidence=0.9").json["images"]
    assert [vehicle["crop"]["number"] for vehicle in one["vehicles"]] == [1]
    assert one["vehicles"][0]["answer"]["level"]
    (whole,) = cropping.post(empty, "").json["images"]
    assert whole["crop"]["outcome"] == "whole: no vehicle"
    assert whole["crop"]["number"] is None
    (whole,) = cropping.post(image(), "?confidence=0.9").json["images"]
    assert (whole["answer"]["name"], whole["crop"]["outcome"]) == ("unknown", "whole: no vehicle")


def test_an_explanation_adds_up_to_the_logits_and_says_what_it_covers(cropping: Running, server: Running) -> None:
    (row,) = cropping.post(street(((1, 2), RED)), "?vehicles=all&explain=true").json["images"]
    (vehicle,) = row["vehicles"]
    maps, (best, second) = vehicle["explanation"], vehicle["classes"][:2]
    assert (maps["predicted"], maps["rival"]) == (best["name"], second["name"])
    assert np.shape(maps["for_answer"]) == (24, 32)
    difference = np.log(best["probability"] / second["probability"])
    assert np.mean(maps["against_rival"]) == pytest.approx(difference, rel=1e-3)
    spot = np.array(maps["for_answer"])[10:14, 13:19]  # blue speaks against red
    assert spot.max() < np.mean(maps["for_answer"])
    assert maps["box"]["left"] < 80 < 160 < maps["box"]["right"]  # with the margin
    (whole,) = server.post(image(), "?explain=1").json["images"]
    assert whole["explanation"]["box"] is None
    assert server.post(image(), "").json["images"][0]["explanation"] is None


def test_an_image_that_cannot_be_read_is_a_row_where_another_one_can(server: Running) -> None:
    reply = server.send(("image", "red.png", image()), ("image", "cut.png", image()[:60]))
    assert reply.status == 200
    sound, cut = reply.json["images"]
    assert sound["problem"] is None
    assert "truncated" in cut["problem"] or "damaged" in cut["problem"]


def bomb(width: int, height: int) -> bytes:
    """A PNG of that many pixels by its header, in a hundred bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    )


def animation() -> bytes:
    return image(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (48, 36), BLUE)])


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"<!doctype html><p>no", "a web page"),
        (b"plain text, no image", "not an image of a known format"),
        (image()[:60], "cut.jpg: "),
        (image(kind="JPEG")[:-40], "truncated"),
        (b"", "empty"),
        (bomb(9000, 9000), "9000 x 9000 has 50 million pixels or more"),
        (animation(), "several frames"),
    ],
    ids=["web page", "text", "truncated PNG", "truncated JPEG", "empty", "too many pixels", "animated"],
)
def test_what_is_no_sound_image_gets_a_sentence(server: Running, content: bytes, sentence: str) -> None:
    reply = server.send(("image", "cut.jpg", content))
    assert reply.status == 422
    assert sentence in reply.json["error"]
    assert "/" not in reply.json["error"].replace("image/", "")
    assert "Traceback" not in reply.json["error"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("?tpo=3", "did you mean `top`?"),
        ("?explane=1", "did you mean `explain`?"),
        ("?explain=maybe", '`explain` must be true or false; got "maybe".'),
        ("?vehicles=some", '`vehicles` must be one of all, largest; got "some".'),
        ("?vehicles=larger", "; did you mean `largest`?"),
        ("?size=1", "there are `top`, `confidence`, `vehicles` and `explain`."),
        ("?top=0", "`top` must be at least 1; got 0."),
        ("?top=five", '`top` must be a whole number; got "five".'),
        ("?top=3&top=4", "given twice"),
        ("?confidence=2", "`confidence` must be less than 1; got 2."),
        ("?confidence=nan", "`confidence` must be a finite number"),
        ("?confidence=0.99", "`confidence` may be up to 0.9 with this model; got 0.99."),
    ],
)
def test_an_unknown_option_gets_a_sentence(server: Running, query: str, sentence: str) -> None:
    reply = server.post(image(), query)
    assert (reply.status, reply.json["reason"]) == (422, "option")
    assert sentence in reply.json["error"]


@pytest.mark.parametrize("parts", [[("photo", "a.png", image())], [("top", None, b"2")]])
def test_a_form_without_the_field_is_refused(server: Running, parts: list[Part]) -> None:
    assert server.send(*parts).status == 422


def test_too_many_bytes_are_refused_before_they_are_read(server: Running) -> None:
    announced = server.ask("POST", "/predict", b"x" * 2_000_000)
    assert (announced.status, announced.json["reason"]) == (413, "too large")
    assert "up to 1 MB" in announced.json["error"]
    chunks = [b"x" * 100_000] * 20
    connection_reply = server.ask("POST", "/predict", iter(chunks))  # type: ignore[arg-type]  # without a length
    assert connection_reply.status == 413


def test_an_empty_body_and_json_are_refused(server: Running) -> None:
    assert server.post(b"").status == 400
    assert server.ask("POST", "/predict", b"{}", {"Content-Type": "application/json"}).status == 415


def test_every_answer_has_security_headers_and_allows_no_other_origin(server: Running) -> None:
    for path in ("/", "/page/page.js", "/model", "/model/card", "/nothing", "/predict", "/openapi.json"):
        headers = server.ask("GET", path, None, {"Origin": "http://elsewhere"}).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "access-control-allow-origin" not in headers, path
        assert "server" not in headers, path


def test_head_is_answered_as_get_without_a_body(server: Running) -> None:
    for path in ("/", "/health", "/ready", "/model", "/v2/health/live", "/nothing"):
        get, head = server.ask("GET", path), server.ask("HEAD", path)
        assert (head.status, head.body) == (get.status, b""), path
        assert head.headers["content-length"] == get.headers["content-length"], path
    assert server.ask("HEAD", "/predict").status == 405


def test_another_method_is_refused_with_the_one_to_use(server: Running) -> None:
    for method, path, right in (("GET", "/predict", "POST"), ("POST", "/model", "GET")):
        reply = server.ask(method, path)
        assert (reply.status, reply.headers["allow"]) == (405, right)
        assert reply.json["error"] == f"This route does not have this method; use {right}."


def test_the_model_says_what_it_is(server: Running, calibrated: Path) -> None:
    model, bundle = server.ask("GET", "/model").json, read_bundle(calibrated)
    assert model["class_names"] == list(bundle.class_names)
    assert model["confidences"] == [0.9]  # none of its answers is certain enough for 0.99
    assert model["card"] == bundle.card
    assert server.ask("GET", "/model/card").body.decode() == bundle.page
    assert str(calibrated.parent) not in json.dumps(model)


def test_health_metrics_and_the_description_of_the_routes(server: Running) -> None:
    server.post(image())
    assert server.ask("GET", "/health").status == 200
    assert server.ask("GET", "/ready").status == 200
    text = server.ask("GET", "/metrics").body.decode()
    for name in ('whichcar_requests_total{route="/predict",status="200"}', "whichcar_batch_images_bucket",
                 'whichcar_stage_seconds_count{stage="inference"}', "whichcar_queue_images 0.0",
                 'whichcar_answers_total{level="class"}', 'whichcar_model_info{name="colours"'):  # fmt: skip
        assert name in text
    routes = server.ask("GET", "/openapi.json").json
    assert set(routes["paths"]["/predict"]["post"]["requestBody"]["content"]) == {"multipart/form-data", "image/*"}
    for reference in re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(routes)):
        assert reference in routes["components"]["schemas"]
    assert server.ask("GET", "/docs").status == 404  # it would load scripts from elsewhere


def test_tensors_of_the_open_inference_protocol(server: Running) -> None:
    pixels = np.full((2, 24, 32, 3), RED, np.uint8)
    pixels[1] = BLUE
    tensor = {"name": "images", "shape": list(pixels.shape), "datatype": "UINT8"}
    body = json.dumps({"id": "7", "inputs": [tensor | {"data": pixels.tolist()}]}).encode()
    reply = server.ask("POST", "/v2/models/colours/infer", body)
    assert reply.status == 200, reply.body
    (output,) = reply.json["outputs"]
    assert (reply.json["id"], output["name"], output["datatype"]) == ("7", "probabilities", "FP32")
    probabilities = np.reshape(output["data"], output["shape"])
    row = server.post(image(size=(32, 24)), "?top=1").json["images"][0]
    assert probabilities[0].max() == pytest.approx(row["classes"][0]["probability"], abs=1e-6)
    assert probabilities.argmax(1)[0] != probabilities.argmax(1)[1]
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": pixels.size}}]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    assert server.ask("POST", "/v2/models/colours/infer", head + pixels.tobytes(), length).json["outputs"] == [output]
    for wrong in ({"shape": [2, 24, 32, 1]}, {"datatype": "FP32"}, {"data": [300]}, {"data": None}, {"name": "x"}):
        body = json.dumps({"inputs": [tensor | {"data": pixels.tolist()} | wrong]}).encode()
        refused = server.ask("POST", "/v2/models/colours/infer", body)
        assert refused.status == 400, wrong
    assert server.ask("POST", "/v2/models/colours/infer", b"[").status == 400
    assert server.ask("POST", "/v2/models/other/infer", b"{}").status == 404
    model = server.ask("GET", "/v2/models/colours").json
    assert (model["platform"], model["inputs"][0]["shape"]) == ("onnxruntime_onnx", [-1, 24, 32, 3])
