"""The process of a worker, started as the server starts it."""

from __future__ import annotations

import socket
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from whichcar.serving.settings import WorkerSetup


@pytest.mark.parametrize("has_model", [True, False])
def test_a_worker_whose_server_ends_while_it_loads_ends_without_a_word(
    bundle: Path, tmp_path: Path, has_model: bool
) -> None:
    model = bundle if has_model else tmp_path / "no.whichcar"
    outside, inside = socket.socketpair()
    command = [sys.executable, "-m", "whichcar.serving.worker", str(inside.fileno())]
    with subprocess.Popen(command, pass_fds=[inside.fileno()], stderr=subprocess.PIPE, text=True) as process:
        inside.close()
        with Connection(outside.detach()) as server:
            server.send(WorkerSetup(str(model), None, None, None, 1_000_000))
        assert process.communicate(timeout=60)[1] == ""
        assert process.returncode == 0
