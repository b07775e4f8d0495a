"""Tracking against a real store of MLflow, and against a real server that is switched off and on."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from whichcar.errors import ConfigError, Interrupted, MissingExtraError, TrackingError
from whichcar.files import write_json
from whichcar.training.run.history import Epoch, draw_curves, write_history
from whichcar.training.tracking import PAUSE_SECONDS, Tracking, tracking_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SETTINGS = {"seed": 5, "data": {"directory": "cars", "image_size": [32, 32]}, "model": {"weights": None}}


def epochs(count: int) -> list[Epoch]:
    return [
        Epoch(n, 2 / n, 0.1 * n, 3 / n, 0.05 * n, 0.01, "32x32", math.nan if n == 1 else 20.0, 60.0 * n, f"{n}.keras")
        for n in range(1, count + 1)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An experiment's folder as it is when training begins."""
    path = tmp_path / "exp_7"
    write_json(path / "resolved.json", {"finished": False, "settings": SETTINGS})
    write_json(path / "environment.json", {"command": "whichcar train c.yml", "cores": 2, "versions": {"keras": "3"}})
    return path


def train(tracking: Tracking, folder: Path, count: int, before: int = 0) -> None:
    """What the loop does: write an epoch, then hand all of them over."""
    with tracking.training():
        tracking.begin(epochs(before))
        for number in range(before + 1, count + 1):
            write_history(folder / "history.csv", epochs(number))
            tracking.epochs(epochs(number))
        draw_curves(folder / "curves.png", epochs(count), "exp_7")


def number_of(folder: Path) -> str:
    return str(json.loads((folder / "tracking.json").read_text())["mlflow"])


def run_of(client: MlflowClient, folder: Path) -> Run:
    return client.get_run(number_of(folder))


def steps(client: MlflowClient, folder: Path, name: str = "val_loss") -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(number_of(folder), name)]


def test_a_run_has_settings_epochs_and_curves(mlflow_store: MlflowClient, folder: Path) -> None:
    train(tracking_of("mlflow", folder), folder, 3)
    run = run_of(mlflow_store, folder)
    assert (run.info.run_name, run.info.status) == ("exp_7", "FINISHED")
    place = mlflow_store.get_experiment(run.info.experiment_id)
    assert place.name == "test_a_run_has_settings_epochs_and_curves"
    assert run.data.params == {
        "seed": "5",
        "data.directory": "cars",
        "data.image_size": "[32, 32]",
        "model.weights": "null",
    }
    assert (run.data.tags["command"], run.data.tags["versions.keras"]) == ("whichcar train c.yml", "3")
    assert steps(mlflow_store, folder) == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert steps(mlflow_store, folder, "images_per_second") == [(2, 20.0), (3, 20.0)], "NaN: not measured"
    assert set(run.data.metrics) == {
        *("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second", "seconds")
    }
    files = {file.path for file in mlflow_store.list_artifacts(run.info.run_id)}
    assert files == {"resolved.json", "history.csv", "curves.png"}


def test_epochs_are_logged_during_training(mlflow_store: MlflowClient, folder: Path) -> None:
    tracking = tracking_of("mlflow", folder)
    with tracking.training():
        tracking.begin([])
        assert run_of(mlflow_store, folder).info.status == "RUNNING"
        tracking.epochs(epochs(1))
        tracking.epochs(epochs(2))
        assert steps(mlflow_store, folder) == [(1, 3.0), (2, 1.5)]


def test_a_resumed_run_logs_no_epoch_twice(mlflow_store: MlflowClient, folder: Path) -> None:
    first = tracking_of("mlflow", folder)
    with pytest.raises(Interrupted), first.training():
        first.begin([])
        first.epochs(epochs(2))
        raise Interrupted("Ctrl-C")
    assert run_of(mlflow_store, folder).info.status == "KILLED"
    again = tracking_of("mlflow", folder)
    with again.training():
        again.begin(epochs(1))  # the state is one epoch older than what was logged
        assert run_of(mlflow_store, folder).info.status == "RUNNING"
        again.epochs([epochs(1)[0], replace(epochs(2)[1], val_loss=7.0)])
        again.epochs(epochs(3))
    assert steps(mlflow_store, folder) == [(1, 3.0), (2, 1.5), (3, 1.0)]
    run = run_of(mlflow_store, folder)
    assert run.info.status == "FINISHED"
    assert len(mlflow_store.search_runs([run.info.experiment_id])) == 1


def test_a_run_that_is_extended_is_logged_with_the_changed_setting_as_a_tag(
    mlflow_store: MlflowClient, folder: Path
) -> None:
    train(tracking_of("mlflow", folder), folder, 1)
    for count in (3, 4):
        write_json(folder / "resolved.json", {"finished": False, "settings": SETTINGS | {"seed": count, "new": True}})
        train(tracking_of("mlflow", folder), folder, count, before=count - 1)
        run = run_of(mlflow_store, folder)
        assert (run.data.params["seed"], run.data.params["new"], run.data.tags["seed"]) == ("5", "true", str(count))
    assert [step for step, _ in steps(mlflow_store, folder)] == [1, 2, 3, 4]


def test_a_training_that_fails_is_a_failed_run(mlflow_store: MlflowClient, folder: Path) -> None:
    tracking = tracking_of("mlflow", folder)
    with pytest.raises(ZeroDivisionError), tracking.training():
        tracking.begin([])
        raise ZeroDivisionError
    assert run_of(mlflow_store, folder).info.status == "FAILED"


def test_a_long_history_is_sent_in_pieces(mlflow_store: MlflowClient, folder: Path) -> None:
    write_json(folder / "resolved.json", {"finished": True, "settings": {f"s{n}": n for n in range(230)}})
    write_history(folder / "history.csv", epochs(205))
    with tracking_of("mlflow", folder).training():
        pass
    assert [step for step, _ in steps(mlflow_store, folder, "seconds")] == list(range(1, 206))
    assert len(run_of(mlflow_store, folder).data.params) == 230


def test_a_run_that_is_not_there_is_an_error_before_anything_is_trained(
    mlflow_store: MlflowClient, folder: Path
) -> None:
    write_json(folder / "tracking.json", {"mlflow": "0" * 32})
    with pytest.raises(TrackingError, match=r"tracking\.json: names run 0{32}, which does not exist at MLFLOW"):
        tracking_of("mlflow", folder)
    (folder / "tracking.json").unlink()
    train(tracking_of("mlflow", folder), folder, 1)
    mlflow_store.delete_run(number_of(folder))
    with pytest.raises(TrackingError, match=r"restore that address, or delete the file to begin a new run"):
        tracking_of("mlflow", folder)


def test_an_address_that_cannot_be_one_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://here")
    with pytest.raises(TrackingError, match=r"^--track mlflow: .*unsupported URI 'gopher://here'.*fix its address"):
        tracking_of("mlflow", folder)


def test_an_unknown_service_lists_the_known(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--track: there is no `wandb`; known: mlflow$"):
        tracking_of("wandb", folder)


def test_a_missing_package_says_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[mlflow\]"):
        tracking_of("mlflow", folder)


def test_trainings_that_begin_at_once_share_the_experiment(mlflow_store: MlflowClient, tmp_path: Path) -> None:
    folders = [tmp_path / f"trial_{number}" for number in range(4)]
    for folder in folders:
        write_json(folder / "resolved.json", {"settings": SETTINGS})
    trackings = [tracking_of("mlflow", folder) for folder in folders]
    together = threading.Barrier(len(folders))

    def begin(tracking: Tracking) -> None:
        together.wait()
        tracking.begin([])

    threads = [threading.Thread(target=begin, args=(tracking,)) for tracking in trackings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({run_of(mlflow_store, folder).info.experiment_id for folder in folders}) == 1


def test_a_server_that_is_down_is_reported_once_and_asked_seldom(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    requests, now = [], [0.0]

    def unreachable(_: Tracking) -> MlflowClient:
        requests.append(now[0])
        raise ConnectionError("nobody there")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setattr(Tracking, "_client", property(unreachable))
    monkeypatch.setattr(Tracking, "_is_down", lambda *_: True)
    monkeypatch.setattr("whichcar.training.tracking.time.monotonic", lambda: now[0])
    tracking = tracking_of("mlflow", folder)
    with tracking.training():
        tracking.begin([])
        for number in range(1, 6):
            now[0] += PAUSE_SECONDS / 2 + 1
            tracking.epochs(epochs(number))
    assert len(requests) == 4, "at the start, after a pause, after another, at the end"
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert messages == [
        "tracking: nobody there; continuing; will retry later",
        "tracking: not all has been logged; the same command logs what is missing",
    ]


class Gate:
    """A TCP port in front of another, which can be shut: then whoever comes is refused, as by a server that is down."""

    def __init__(self, port: int) -> None:
        self.behind = port
        self.listening: socket.socket | None = None
        self.sockets: list[socket.socket] = []
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def open(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, args=(self.listening,), daemon=True).start()

    def shut(self) -> None:
        if self.listening is not None:
            self.listening.shutdown(socket.SHUT_RDWR)
            self.listening.close()
        for end in self.sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.listening, self.sockets = None, []

    def _serve(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.create_connection(("127.0.0.1", self.behind))
                self.sockets += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def server_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real `mlflow server` on loopback."""
    home = tmp_path_factory.mktemp("server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{home / 'server.db'}",
        "--artifacts-destination",
        str(home / "files"),
    ]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (home / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while True:
                assert server.poll() is None, (home / "log").read_text()
                assert time.monotonic() < deadline
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                time.sleep(0.1)
            yield port
        finally:
            server.terminate()
            server.wait()


@pytest.fixture
def gate(server_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """The way to the server, shut at first; MLflow's address is this side of it."""
    made = Gate(server_port)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{made.port}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "away")
    yield made
    made.shut()


@pytest.fixture
def client(server_port: int) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(f"http://127.0.0.1:{server_port}")


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.slow
def test_a_server_that_comes_up_later_gets_everything_at_the_end(
    gate: Gate, client: MlflowClient, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracking = tracking_of("mlflow", folder)
    with tracking.training():
        tracking.begin([])
        for number in (1, 2, 3):
            write_history(folder / "history.csv", epochs(number))
            tracking.epochs(epochs(number))
        assert not (folder / "tracking.json").exists()
        gate.open()
    assert steps(client, folder) == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert run_of(client, folder).info.status == "FINISHED"
    [message] = warnings_of(caplog)
    assert "Connection refused" in message
    assert message.endswith("continuing; will retry later")


@pytest.mark.slow
def test_a_server_that_was_away_receives_the_missed_epochs(
    gate: Gate, client: MlflowClient, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gate.open()
    tracking = tracking_of("mlflow", folder)
    with tracking.training():
        tracking.begin([])
        tracking.epochs(epochs(1))
        gate.shut()
        for number in (2, 3):
            write_history(folder / "history.csv", epochs(number))
            tracking.epochs(epochs(number))
        assert steps(client, folder) == [(1, 3.0)]
        gate.open()
    assert steps(client, folder) == [(1, 3.0), (2, 1.5), (3, 1.0)]
    assert len(warnings_of(caplog)) == 1


@pytest.mark.slow
def test_what_a_server_missed_to_the_end_is_logged_by_the_same_command(
    gate: Gate, client: MlflowClient, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(tracking_of("mlflow", folder), folder, 2)
    assert warnings_of(caplog)[-1] == "tracking: not all has been logged; the same command logs what is missing"
    gate.open()
    with tracking_of("mlflow", folder).training():
        pass  # a finished training has nothing to do
    assert steps(client, folder) == [(1, 3.0), (2, 1.5)]
    assert "curves.png" in {file.path for file in client.list_artifacts(number_of(folder))}
