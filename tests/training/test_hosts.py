"""Training on several hosts: processes on the loopback interface, one of which is stopped or killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from whichcar.cli.main import run
from whichcar.config.load import read_experiment
from whichcar.data.split.split import split
from whichcar.errors import TrainingError
from whichcar.training import hosts
from whichcar.training.hosts import join
from whichcar.training.run.folder import ExperimentFolder
from whichcar.training.run.history import Epoch, read_history

from ..waiting import until
from .run.limits import no_file_larger_than

PROGRAM = str(Path(__file__).with_name("hosts_program.py"))
ONE_DEVICE = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
SETTINGS = {
    "seed": 5,
    "data": {"directory": "v1", "image_size": [32, 32], "batch_size": 8},
    "model": {"weights": None},
    "compile": {"optimizer": {"sgd": {"learning_rate": 0.05, "momentum": 0.9}}},
    "recipe": {"ema": 0.9, "random_resized_crop": {"side": [0.7, 1.0]}},
    "hardware": {"precision": "float32"},
}
EPOCHS = 3


class Ended(NamedTuple):
    """How a process ended."""

    status: int
    output: str


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, PROGRAM, "train", "exp", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    environment = os.environ | ONE_DEVICE | {"TMPDIR": str(folder / "temporary")}
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes)


def ended(*processes: subprocess.Popen[str]) -> list[Ended]:
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    return [Ended(process.returncode, output) for process, output in zip(processes, outputs, strict=True)]


def start_two(folder: Path, *words: str, second: tuple[str, ...] = ()) -> list[subprocess.Popen[str]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        addresses = f"127.0.0.1:{free.getsockname()[1]},127.0.0.1"
    return [
        start(folder, "--hosts", addresses, "--host", "0", *words),
        start(folder, "--hosts", addresses, "--host", "1", *words, *second),
    ]


def trained(folder: Path) -> list[Epoch]:
    return read_history(folder / "exp" / "history.csv")


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    split(drawn, drawn / "car_dataset_labels.csv", tmp_path / "v1")
    write_settings(tmp_path, EPOCHS)
    (tmp_path / "temporary").mkdir()
    return tmp_path


def write_settings(folder: Path, epochs: int, **callbacks: object) -> None:
    (folder / "exp").mkdir(exist_ok=True)
    fit = {"epochs": epochs, "callbacks": callbacks}
    (folder / "exp" / "config.yml").write_text(yaml.safe_dump(SETTINGS | {"fit": fit}))


@pytest.mark.slow
def test_two_hosts_train_as_one_does_and_only_the_first_writes(folder: Path) -> None:
    first, second = ended(*start_two(folder))
    assert (first.status, second.status) == (0, 0), first.output + second.output
    assert "next: whichcar evaluate exp" in first.output
    assert "trained with host 0, which has the results of exp" in second.output
    assert not list((folder / "temporary").iterdir())
    on_two = trained(folder)
    [alone] = ended(start(folder, "--overwrite"))
    assert alone.status == 0, alone.output
    assert [epoch.loss for epoch in trained(folder)] == pytest.approx([epoch.loss for epoch in on_two], rel=1e-4)
    scores = [epoch.val_loss for epoch in on_two]
    assert [epoch.val_loss for epoch in trained(folder)] == pytest.approx(scores, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_when_one_host_is_stopped_or_killed_all_end_and_resume(folder: Path, sent: signal.Signals) -> None:
    write_settings(folder, 2000)
    first, second = start_two(folder, "--set", "hardware.save_minutes=0.001")
    until((folder / "exp" / "history.csv").exists, 240)
    second.send_signal(sent)
    stopped, other = ended(first, second)
    assert stopped.status == (-signal.SIGINT if sent == signal.SIGTERM else stopped.status) != 0, stopped.output
    assert other.status == (-signal.SIGINT if sent == signal.SIGTERM else -signal.SIGKILL), other.output
    done = len(trained(folder))
    first, second = ended(*start_two(folder, "--resume", "--set", f"fit.epochs={done + 2}"))
    assert (first.status, second.status) == (0, 0), first.output + second.output
    assert [epoch.epoch for epoch in trained(folder)] == list(range(1, done + 3))


@pytest.mark.slow
def test_two_hosts_refit_too(folder: Path) -> None:
    first, second = ended(*start_two(folder, "--refit"))
    assert (first.status, second.status) == (0, 0), first.output + second.output
    assert read_history(folder / "exp" / "refit" / "history.csv")


@pytest.mark.slow
def test_hosts_that_save_at_other_times_keep_the_best_checkpoint_alone(folder: Path) -> None:
    write_settings(folder, EPOCHS, model_checkpoint={"keep": 1, "monitor": "epoch"})
    first, second = ended(*start_two(folder, second=("--set", "hardware.save_minutes=0.001")))
    assert (first.status, second.status) == (0, 0), first.output + second.output
    assert [path.suffix for path in (folder / "exp").glob("model.*")] == [".keras"]


@pytest.mark.slow
def test_hosts_with_other_settings_do_not_train_together(folder: Path) -> None:
    first, second = ended(*start_two(folder, second=("--set", "compile.optimizer.sgd.learning_rate=0.1")))
    for host in (first, second):
        assert host.status == 2
        assert "host 1: has other settings, images or weights, or another precision or version" in host.output


@pytest.mark.parametrize(("number", "wrong"), [(None, "is missing"), (2, "got 2"), (-1, "got -1")])
def test_a_host_must_be_one_of_those_named(number: int | None, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "config.yml").touch()
    with pytest.raises(TrainingError, match=rf"--host: is this host's place in --hosts, 0 to 1; {wrong}"):
        join(tmp_path, "10.0.0.1:8476,10.0.0.2", number)


def test_the_first_address_has_a_port(tmp_path: Path) -> None:
    (tmp_path / "config.yml").touch()
    with pytest.raises(TrainingError, match=r"the first address needs a free port, such as 10\.0\.0\.1:8476"):
        join(tmp_path, "10.0.0.1,10.0.0.2", 0)


@pytest.mark.parametrize("words", [["--host", "1"], ["--hosts", "10.0.0.1:1,h"], ["--hosts", "auto", "--host", "0"]])
def test_addresses_and_place_belong_together(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "exp", *words]) == 2
    assert "--hosts with addresses and --host belong together" in capsys.readouterr().err


def test_a_host_whose_jax_cannot_start_says_so_in_one_line(tmp_path: Path) -> None:
    write_settings(tmp_path, EPOCHS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "whichcar", "train", "exp", "--hosts", address, "--host", "0"]
    environment = os.environ | {"JAX_PLATFORMS": "cpu,rocm"}  # the second fails, as with a driver's fault
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith(
        f"error: --hosts {address}: this host cannot join the others: Unable to initialize backend 'rocm'"
    )
    assert "Traceback" not in done.stderr


@pytest.fixture
def _second_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To `join`, this process is host 1 of two; its temporary files are in `temporary`, next to `exp`."""
    jax = SimpleNamespace(
        distributed=SimpleNamespace(initialize=lambda *_, **__: None),
        process_count=lambda: 2,
        process_index=lambda: 1,
    )
    monkeypatch.setitem(sys.modules, "jax", jax)
    monkeypatch.setattr(hosts, "_of_all", np.array)
    monkeypatch.setattr(hosts, "_count", 1)  # what `join` changes is put back
    monkeypatch.setattr(hosts, "_index", 0)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_second_of_two")
def test_a_checkpoint_path_in_the_experiments_folder_is_accepted_on_every_host(tmp_path: Path) -> None:
    write_settings(tmp_path, EPOCHS, model_checkpoint={"filepath": "exp/model.{epoch:02d}.h5"})
    before = ExperimentFolder(Path("exp/config.yml"), read_experiment(Path("exp/config.yml")))
    config = join(Path("exp"), "10.0.0.1:8476,10.0.0.2", 1)
    assert config.is_relative_to(tmp_path / "temporary")
    assert ExperimentFolder(config, read_experiment(config)).pattern == before.pattern == "model.{epoch:02d}.h5"


@pytest.mark.usefixtures("_second_of_two")
def test_an_experiment_that_cannot_be_copied_to_a_host_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_settings(tmp_path, EPOCHS)
    (tmp_path / "exp" / "model.h5").write_bytes(bytes(200_000))
    with no_file_larger_than(100_000):
        assert run(["train", "exp", "--hosts", "10.0.0.1:8476,10.0.0.2", "--host", "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'temporary' / 'whichcar_host_'}") and error.count("\n") == 1
    assert "File too large" in error and "; make room there, or set TMPDIR to another folder" in error
