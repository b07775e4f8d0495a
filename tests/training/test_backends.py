"""TensorFlow and JAX train the same small network to the same losses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("step_program.py")


def trained_on(backend: str, optimizer: str) -> tuple[list[float], list[list[float]]]:
    environment = os.environ | {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(PROGRAM), optimizer, "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [[used, losses, score]] = json.loads(done.stdout.splitlines()[-1])
    assert used == backend
    return losses, score


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_both_backends_train_to_the_same_loss(optimizer: str) -> None:
    losses, score = trained_on("tensorflow", optimizer)
    other_losses, other_score = trained_on("jax", optimizer)
    assert losses == pytest.approx(other_losses, rel=2e-4)
    for row, other in zip(score, other_score, strict=True):
        assert row == pytest.approx(other, abs=2e-4)
