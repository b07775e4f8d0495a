"""Searches on a real Ray cluster of two nodes with one processor each, both on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import random
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from whichcar.cli import main
from whichcar.errors import ClusterError, MissingExtraError
from whichcar.ray_cluster import check_address, own_cores
from whichcar.search.ray_launcher import Slots, host_problem, run_slot, share

from ..waiting import until
from .conftest import Sweeps, trial_processes


class Node:
    """A node of a cluster, as `ray start` makes it; its processes are all of one session."""

    def __init__(self, folder: Path, *options: str, **variables: str) -> None:
        folder.mkdir()
        self._log = folder / "message.txt"
        # Nothing is sent or measured, and no processes are made before they are needed.
        off = (
            "USAGE_STATS_ENABLED",
            "enable_metrics_collection",
            "prestart_worker_first_driver",
            "enable_worker_prestart",
        )
        quiet = {f"RAY_{name}": "0" for name in off}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1",
                 "--object-store-memory=80000000", "--include-log-monitor=false", f"--temp-dir={folder}", *options],
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **quiet, **variables},
            )  # fmt: skip

    def runs(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        return "block forever" in self._log.read_text()

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        until(lambda: not processes_of_session(self.process.pid))


@dataclasses.dataclass
class Cluster:
    address: str
    nodes: list[Node]
    folder: Path
    variables: dict[str, str]

    def add(self) -> Node:
        name = str(len(list(self.folder.iterdir())))
        self.nodes.append(Node(self.folder / name, f"--address={self.address}", **self.variables))
        return self.nodes[-1]

    def lose_and_replace(self, number: int) -> None:
        self.nodes.pop(number).end()
        until(self.add().runs, 90)


def processes_of_session(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            state, _, _, its = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(its) == session and state not in "ZX":
                found.append(int(entry.name))
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def started(count: int, **variables: str) -> Iterator[Cluster]:
    """Start a cluster of `count` nodes with these environment variables."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install 'whichcar[ray]')")
    folder = Path(tempfile.mkdtemp(prefix="ray_"))  # pytest's own paths are too long for Ray's sockets
    cluster = Cluster(f"127.0.0.1:{free_port()}", [], folder, variables)
    closed = pytest.MonkeyPatch()  # Ray listens on the machine's own address, and runs whatever it is sent
    closed.setenv("RAY_AUTH_MODE", "token")
    closed.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        port = cluster.address.partition(":")[2]
        head = Node(folder / "0", "--head", f"--port={port}", "--include-dashboard=false", **variables)
        cluster.nodes.append(head)
        until(head.runs, 90)
        for _ in range(1, count):
            cluster.add()
        for node in cluster.nodes:
            until(node.runs, 90)
        yield cluster
    finally:
        closed.undo()
        for node in cluster.nodes:
            node.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with started(2) as cluster:
        yield cluster.address


def trial(sweeps: Sweeps, number: int = 0) -> Path:
    return sweeps.folder / f"trial_{number:04d}"


def starts(folder: Path) -> list[str]:
    return (folder / "starts.txt").read_text().split()


def process_of(sweeps: Sweeps, number: int) -> int:
    """The process that runs a trial."""
    return until(
        lambda: next((p for p, name in trial_processes(sweeps.folder).items() if name == f"trial_{number:04d}"), 0)
    )


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    ("nodes", "slots", "expected"),
    [
        ([(8, 0), (8, 0)], 2, (8, 0)),
        ([(8, 0), (8, 0)], 4, (4, 0)),
        ([(3, 0), (3, 0)], 3, (1, 0)),  # of two each, only two would fit
        ([(0, 0), (6, 0)], 2, (3, 0)),
        ([(8, 2), (8, 2)], 3, (4, 1)),
        ([(8, 1), (8, 0)], 2, (4, 0.5)),
        ([(2, 0)], 5, (1, 0)),
        ([(2, 2)], 5, (1, pytest.approx(1 / 3))),
        ([(0, 0)], 2, (1, 0)),
    ],
)
def test_the_cluster_is_divided_among_the_slots(
    nodes: list[tuple[int, int]], slots: int, expected: tuple[int, float]
) -> None:
    assert share(nodes, slots) == expected


def test_without_ray_the_error_has_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"Ray is not installed.*\[ray\]"):
        check_address("auto")


@pytest.mark.parametrize(
    ("address", "message"),
    [("ray://head:10001", "client is not supported"), ("local", "must be auto"), ("", "must be auto")],
)
def test_an_address_of_another_form_is_refused(address: str, message: str) -> None:
    with pytest.raises(ClusterError, match=f"--ray {address}: .*{message}"):
        check_address(address)


def test_an_address_without_a_cluster_is_one_line(sweeps: Sweeps, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'whichcar[ray]')")
    nowhere = f"127.0.0.1:{free_port()}"
    assert main.run(["sweep", str(sweeps.file), "--ray", nowhere]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: --ray {nowhere}: no Ray cluster .*Connection refused.*\n", err)


@pytest.mark.slow
def test_slots_on_both_nodes_share_the_trials_and_the_driver_shows_them(
    sweeps: Sweeps, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps.write_base("crash", seconds=0.3)
    sweeps.write(
        space={"model.dropout_rate": [0.1, 0.35, 0.4, 0.5]}, sampler={"name": "grid"}, budget={"trials": 4}, parallel=2
    )
    monkeypatch.chdir(sweeps.file.parent)
    sweeps.file = Path(sweeps.file.name)
    with sweeps.start("--ray", address) as process:
        out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert sorted(sweeps.outcomes()) == ["complete"] * 3 + ["failed"]
    (reason,) = (row["reason"] for row in sweeps.rows if row["outcome"] == "failed")
    assert reason.endswith("the loss became nan in epoch 1, batch 10")
    assert [starts(trial(sweeps, number)) for number in range(4)] == [["0"]] * 4
    assert [bool(re.match(r"trial \d: (val_accuracy|failed)", line)) for line in err.splitlines()] == [True] * 4, err
    assert "Ray" not in out
    assert "sweep few.yml --ray" in (sweeps.folder / "sweep.json").read_text()
    assert len(list(sweeps.folder.glob("slot_*.txt"))) == 2


@pytest.mark.slow
def test_a_killed_trial_slot_and_worker_lose_nothing(sweeps: Sweeps, address: str) -> None:
    sweeps.write_base(seconds=0.5, epochs=6)
    sweeps.write(budget={"trials": 2}, parallel=2)
    with sweeps.start("--ray", address) as process:
        for number in range(2):
            until((trial(sweeps, number) / "history.csv").exists, 40)
        first, second = (process_of(sweeps, number) for number in range(2))
        os.kill(first, signal.SIGKILL)
        os.kill(parent(second), signal.SIGKILL)  # the slot: Ray starts it again
        until(lambda: len(starts(trial(sweeps, 0))) == 2 and len(starts(trial(sweeps, 1))) == 2)
        os.kill(parent(parent(process_of(sweeps, 1))), signal.SIGKILL)  # the worker that runs the slot
        _, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert [(row["outcome"], row["kills"], row["epochs"]) for row in sweeps.rows] == [
        ("complete", "1", "6"),
        ("complete", "0", "6"),
    ]
    assert len(starts(trial(sweeps, 1))) == 3
    assert "0" not in starts(trial(sweeps, 1))[1:]


@pytest.mark.slow
def test_ctrl_c_saves_and_a_killed_driver_takes_its_slots_with_it(sweeps: Sweeps, address: str) -> None:
    sweeps.write_base(seconds=0.5, epochs=30)  # longer than the second trial waits for its slot
    sweeps.write(budget={"trials": 2}, parallel=2)
    with sweeps.start("--ray", address, group=0) as process:
        until(lambda: all((trial(sweeps, number) / "history.csv").exists() for number in range(2)), 40)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped; running trials are saved\n" in err
    assert f"whichcar sweep {sweeps.file} --ray {address}\n" in err
    assert [row["outcome"] for row in sweeps.rows] == ["running"] * 2
    assert "--ray" in (sweeps.folder / "sweep.json").read_text()
    assert [(trial(sweeps, number) / "asked.txt").read_text() for number in range(2)] == [f"{signal.SIGTERM:d}\n"] * 2
    with sweeps.start("--ray", address) as process:
        until(lambda: len(starts(trial(sweeps))) == 2, 40)
        process.kill()
        process.wait()
    until(lambda: not trial_processes(sweeps.folder))
    assert sweeps.run().counts == {"complete": 2}
    assert [(row["trial"], row["kills"], row["epochs"]) for row in sweeps.rows] == [(n, "0", "30") for n in "01"]
    assert "0" not in starts(trial(sweeps))[1:]


@pytest.mark.slow
def test_a_slot_that_fails_ends_the_search_with_its_message(sweeps: Sweeps, address: str) -> None:
    sweeps.write_base("crash")
    sweeps.write(space={"model.dropout_rate": {"low": 0.0, "high": 0.2}}, budget={"trials": 50})
    with sweeps.start("--ray", address) as process:
        _, err = process.communicate(timeout=90)
    assert process.returncode == 2
    assert re.match(
        rf"error: --ray {address}: .*first 3 trials failed with the same error: .*the loss became nan",
        err.splitlines()[-1],
    )


def test_a_node_that_does_not_see_the_folder_is_named(tmp_path: Path) -> None:
    slots = Slots("", 1, 0, "few", True, [])
    assert re.fullmatch(
        rf"node .* does not see {tmp_path}/few; .*same disk.*", run_slot(0, slots, str(tmp_path), 1, {})
    )


def test_a_slot_is_bound_to_its_processors_and_keeps_the_log_of_earlier_attempts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import os, sys; sys.exit(f'error: {len(os.sched_getaffinity(0))} processors')"
    slots = Slots("", 1, 0, ".", True, ["-c", code])
    messages = [run_slot(0, slots, str(tmp_path), 1, {}) for _ in range(2)]
    assert messages == [f"1 processors (log: {tmp_path / 'slot_0.txt'})"] * 2
    assert (tmp_path / "slot_0.txt").read_text().count("error: 1 processors\n") == 2


def test_slots_of_a_machine_reserve_different_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cores = sorted(os.sched_getaffinity(0))
    with contextlib.ExitStack() as slots:
        reserved = [slots.enter_context(own_cores(1))[0] for _ in cores]
        assert sorted(reserved) == cores
        assert slots.enter_context(own_cores(1)) == cores  # none is free
    with own_cores(len(cores)) as again:
        assert again == cores


def test_an_empty_ray_address_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    assert check_address("auto") == "auto"


def test_several_hosts_do_not_share_a_sqlite_file() -> None:
    one, two = ({"NodeManagerHostname": name, "Resources": {}} for name in ("a", "b"))
    assert host_problem([one, one], sqlite=True) == ""
    assert host_problem([one, two], sqlite=False) == ""
    assert "--storage FILE.journal" in host_problem([one, two], sqlite=True)


@pytest.mark.slow
def test_a_killed_node_loses_nothing(sweeps: Sweeps) -> None:
    sweeps.write_base(seconds=0.5, epochs=10)
    sweeps.write(budget={"trials": 2}, parallel=2)
    with started(2) as cluster, sweeps.start("--ray", cluster.address) as process:
        until(lambda: all((trial(sweeps, number) / "history.csv").exists() for number in range(2)), 40)
        cluster.nodes[1].end()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert [(row["outcome"], row["kills"], row["epochs"]) for row in sweeps.rows] == [("complete", "0", "10")] * 2
    assert sorted(len(starts(trial(sweeps, number))) for number in range(2)) == [1, 2]


def killed(sweeps: Sweeps, generation: int) -> bool:
    """Kill a trial, the slot that it is in (1), or the worker that runs that slot (2); False if it has just ended."""
    try:
        victim = next(iter(trial_processes(sweeps.folder)))
        for _ in range(generation):
            victim = parent(victim)
        if victim > 1:
            os.kill(victim, signal.SIGKILL)
    except (StopIteration, FileNotFoundError, ProcessLookupError):
        return False
    return victim > 1


@pytest.mark.slow
def test_two_hundred_trials_survive_ten_kills(sweeps: Sweeps) -> None:
    chance = random.Random(17)
    sweeps.write(budget={"trials": 200}, parallel=2)
    with started(2) as cluster, sweeps.start("--ray", cluster.address) as process:
        until((trial(sweeps) / "history.csv").exists, 40)
        for number in range(10):
            time.sleep(chance.uniform(2, 8))
            if number == 6:
                cluster.lose_and_replace(1)
                continue
            victim = until(lambda: next(iter(trial_processes(sweeps.folder)), 0))
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended by itself
                for _ in range(number % 3):  # the trial, its slot, or the worker that runs the slot
                    victim = parent(victim)
                os.kill(victim, signal.SIGKILL)
        _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert [row["trial"] for row in sweeps.rows] == [str(number) for number in range(200)]
    assert {(row["outcome"], row["epochs"]) for row in sweeps.rows} == {("complete", "3")}


@pytest.mark.slow
def test_a_cluster_that_goes_away_is_one_line_and_the_search_resumes_without_it(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "2")  # else 60: it may come back
    sweeps.write_base(seconds=1)
    sweeps.write(budget={"trials": 1})
    with started(1) as cluster:
        process = sweeps.start("--ray", cluster.address)
        until((trial(sweeps) / "starts.txt").exists, 40)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.fullmatch(
        rf"error: --ray {cluster.address}: the Ray cluster is gone, .* the same command resumes .*\n", err
    )
    until(lambda: not trial_processes(sweeps.folder))
    sweeps.write_base(seconds=0.1)
    assert sweeps.run().counts == {"complete": 1}


@pytest.mark.slow
def test_a_node_without_whichcar_is_one_line(sweeps: Sweeps, tmp_path: Path) -> None:
    (tmp_path / "other" / "whichcar").mkdir(parents=True)
    (tmp_path / "other" / "whichcar" / "__init__.py").touch()
    sweeps.write(budget={"trials": 1})
    with started(1, PYTHONPATH=str(tmp_path / "other")) as cluster, sweeps.start("--ray", cluster.address) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    assert re.fullmatch(r"error: --ray .*: .*No module named 'whichcar.*every node needs the same whichcar.*\n", err)
