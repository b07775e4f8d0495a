from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys

import pytest

from whichcar.errors import MissingExtraError, TrainingError
from whichcar.training import hardware
from whichcar.training.hardware import (
    Hardware,
    choose_backend,
    fused_batch_norm_is_faster,
    is_out_of_memory,
    native_messages_hidden,
    prepare,
)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The packages that seem to be installed; a test puts its own in."""
    names: set[str] = set()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in names else None)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(hardware, "_jax_sees_a_gpu", lambda: False)
    return names


def test_the_environment_wins(installed: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    installed |= {"tensorflow", "jax"}
    for name in ("jax", "tensorflow"):
        monkeypatch.setenv("KERAS_BACKEND", name)
        assert choose_backend() == name


def test_a_backend_that_is_not_there_is_an_error_that_lists_those_that_are(
    installed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed |= {"tensorflow", "jax"}
    for name in ("torch", "tensorflwo"):
        monkeypatch.setenv("KERAS_BACKEND", name)
        with pytest.raises(TrainingError, match=f"KERAS_BACKEND={name}: not usable; usable here: tensorflow, jax"):
            choose_backend()


def test_without_a_wish_the_processor_gets_tensorflow(installed: set[str]) -> None:
    installed |= {"jax", "tensorflow"}
    assert choose_backend() == "tensorflow"
    installed -= {"tensorflow"}
    assert choose_backend() == "jax"


@pytest.mark.parametrize("file", ["/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"])  # the last: WSL2
def test_a_gpu_that_jax_sees_gets_jax(installed: set[str], monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    installed |= {"jax", "tensorflow"}
    monkeypatch.setattr(hardware.Path, "exists", lambda path: str(path) == file)
    assert choose_backend() == "tensorflow"
    monkeypatch.setattr(hardware, "_jax_sees_a_gpu", lambda: True)
    assert choose_backend() == "jax"
    installed -= {"jax"}
    assert choose_backend() == "tensorflow"


def output(program: str, **environment: str) -> tuple[list[str], str]:
    """The lines that a Python program writes to standard output, and what it writes to standard error."""
    inherited = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_a_gpu_that_jax_cannot_start_is_not_used_and_a_warning_says_why() -> None:
    program = """
from whichcar.training import hardware

hardware.GPUS = ("/dev/null",)
print(hardware.choose_backend())
"""
    # JAX starts the processor and fails at the second, as it does at a GPU whose driver fails.
    lines, warning = output(program, JAX_PLATFORMS="cpu,rocm")
    assert lines == ["tensorflow"]
    assert "the GPU is not used: Unable to initialize backend 'rocm'" in warning and warning.count("\n") == 1


def test_jax_that_cannot_start_is_one_line_whenever_it_is_asked_for() -> None:
    program = """
import jax

from whichcar.errors import TrainingError
from whichcar.training.hardware import prepare

for platforms in ("cpu,rocm", "cpu,rocm", "cuda"):
    jax.config.update("jax_platforms", platforms)
    try:
        prepare("float32")
    except TrainingError as error:
        print(error)
"""
    lines, _ = output(program, KERAS_BACKEND="jax", CUDA_VISIBLE_DEVICES="")
    assert lines[0].startswith("JAX cannot start: Unable to initialize backend 'rocm'")
    assert lines[1] == lines[0], "instead of the processor, which JAX has started the first time"
    assert lines[2].startswith("JAX cannot start: ")
    assert all(line.endswith("; to train on the processor, set JAX_PLATFORMS=cpu") for line in lines)
    assert len(lines) == 3


def test_nothing_installed_says_what_installs_it(installed: set[str]) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install .*\[cpu\]"):
        choose_backend()
    with pytest.raises(MissingExtraError, match=r"Keras is not installed; .*\[cpu\]"):
        prepare()


def test_prepare_says_what_training_runs_on() -> None:
    found = prepare("float32")
    import keras

    assert found.backend == os.environ["KERAS_BACKEND"] == keras.backend.backend()
    assert (found.precision, found.policy) == ("float32", "float32")
    assert found.device
    assert found.cores == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("given", "used"), [(None, "1"), ("0", "0")])
def test_fast_convolutions_are_switched_on_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, given: str | None, used: str
) -> None:
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if given:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", given)
    prepare("float32")
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == used


@pytest.mark.parametrize(
    ("flags", "precision"),
    [({"avx2", "avx512f"}, "float32"), ({"avx512_bf16"}, "bfloat16"), ({"amx_bf16", "avx2"}, "bfloat16")],
)
def test_a_processor_gets_bfloat16_only_where_it_is_fast(
    monkeypatch: pytest.MonkeyPatch, flags: set[str], precision: str
) -> None:
    monkeypatch.setattr(hardware, "_cpuinfo", lambda key: " ".join(flags))
    monkeypatch.setattr(hardware, "_device", lambda backend: ("a processor", False))
    assert prepare().precision == precision
    assert prepare("float32").precision == "float32"
    assert prepare("bfloat16").policy == "mixed_bfloat16"
    monkeypatch.setattr(hardware, "_device", lambda backend: ("a GPU", True))
    assert prepare().precision == "bfloat16"


@pytest.mark.parametrize(("started", "flags"), [(True, ""), (False, ""), (True, "--xla_gpu_deterministic_ops=true")])
def test_exact_results_are_not_promised_on_a_gpu_that_jax_already_uses(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, started: bool, flags: str
) -> None:
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    monkeypatch.setattr(hardware, "_device", lambda backend: ("a GPU", True))
    monkeypatch.setattr(hardware, "use_devices", lambda devices, batch_size: 1)
    monkeypatch.setitem(sys.modules, "jax", sys)
    if not started:
        monkeypatch.delitem(sys.modules, "jax")
    monkeypatch.setenv("XLA_FLAGS", flags)
    prepare("float32", exact=True)
    assert ("JAX was started before it was set" in caplog.text) == (started and not flags)


@pytest.mark.slow
def test_the_other_backend_can_be_chosen_before_keras_is_loaded() -> None:
    pytest.importorskip("jax")
    code = (
        "from whichcar.training.hardware import prepare; import sys; assert 'keras' not in sys.modules\n"
        "found = prepare('float32'); import keras; print(found.backend, keras.backend.backend())\n"
        "assert 'tensorflow' not in sys.modules"
    )
    environment = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("jax jax\n", 0), ended.stderr


def test_the_fused_norm_is_for_tensorflow_alone() -> None:
    assert [fused_batch_norm_is_faster(name) for name in ("tensorflow", "jax")] == [True, False]


class ResourceExhaustedError(Exception):
    """Named as TensorFlow's."""


class XlaRuntimeError(Exception):
    """Named as JAX's."""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ResourceExhaustedError("Graph execution error"),
        XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("OOM when allocating tensor with shape[512,1024]"),
    ],
)
def test_out_of_memory_is_recognised_by_its_error(error: Exception) -> None:
    assert is_out_of_memory(error)


def test_the_error_of_numpy_for_memory_used_up_is_known() -> None:
    import numpy as np

    with pytest.raises(MemoryError) as caught:
        np.empty((1 << 50,), np.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [ValueError("shapes differ"), OSError(28, "No space left on device")])
def test_other_errors_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_policies_follow_precision() -> None:
    assert Hardware("jax", "bfloat16", "a GPU", 8).policy == "mixed_bfloat16"
    assert Hardware("jax", "float32", "a GPU", 8).policy == "float32"


def test_a_full_standard_error_ends_no_work_and_hides_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before, full = os.dup(2), open("/dev/full", "w")  # noqa: PTH123, SIM115  (closed below)
    monkeypatch.setattr(sys, "stderr", full)
    os.dup2(full.fileno(), 2)
    try:
        full.write("left over from a line that could not be written")
        with native_messages_hidden():
            pass
        with pytest.raises(ZeroDivisionError), native_messages_hidden():
            os.write(2, b"native")
            raise ZeroDivisionError
    finally:
        os.dup2(before, 2)
        os.close(before)
        with contextlib.suppress(OSError):
            full.close()
