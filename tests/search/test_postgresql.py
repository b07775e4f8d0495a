"""A study in a real PostgreSQL, started for the test from the system's own programs."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ..waiting import until
from .conftest import Sweeps

pytest.importorskip("psycopg", reason="the PostgreSQL driver is not installed (pip install 'whichcar[postgresql]')")


def program(name: str) -> str | None:
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    return str(found[0]) if found else shutil.which(name)


def as_ordinary_user(command: Sequence[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    return [*(("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups") if os.getuid() == 0 else ()), *command]


@pytest.fixture
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of an empty database behind a Unix socket."""
    initdb, server = program("initdb"), program("postgres")
    if not (initdb and server):
        pytest.skip("no initdb and postgres here; on Debian: apt install postgresql")
    if os.getuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("PostgreSQL does not run as root, and there is no setpriv to become another user")
    # Not under pytest's folder, which only its owner may enter; a socket's path must be short, too.
    folder = Path("/tmp") / f"whichcar_pg_{os.getpid()}"
    folder.mkdir(mode=0o700)
    try:
        if os.getuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(folder, user.pw_uid, user.pw_gid)
        quiet = {"check": True, "capture_output": True, "cwd": "/"}
        subprocess.run(as_ordinary_user([initdb, "-D", f"{folder}/data", "-U", "me", "-A", "trust", "-N"]), **quiet)  # type: ignore[call-overload]
        options = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={folder}", "-c", "fsync=off"]
        with subprocess.Popen(
            as_ordinary_user([server, "-D", f"{folder}/data", *options]), stderr=subprocess.DEVNULL, cwd="/"
        ) as running:
            try:
                import psycopg

                def answers() -> bool:
                    try:
                        psycopg.connect(f"postgresql://me@/postgres?host={folder}").close()
                    except psycopg.OperationalError:
                        return False
                    return True

                until(answers)
                yield f"postgresql://me@/postgres?host={folder}"
            finally:
                running.send_signal(signal.SIGINT)
                running.wait(20)
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_two_drivers_share_a_study_in_postgresql_and_one_is_killed(sweeps: Sweeps, database: str) -> None:
    sweeps.write_base(seconds=0.2)
    sweeps.write(budget={"trials": 6})
    first, second = (sweeps.start("--storage", database) for _ in range(2))
    until(lambda: len(list(sweeps.folder.glob("trial_*/history.csv"))) >= 2, 60)
    first.kill()
    first.communicate()
    _, message = second.communicate(timeout=60)
    assert second.returncode == 0, message
    assert sweeps.outcomes() == ["complete"] * 6
    assert [row["kills"] for row in sweeps.rows] == ["0"] * 6
    assert not (sweeps.folder / "study.db").exists()
    assert len(re.findall(r"^trial \d+: val", message, re.MULTILINE)) >= 4
    assert sweeps.run(database).new == 0
