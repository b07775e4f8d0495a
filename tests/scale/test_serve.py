"""Ray Serve: the same answers from two replicas, of which one is killed under load."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import inspect
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from whichcar.errors import MissingExtraError
from whichcar.inference.classifier import Classifier
from whichcar.scale.serve import RaySettings, application

from ..colours import COLOURS, draw
from ..waiting import stop, until

# A cluster of its own, which ends with its standard input.
PROGRAM = """
import sys, ray
from whichcar.scale.serve import RaySettings, run
model, port, folder = sys.argv[1:]
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
run(RaySettings(model=model, replicas=2, max_ongoing_requests=2, max_queued_requests=4), port=int(port), blocking=False)
print("ready", flush=True)
sys.stdin.read()
ray.serve.shutdown()
ray.shutdown()
"""


def test_without_ray_serve_the_error_has_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    with pytest.raises(MissingExtraError, match=r"ray\.serve, which Ray Serve needs, is not installed.*\[ray\]"):
        application(RaySettings())


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="replica"):
        RaySettings.model_validate({"replica": 2})


def test_the_command_of_ray_serve_can_tell_what_settings_there_are() -> None:
    assert inspect.signature(application).parameters["settings"].annotation is RaySettings


def test_replicas_get_the_tokens_of_the_command_where_their_node_has_none(
    monkeypatch: pytest.MonkeyPatch, bundle: Path
) -> None:
    built: list[Callable[[], Any]] = []
    deployment = SimpleNamespace(bind=lambda: None)
    ray_serve = SimpleNamespace(
        ingress=lambda build: lambda: built.append(build), deployment=lambda *_, **__: deployment
    )
    monkeypatch.setitem(sys.modules, "ray.serve", ray_serve)
    monkeypatch.setattr("whichcar.scale.serve.ReplicaService", lambda _: os.environ.get("WHICHCAR_TOKENS"))
    monkeypatch.setattr("whichcar.serving.app.create_app", lambda service: service)
    monkeypatch.setenv("WHICHCAR_TOKENS", "secret")
    application(RaySettings(model=str(bundle)))
    for own, given in (("own", "own"), (None, "secret")):
        monkeypatch.setenv("WHICHCAR_TOKENS", own) if own else monkeypatch.delenv("WHICHCAR_TOKENS")
        assert built[0]() == given


@pytest.fixture(scope="module")
def port(bundle: Path) -> Iterator[int]:
    if importlib.util.find_spec("grpc_reflection") is None:  # which Ray's core does not need
        pytest.skip("Ray Serve is not installed (pip install 'whichcar[ray]')")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ray_") as folder:  # Ray's paths must be short
        environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
        command = [sys.executable, "-c", PROGRAM, str(bundle), str(free), folder]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload]
        try:
            assert process.stdout is not None
            while (line := process.stdout.readline()) != "ready\n":
                assert line
            yield free
        finally:
            try:
                process.communicate("", timeout=60)
            finally:
                process.kill()


def ask(port: int, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST", "/predict?top=3", body)
        answer = connection.getresponse()
        return answer.status, answer.read()


def replicas() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ray::ServeReplica:whichcar"):
                found.append(int(path.parent.name))
    return found


@pytest.mark.slow
def test_more_requests_than_may_wait_get_a_503_at_once(port: int, tmp_path: Path) -> None:
    content = draw(tmp_path / "red.jpg", COLOURS["Red Sedan 2011"]).read_bytes()
    before = replicas()
    for replica in before:
        stop(replica)
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(ask(port, content)[0])) for _ in range(24)]
    try:
        for thread in threads:
            thread.start()
        until(lambda: statuses.count(503) >= 12, 30)  # 24 less what two replicas have and what waits
        assert statuses == [503] * len(statuses)
    finally:
        for replica in before:
            os.kill(replica, signal.SIGCONT)
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 503}


@pytest.mark.slow
def test_one_of_two_replicas_is_killed_under_load(port: int, bundle: Path, tmp_path: Path) -> None:
    path = draw(tmp_path / "red.jpg", COLOURS["Red Sedan 2011"])
    content = path.read_bytes()
    status, body = ask(port, content)
    (wanted,) = Classifier(bundle).predict(path, top=3)
    (row,) = json.loads(body)["images"]
    assert status == 200
    assert [one["name"] for one in row["classes"]] == list(wanted.classes)
    assert ask(port, b"no image")[0] == 422
    before, statuses, ended = replicas(), Counter[int | str](), threading.Event()
    assert len(before) == 2

    def load() -> None:
        while not ended.is_set():
            try:
                statuses[ask(port, content)[0]] += 1
            except (OSError, http.client.HTTPException) as error:
                statuses[type(error).__name__] += 1

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    os.kill(before[0], signal.SIGKILL)
    until(lambda: set(replicas()) != set(before) and len(replicas()) >= 2)
    time.sleep(2)
    ended.set()
    for thread in threads:
        thread.join()
    assert statuses[200] > 100
    assert set(statuses) <= {200, 500, 503}
    assert sum(statuses.values()) - statuses[200] <= len(threads)  # what the killed one had
    assert ask(port, content)[0] == 200
