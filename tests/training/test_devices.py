"""Training on several devices: those of JAX, made up on the processor, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from whichcar.errors import TrainingError
from whichcar.training.devices import _automatic, use_devices
from whichcar.training.hardware import prepare

FOUR = {
    "KERAS_BACKEND": "jax",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
}
DIVIDING = """
import json
import keras, numpy as np
from whichcar.errors import TrainingError
from whichcar.training.devices import divided, use_devices

def refused(*wanted):
    try:
        return use_devices(*wanted)
    except TrainingError as error:
        return str(error)

answers = [refused(*wanted) for wanted in ((5, 10), (4, 10), (4, 2), ("auto", 8), (4, 8))]
parts = [[shard.data.shape[0] for shard in divided(np.zeros((count, 2))).addressable_shards] for count in (8, 12)]
print(json.dumps([answers, parts, isinstance(divided(np.zeros((6, 2))), np.ndarray)]))
"""


def output_of(*words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words], env=os.environ | FOUR, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_a_batch_is_divided_among_the_devices_or_refused() -> None:
    answers, parts, is_left_whole = json.loads(output_of("-c", DIVIDING))
    assert answers == [
        "hardware.devices: 5, but JAX sees 4 devices (cpu:0, cpu:1, cpu:2, cpu:3); set it to at most that, or to auto",
        "hardware.devices: data.batch_size 10 cannot be divided among 4 devices; set it to 8 or 12",
        "hardware.devices: data.batch_size 2 cannot be divided among 4 devices; set it to 4",
        1,  # processors are one device, unless their number is written
        4,
    ]
    assert parts == [[2] * 4, [3] * 4]
    assert is_left_whole


def test_tensorflow_trains_on_one_device() -> None:
    hardware = prepare("float32", devices="auto", batch_size=8)
    assert hardware.devices == 1
    with pytest.raises(TrainingError, match=r"hardware\.devices: 2, but Keras runs on tensorflow .* KERAS_BACKEND=jax"):
        use_devices(2, 8)


@pytest.mark.parametrize(("batch_size", "used"), [(32, 2), (30, 3), (31, 1)])
def test_of_several_gpus_those_are_used_that_divide_the_batch(batch_size: int, used: int) -> None:
    assert _automatic(["gpu:0", "gpu:1", "gpu:2"], batch_size) == used


@pytest.mark.slow
def test_four_devices_train_as_one_does() -> None:
    (_, losses, scores), (_, on_four, scores_on_four) = json.loads(
        output_of(str(Path(__file__).with_name("step_program.py")), "sgd", "1", "4")
    )
    assert losses == pytest.approx(on_four, rel=1e-5)
    for row, other in zip(scores, scores_on_four, strict=True):
        assert row == pytest.approx(other, abs=1e-5)


@pytest.mark.slow
def test_a_run_is_resumed_with_another_number_of_devices(drawn: Path, tmp_path: Path) -> None:
    program = str(Path(__file__).with_name("devices_program.py"))
    whole, parted = json.loads(output_of(program, str(drawn), str(tmp_path)))
    assert [epoch["loss"] for epoch in whole] == pytest.approx([epoch["loss"] for epoch in parted], rel=1e-5)
    assert [epoch["val_loss"] for epoch in whole] == pytest.approx([epoch["val_loss"] for epoch in parted], rel=1e-5)
    assert len(parted) == 3
    recorded = json.loads((tmp_path / "parted" / "environment.json").read_text())
    assert recorded["devices"] == 1
