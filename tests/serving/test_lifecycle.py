"""A busy, dying, changing and stopping server. A worker that is stopped by a signal plays one that takes long."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from whichcar.cli.main import run
from whichcar.inference.bundle import write_bundle
from whichcar.parallel import usable_cores

from ..bundles import colour_bundle
from ..colours import CLASSES
from ..waiting import stop, until
from .conftest import Reply, Running, image, running

QUEUE, TIMEOUT = 3, 3.0
DONE = 'whichcar_reloads_total{result="done"}'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, calibrated: Path) -> Path:
    return Path(shutil.copy(calibrated, tmp_path_factory.mktemp("reloaded") / "cars.whichcar"))


@pytest.fixture(scope="module")
def busy(model: Path) -> Iterator[Running]:
    """A server for tests that stop its workers: however slow the machine is, no request times out meanwhile."""
    with running(model, "--queue", str(QUEUE), "--timeout", "120") as server:
        yield server


@pytest.fixture(scope="module")
def hasty(calibrated: Path) -> Iterator[Running]:
    """A server for tests of the time limit."""
    with running(calibrated, "--timeout", str(TIMEOUT)) as server:
        yield server


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


@contextlib.contextmanager
def stopped(server: Running) -> Iterator[list[int]]:
    workers = server.workers()
    for worker in workers:
        stop(worker)
    try:
        yield workers
    finally:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGCONT)


def value(server: Running, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", server.ask("GET", "/metrics").body.decode(), re.MULTILINE)
    assert found is not None
    return float(found[1])


def occupy(server: Running, pool: ThreadPoolExecutor) -> list[Future[Reply]]:
    """Send one request for each thread of the worker, which is stopped."""
    sent = [pool.submit(server.post, image()) for _ in range(usable_cores())]
    until(lambda: value(server, "whichcar_working_images") == len(sent))
    return sent


def fill(server: Running, pool: ThreadPoolExecutor) -> list[Future[Reply]]:
    """Send one request for each thread of the worker, which is stopped, and for each place in the queue."""
    sent = occupy(server, pool)
    sent += [pool.submit(server.post, image()) for _ in range(QUEUE)]
    until(lambda: value(server, "whichcar_queue_images") == QUEUE)
    return sent


def test_a_full_queue_answers_503_at_once_and_what_was_accepted_is_answered(
    busy: Running, threads: ThreadPoolExecutor
) -> None:
    with stopped(busy):
        sent = fill(busy, threads)
        reply = busy.post(image())
        assert (reply.status, reply.json["reason"], reply.headers["retry-after"]) == (503, "queue full", "1")
    assert [one.result().status for one in sent] == [200] * len(sent)


def test_more_images_than_the_queue_holds_are_refused_for_good(busy: Running) -> None:
    assert busy.send(*[("image", "a.png", image())] * (QUEUE + 1)).status == 413


def test_the_image_of_a_client_that_has_gone_is_not_classified(busy: Running, threads: ThreadPoolExecutor) -> None:
    before = value(busy, "whichcar_batch_images_sum")
    with stopped(busy):
        sent = occupy(busy, threads)
        content = image()
        with socket.create_connection(("127.0.0.1", busy.port)) as client:
            head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}\r\n\r\n"
            client.sendall(head.encode() + content)
            until(lambda: value(busy, "whichcar_queue_images") == 1)
        until(lambda: value(busy, "whichcar_queue_images") == 0)
    assert [one.result().status for one in sent] == [200] * len(sent)
    until(lambda: value(busy, "whichcar_batch_images_sum") >= before + len(sent))
    assert value(busy, "whichcar_batch_images_sum") == before + len(sent)


def test_a_request_has_a_deadline(hasty: Running) -> None:
    with stopped(hasty):
        reply = hasty.post(image())
    assert (reply.status, reply.json["reason"]) == (503, "timeout")
    assert "retry-after" in reply.headers


HEAD = b"POST /predict HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /openapi.json HTTP/1.1\r\nHost: a\r\n"
SLOW = {
    "a body that does not end": (HEAD + b"Content-Length: 100\r\n\r\nabc", b""),
    "a body in drops": (HEAD + b"Content-Length: 100\r\n\r\nabc", b"x"),
    "nothing": (b"", b""),
    "half a line": (b"POST /pre", b""),
    "headers in drops": (HEAD, b"X-A: b\r\n"),
    "a body that is not read, in drops": (GET + b"Content-Length: 100\r\n\r\n", b"x"),
    "answers that are not read": ((GET + b"\r\n") * 2000, b""),
}


def cut_after(port: int, start: bytes, drop: bytes) -> tuple[float, bytes]:
    """Send the start, then drops, and return after how many seconds the server has cut that, and its first bytes."""
    began, answer = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            client.sendall(start)
        while time.monotonic() < began + 10 * TIMEOUT:
            try:
                if drop:
                    client.sendall(drop)
                if start.startswith(GET + b"\r\n"):  # reads nothing
                    time.sleep(0.3)
                    client.send(b"\r")
                    continue
                more = client.recv(1000)
                answer += more
                if not more:
                    break
                time.sleep(0.3 if drop else 0)
            except TimeoutError:
                continue
            except OSError:
                break
    return time.monotonic() - began, answer[:12]


def test_whoever_is_too_slow_is_cut_and_costs_nobody_else(hasty: Running) -> None:
    with ThreadPoolExecutor(len(SLOW)) as pool:
        sent = {name: pool.submit(cut_after, hasty.port, *what) for name, what in SLOW.items()}
        time.sleep(0.5)
        assert hasty.post(image()).status == 200
        for name, done in sent.items():
            seconds, answer = done.result()
            assert seconds < 9 * TIMEOUT, name  # the client gives up after 10
            assert answer == (b"HTTP/1.1 408" if name.startswith("a body") and "read" not in name else answer), name
    assert value(hasty, "whichcar_upload_bytes") == 0


def test_only_the_requests_of_a_worker_that_is_killed_fail_and_another_takes_its_place(
    busy: Running, threads: ThreadPoolExecutor
) -> None:
    with stopped(busy) as workers:
        sent = fill(busy, threads)
        os.kill(workers[0], signal.SIGKILL)
        statuses = sorted(one.result().status for one in sent)
    assert statuses == [200] * QUEUE + [503] * usable_cores()
    assert busy.post(image()).status == 200
    assert len(busy.workers()) == 1 and busy.workers() != workers
    assert value(busy, "whichcar_workers_replaced") == 1


def test_the_model_is_exchanged_without_a_failed_request(
    busy: Running, threads: ThreadPoolExecutor, model: Path
) -> None:
    before, ended = busy.post(image()).json["model"], threading.Event()

    def ask() -> list[tuple[int, str, str]]:
        seen = []
        while not ended.is_set():
            reply = busy.post(image(), "?top=1")
            best = reply.json["images"][0]["classes"][0]["name"]
            seen.append((reply.status, reply.json["model"]["name"], best))
        return seen

    asking = threads.submit(ask)
    names = tuple(f"{name} Newer" for name in CLASSES)
    (old,) = busy.workers()
    try:
        write_bundle(colour_bundle(name="newer", class_names=names), model)
        busy.process.send_signal(signal.SIGHUP)
        (new,) = until(lambda: [worker for worker in busy.workers() if worker != old])
        stop(new)  # the first reload lasts until all other signals are sent
        for _ in range(8):
            busy.process.send_signal(signal.SIGHUP)
        os.kill(new, signal.SIGCONT)
        until(lambda: busy.ask("GET", "/model").json["name"] == "newer")
    finally:
        ended.set()
    seen = asking.result()
    assert set(seen) <= {(200, "colours", "Red Sedan 2011"), (200, "newer", "Red Sedan 2011 Newer")}
    assert before["name"] == "colours"
    until(
        lambda: f"{DONE} 2.0" in busy.ask("GET", "/metrics").body.decode()
    )  # that of the first signal, and one for all that came meanwhile
    model.write_bytes(b"broken")
    busy.process.send_signal(signal.SIGHUP)
    until(lambda: 'result="failed"' in busy.ask("GET", "/metrics").body.decode())
    assert f"{DONE} 2.0" in busy.ask("GET", "/metrics").body.decode()
    assert busy.post(image()).json["model"]["name"] == "newer"


def test_a_server_that_stops_answers_what_it_has_accepted(busy: Running, threads: ThreadPoolExecutor) -> None:
    workers = busy.workers()
    with stopped(busy):
        sent = fill(busy, threads)
        busy.process.send_signal(signal.SIGTERM)
        until(lambda: refused(busy))
    assert [one.result().status for one in sent] == [200] * len(sent)
    assert {one.result().headers["connection"] for one in sent} == {"close"}  # so that no client sends more on it
    busy.log = busy.process.communicate(timeout=30)[1]
    assert busy.process.returncode == 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert "Traceback" not in busy.log and "Error" not in busy.log, busy.log


def test_a_server_whose_terminal_is_closed_answers_what_it_has_accepted_and_ends(
    calibrated: Path, threads: ThreadPoolExecutor
) -> None:
    screen, terminal = os.openpty()
    with running(calibrated, "--timeout", "120", stdin=terminal) as server:
        os.close(terminal)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: f"{DONE} 1.0" in server.ask("GET", "/metrics").body.decode())
        with stopped(server):
            sent = occupy(server, threads)
            os.close(screen)
            server.process.send_signal(signal.SIGHUP)  # by the kernel
            until(lambda: refused(server))
            server.process.send_signal(signal.SIGHUP)  # by the shell
            time.sleep(0.2)
        assert [one.result().status for one in sent] == [200] * len(sent)
        server.log = server.process.communicate(timeout=30)[1]
        assert server.process.returncode == 0, server.log


def test_a_second_signal_ends_a_server_at_once(calibrated: Path, threads: ThreadPoolExecutor) -> None:
    with running(calibrated, "--timeout", "120") as server, stopped(server):
        (sent, *_) = occupy(server, threads)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: refused(server))
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionError):  # and no response of status 500
            sent.result(5)
        server.process.communicate(timeout=15)


def refused(server: Running) -> bool:
    try:
        return server.ask("GET", "/ready").status == 503
    except OSError:
        return True


def test_a_port_in_use_a_missing_model_and_an_empty_list_of_tokens_are_one_line(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tokens").write_text("# none\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert run(["serve", str(model), "--port", str(taken.getsockname()[1])]) == 2
    assert (
        "cannot be listened at (Address already in use); choose another --host or --port\n" in capsys.readouterr().err
    )
    assert run(["serve", str(tmp_path / "no.whichcar"), "--port", "0"]) == 2
    assert run(["serve", str(model), "--port", "0", "--tokens", str(tmp_path / "tokens")]) == 2
