"""The backend and precision that Keras runs with, and what differs between backends."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import io
import logging
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whichcar.environment import keep_compiled
from whichcar.errors import MissingExtraError, TrainingError
from whichcar.parallel import usable_cores
from whichcar.text import first_line
from whichcar.training.devices import Devices, use_devices

log = logging.getLogger(__name__)

# bfloat16 products run at twice the float32 rate only on processors with these instructions.
BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
TENSORFLOW = "tensorflow"
BACKENDS = (TENSORFLOW, "jax")
GPUS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")  # where JAX looks for a GPU; the last is that of WSL2
_EXACT = "--xla_gpu_deterministic_ops=true"


@dataclass(frozen=True, slots=True)
class Hardware:
    """What training runs on: `devices` devices of type `device`. `precision` is `float32` or `bfloat16`."""

    backend: str
    precision: str
    device: str
    cores: int
    devices: int = 1

    @property
    def all_devices(self) -> str:
        """Description of all devices, with their number if there are several: `2 x NVIDIA H200`."""
        return f"{self.devices} x {self.device}" if self.devices > 1 else self.device

    @property
    def policy(self) -> str:
        """The Keras dtype policy of the network's layers; variables are always float32."""
        return "mixed_bfloat16" if self.precision == "bfloat16" else "float32"


def choose_backend() -> str:
    """Return `KERAS_BACKEND` if set, else JAX if it sees a GPU, else TensorFlow, else any installed backend.

    Raises:
        MissingExtraError: no backend is installed.
        TrainingError: `KERAS_BACKEND` names an unknown backend or one that is not installed.
    """
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if named := os.environ.get("KERAS_BACKEND"):
        if named not in installed:
            raise TrainingError(f"KERAS_BACKEND={named}: not usable; usable here: {', '.join(installed) or 'none'}")
        return named
    if not installed:
        raise MissingExtraError("a Keras backend (TensorFlow or JAX)", "cpu")
    if "jax" in installed and any(Path(gpu).exists() for gpu in GPUS) and _jax_sees_a_gpu():
        return "jax"
    return installed[0]


def prepare(
    precision: str = "auto",
    backend: str | None = None,
    devices: Devices = 1,
    batch_size: int = 1,
    exact: bool = False,
) -> Hardware:
    """Choose the backend before Keras is imported, set its data formats, and describe what training runs on.

    Args:
        precision: `auto` selects bfloat16 on a GPU or a processor with bfloat16 instructions, else float32.
        backend: an installed backend, or None to choose one; ignored if Keras was already imported.
        devices: number of devices to train on, as for `use_devices`; models created from now on use them.
        batch_size: images in a training batch.
        exact: make the backend use deterministic operations, for bit-identical results; JAX on a CPU has no others.

    Raises:
        MissingExtraError: Keras or a backend is not installed.
        TrainingError: there are fewer devices, or they cannot be used, or JAX cannot start.
    """
    if importlib.util.find_spec("keras") is None:
        raise MissingExtraError("Keras", "cpu")
    keep_compiled()
    flags = os.environ.get("XLA_FLAGS", "")
    is_set_late = exact and _EXACT not in flags and "jax" in sys.modules
    if exact and _EXACT not in flags:  # JAX reads the flags once, when it looks for devices
        os.environ["XLA_FLAGS"] = f"{flags} {_EXACT}".strip()
    os.environ["KERAS_BACKEND"] = backend or choose_backend()
    # Hide errors too: those that matter are raised, and oneDNN logs missing kernels for uint8 as an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")
    # TensorFlow disables oneDNN's convolutions on processors without AVX-512 VNNI, but they are faster there too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    with native_messages_hidden():
        import keras
    # What is saved must not depend on keras.json, or on what a notebook has set.
    keras.config.set_image_data_format("channels_last")
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")
    # TensorFlow warns when steps are recompiled, which is intended when images grow.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)

    backend = str(keras.backend.backend())
    if exact and backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    device, on_gpu = _device(backend)
    if is_set_late and on_gpu and backend == "jax":
        log.warning(
            "hardware.exact: JAX was started before it was set, so results may differ in the last digits; to avoid "
            "that, set XLA_FLAGS=%s in the environment and start again",
            _EXACT,
        )
    if precision == "auto":
        precision = "bfloat16" if on_gpu or processor_has_bfloat16() else "float32"
    hardware = Hardware(backend, precision, device, usable_cores(), use_devices(devices, batch_size))
    log.info("Keras %s on %s, %s, %s", keras.__version__, backend, hardware.all_devices, precision)
    return hardware


@contextlib.contextmanager
def native_messages_hidden() -> Iterator[None]:
    """Hide what C++ writes to standard error: TensorFlow prints there before its log level takes effect.

    If the block raises, the hidden output is shown.
    """
    with contextlib.suppress(OSError):  # a full disk below a log ends no work
        sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            with contextlib.suppress(OSError):  # which would hide what was raised
                os.write(shown, hidden.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what libraries print, and log messages up to warnings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def without_kept_steps(backend: str) -> Iterator[None]:
    """Disable the cache of compiled steps (`environment.keep_compiled`) inside the block, to time compilation."""
    if backend != "jax":
        yield
        return
    import jax
    from jax.experimental.compilation_cache.compilation_cache import reset_cache

    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    reset_cache()  # JAX reads the setting once
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
        reset_cache()


def fused_batch_norm_is_faster(backend: str) -> bool:
    """Return True on TensorFlow, whose fused op beats Keras' element-wise form (see benchmarks/training_step.py)."""
    return backend == "tensorflow"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of the backend, or one in its context, says that memory ran out."""
    text = f"{type(error).__name__}: {error}"
    signs = ("ResourceExhausted", "RESOURCE_EXHAUSTED", "OutOfMemory", "out of memory", "OOM when")
    if isinstance(error, MemoryError) or any(sign in text for sign in signs):
        return True
    return error.__context__ is not None and is_out_of_memory(error.__context__)


def release_memory() -> None:
    """Free what Keras and the backend still hold for networks that are no longer referenced."""
    import keras

    keras.utils.clear_session()
    gc.collect()


def _jax_sees_a_gpu() -> bool:
    import jax

    try:
        return any(device.platform == "gpu" for device in jax.devices())
    except RuntimeError as error:  # its driver fails, or CUDA_VISIBLE_DEVICES hides it
        log.warning("the GPU is not used: %s", first_line(error))
        return False


def _device(backend: str) -> tuple[str, bool]:
    if backend == "jax":
        import jax
        from jax.extend.backend import clear_backends

        try:
            devices = jax.devices()
        except (RuntimeError, AssertionError) as error:  # the latter for JAX_PLATFORMS=cuda without a GPU
            clear_backends()  # otherwise the next call returns the processor, which JAX has started before
            raise TrainingError(
                f"JAX cannot start: {first_line(error)}; to train on the processor, set JAX_PLATFORMS=cpu"
            ) from error
        return (devices[0].device_kind, True) if devices[0].platform == "gpu" else (processor_name(), False)
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return (gpus[0].name, True) if gpus else (processor_name(), False)


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return ""


def processor_has_bfloat16() -> bool:
    """Return whether this machine's processor multiplies bfloat16 at twice the rate of float32."""
    return not BFLOAT16_FLAGS.isdisjoint(_cpuinfo("flags").split())


def processor_name() -> str:
    """Return the name of this machine's processor."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()
