"""Trials on a real Ray cluster of two nodes with one processor and one GPU each, both on this machine.

That there is no such GPU does not matter to Ray, which only counts and hands out numbers.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from whichcar.cli import main
from whichcar.data.split.split import split
from whichcar.errors import MissingExtraError, SweepError
from whichcar.search.driver import sweep
from whichcar.search.ray_launcher import RayLauncher, Share, share_of
from whichcar.synthetic.draw import draw

from .conftest import Sweeps, command, trial_processes, until


class Node:
    """A node of a cluster, as `ray start` makes it; its processes are all of one session."""

    def __init__(self, folder: Path, *options: str, **variables: str) -> None:
        folder.mkdir()
        self._log = folder / "said.txt"
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
                [str(Path(sys.executable).with_name("ray")), "start", "--block", "--num-cpus=1", "--num-gpus=1",
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
def started(nodes: int, **variables: str) -> Iterator[str]:
    """Start a cluster of so many nodes, with these environment variables, and give its address."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (pip install 'whichcar[ray]')")
    folder = Path(tempfile.mkdtemp(prefix="ray_"))  # pytest's own paths are too long for Ray's sockets
    address = f"127.0.0.1:{free_port()}"
    running: list[Node] = []
    closed = pytest.MonkeyPatch()  # Ray listens on the machine's own address, and runs whatever it is sent
    closed.setenv("RAY_AUTH_MODE", "token")
    closed.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        port = address.partition(":")[2]
        running.append(Node(folder / "0", "--head", f"--port={port}", "--include-dashboard=false", **variables))
        until(lambda: running[0].runs())
        for number in range(1, nodes):
            running.append(Node(folder / str(number), f"--address={address}", **variables))
        for node in running:
            until(node.runs)
        yield address
    finally:
        closed.undo()
        for node in running:
            node.end()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with started(2) as ray_launcher:
        yield ray_launcher


def trial(sweeps: Sweeps, number: int = 0) -> Path:
    return sweeps.folder / f"trial_{number:04d}"


def nodes_of(folder: Path) -> list[str]:
    return re.findall(r"^on node .*, (\w{8})\)", (folder / "log.txt").read_text(), re.MULTILINE)


def starts(folder: Path) -> list[str]:
    return (folder / "starts.txt").read_text().split()


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@pytest.mark.parametrize(
    ("nodes", "parallel", "share"),
    [
        ([(8, 0), (8, 0)], 2, Share(8, 0)),
        ([(8, 0), (8, 0)], 1, Share(8, 0)),
        ([(8, 0), (8, 0)], 4, Share(4, 0)),
        ([(3, 0), (3, 0)], 3, Share(1, 0)),  # of two each, only two would fit
        ([(0, 0), (6, 0)], 2, Share(3, 0)),
        ([(8, 2), (8, 2)], 2, Share(8, 2)),
        ([(8, 2), (8, 2)], 3, Share(4, 1)),
        ([(8, 1), (8, 0)], 2, Share(4, 0.5)),
        ([(2, 0)], 5, Share(1, 0)),
        ([(2, 2)], 5, Share(1, pytest.approx(1 / 3))),
        ([(0, 0)], 2, Share(1, 0)),
    ],
)
def test_a_share_is_the_largest_with_which_all_fit(
    nodes: list[tuple[float, float]], parallel: int, share: Share
) -> None:
    assert share_of(nodes, parallel) == share


def test_the_room_of_a_cluster_is_counted_node_by_node() -> None:
    nodes = [(4.0, 1.0), (3.0, 2.0)]
    assert Share(2, 0).room(nodes) == 3
    assert Share(2, 1).room(nodes) == 2
    assert Share(1, 0.5).room(nodes) == 5
    assert Share(1, 2).room(nodes) == 1


def test_without_ray_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"Ray is not installed.*\[ray\]"):
        RayLauncher("auto")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [("ray://head:10001", "client is not supported"), ("local", "must be auto"), ("", "must be auto")],
)
def test_an_address_of_another_form_is_refused(wrong: str, said: str) -> None:
    with pytest.raises(SweepError, match=f"--ray {wrong}: .*{said}"):
        RayLauncher(wrong)


def test_where_no_cluster_answers_one_line_says_so(sweeps: Sweeps, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'whichcar[ray]')")
    nowhere = f"127.0.0.1:{free_port()}"
    assert main.run(["sweep", str(sweeps.file), "--ray", nowhere]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: --ray {nowhere}: no Ray cluster .*Connection refused.*\n", err)


def test_trials_run_on_both_nodes_from_relative_paths_one_fails_with_its_last_words_and_the_screen_is_ours(
    sweeps: Sweeps, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeps.write_base("crash", seconds=0.3)
    sweeps.write(space={"model.dropout_rate": [0.1, 0.4, 0.5]}, sampler={"name": "grid"}, parallel=3)
    monkeypatch.chdir(sweeps.file.parent)
    sweeps.file = Path(sweeps.file.name)
    with sweeps.start("--ray", address) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert sorted(sweeps.outcomes()) == ["complete", "complete", "failed"]
    (reason,) = (row["reason"] for row in sweeps.rows if row["outcome"] == "failed")
    assert reason.endswith("the loss became nan in epoch 1, batch 10")
    assert [row["kills"] for row in sweeps.rows] == ["0"] * 3
    assert len({node for number in range(3) for node in nodes_of(trial(sweeps, number))}) == 2
    assert [starts(trial(sweeps, number)) for number in range(3)] == [["0"]] * 3
    told, *ended = err.splitlines()
    share = "1 processor and 0.5 GPU each"
    assert told == f"--ray {address}: the cluster has room for 2 of 3 trials at once ({share}); others wait"
    assert [bool(re.match(r"trial \d: (val_accuracy|failed)", line)) for line in ended] == [True] * 3, err
    assert "Ray" not in out


def test_a_trial_has_its_share_our_variables_and_our_directory_and_a_node_that_does_not_see_it_is_named(
    sweeps: Sweeps, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TF_OF_THE_DRIVER", "here")
    monkeypatch.chdir(tmp_path)
    code = (
        "import os, sys; "
        "e = os.environ; print(len(os.sched_getaffinity(0)), e.get('TF_OF_THE_DRIVER'), e['WHICHCAR_QUIET'],"
        "e['PYTHONUNBUFFERED'], os.getcwd(), sys.argv[1], e['XLA_PYTHON_CLIENT_MEM_FRACTION'])"
    )
    config = Path("a trial") / "config.yml"
    config.parent.mkdir()
    config.touch()
    nowhere = tmp_path / "config.yml"
    (config.parent / "state").mkdir()
    with RayLauncher(address, lambda path: [sys.executable, "-c", code, str(path)]) as launcher:
        with (config.parent / "state" / "lock").open("w") as held:  # as by a process on a node that was cut off
            fcntl.flock(held, fcntl.LOCK_EX)
            process, unseen = launcher.launch(config, 0, 4), launcher.launch(nowhere, 1, 4)
            assert until(lambda: unseen.poll() is not None and process.node)
            assert (process.poll(), unseen.poll()) == (None, 2)
        until(lambda: process.poll() is not None)
        assert process.poll() == 0
    where, said = (tmp_path / config.parent / "log.txt").read_text().splitlines()
    assert re.fullmatch(r"on node .* \(.*, \w{8}\), processors \d+, GPU \d", where)
    assert said == f"1 here 1 1 {tmp_path} {config} 0.45"
    (said,) = (tmp_path / "log.txt").read_text().splitlines()
    assert re.fullmatch(rf"error: node .*, \w{{8}}\) does not see {nowhere}; .* a disk that all nodes share.*", said)


def test_a_killed_trial_and_one_whose_worker_was_killed_go_on_where_they_were(sweeps: Sweeps, address: str) -> None:
    sweeps.write_base(seconds=0.4)
    sweeps.write(budget={"trials": 2}, parallel=2)
    with sweeps.start("--ray", address) as process:
        for number in range(2):
            until((trial(sweeps, number) / "history.csv").exists)
        first, second = (
            next(pid for pid, name in trial_processes(sweeps.folder).items() if name == f"trial_{number:04d}")
            for number in range(2)
        )
        os.kill(first, signal.SIGKILL)
        os.kill(parent(second), signal.SIGKILL)
        until(lambda: second not in trial_processes(sweeps.folder), 2)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert [(row["outcome"], row["kills"], row["epochs"]) for row in sweeps.rows] == [("complete", "1", "3")] * 2
    for number in range(2):
        assert starts(trial(sweeps, number)) in (["0", "1"], ["0", "2"])


def test_ctrl_c_reaches_a_trial_once_and_trials_die_with_their_driver_and_go_on_with_or_without_ray(
    sweeps: Sweeps, address: str
) -> None:
    sweeps.write_base(seconds=0.4, epochs=4)
    sweeps.write(budget={"trials": 2}, parallel=2)
    with sweeps.start("--ray", address, group=0) as process:
        until((trial(sweeps) / "history.csv").exists)
        until((trial(sweeps, 1) / "starts.txt").exists)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert f"resume: whichcar sweep {sweeps.file} --ray {address}\n" in err
    assert (trial(sweeps) / "asked.txt").read_text() == f"{signal.SIGTERM:d}\n"
    with sweeps.start("--ray", address) as process:
        until(lambda: len(starts(trial(sweeps))) == 2)
        assert trial_processes(sweeps.folder)
        process.kill()
        process.wait()
    until(lambda: not trial_processes(sweeps.folder), 5)
    assert sweeps.run().counts == {"complete": 2}
    assert [(row["trial"], row["kills"], row["epochs"]) for row in sweeps.rows] == [(n, "0", "4") for n in "01"]
    first, *later = starts(trial(sweeps))
    assert (first, len(later)) == ("0", 2)
    assert "0" not in later


def test_one_that_waits_for_room_is_told_and_taken_back_and_one_that_is_killed_has_ended(
    tmp_path: Path, address: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from whichcar.search import ray_launcher

    monkeypatch.setattr(ray_launcher, "WAIT_SECONDS", 2.0)
    monkeypatch.setattr(ray_launcher.Share, "room", lambda *_: 3)  # what others leave is not known beforehand
    configs = [tmp_path / f"trial_{number:04d}" / "config.yml" for number in range(3)]
    for config in configs:
        config.parent.mkdir()
        config.touch()
    line = "import sys, time; time.sleep(60)"
    with RayLauncher(address, lambda path: [sys.executable, "-c", line, str(path)]) as launcher:
        running = [launcher.launch(config, slot, 3) for slot, config in enumerate(configs)]
        until(lambda: len(set(trial_processes(tmp_path).values())) == 2)
        until(lambda: [one.poll() for one in running] == [None] * 3 and caplog.messages)
        assert re.search(r"trial_000\d waits for room on the cluster", caplog.text)
        (waiting,) = (one for one in running if not one.node)
        waiting.stop()
        until(lambda: waiting.poll() == -signal.SIGKILL, 3)
        first, second = (one for one in running if one.node)
        first.kill()
        assert first.poll() == -signal.SIGKILL
        second.stop()
        until(lambda: second.poll() == -signal.SIGTERM)
        assert trial_processes(tmp_path) == {}


@pytest.mark.slow
def test_a_real_training_with_relative_paths_runs_in_the_drivers_directory(tmp_path: Path, address: str) -> None:
    draw(tmp_path / "raw", classes=3, per_class=6, size=(24, 32))
    split(tmp_path / "raw", tmp_path / "raw" / "car_dataset_labels.csv", tmp_path / "v1", 0.4, 1)
    base = {
        "seed": 1,
        "data": {"directory": "v1", "image_size": [24, 24], "batch_size": 4, "validation_split": 0.4},
        "model": {"weights": None},
        "fit": {"epochs": 1},
        "recipe": {"freeze": 5},
        "hardware": {"precision": "float32"},
    }
    (tmp_path / "base.yml").write_text(yaml.safe_dump(base))
    space = {"model.dropout_rate": [0.1]}
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump({"base": "base.yml", "space": space, "budget": {"trials": 1}}))
    done = subprocess.run(
        [sys.executable, "-m", "whichcar", "sweep", "tiny.yml", "--ray", address],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "next: whichcar train tiny/best/config.yml" in done.stdout
    assert (tmp_path / "tiny" / "trial_0000" / "best.json").exists()


@pytest.mark.slow
def test_a_cluster_that_goes_away_is_one_line_and_the_search_goes_on_without_it(
    sweeps: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "2")  # else 60: it may come back
    sweeps.write_base(seconds=1)
    sweeps.write(budget={"trials": 1})
    with started(1) as address:
        process = sweeps.start("--ray", address)
        until((trial(sweeps) / "starts.txt").exists)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert re.fullmatch(rf"error: --ray {address}: the Ray cluster is gone, .*; the same command goes on .*\n", err)
    until(lambda: not trial_processes(sweeps.folder), 5)
    sweeps.write_base(seconds=0.1)
    assert sweeps.run().counts == {"complete": 1}


@pytest.mark.slow
def test_a_node_without_the_same_whichcar_is_told(sweeps: Sweeps, tmp_path: Path) -> None:
    (tmp_path / "other" / "whichcar").mkdir(parents=True)
    (tmp_path / "other" / "whichcar" / "__init__.py").touch()
    sweeps.write(budget={"trials": 1})
    with started(1, PYTHONPATH=str(tmp_path / "other")) as address, RayLauncher(address, command) as launcher:
        assert sweep(sweeps.file, launcher=launcher).counts == {"failed": 1}
    said = r"node [\d.]+: ModuleNotFoundError: No module named 'whichcar.*'; every node needs the same whichcar.*"
    assert re.fullmatch(said, sweeps.rows[0]["reason"])
