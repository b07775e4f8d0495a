"""Training on several devices: each holds all variables and takes its part of every batch (JAX only)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from whichcar.errors import TrainingError
from whichcar.text import plural
from whichcar.training.hosts import are_several

Devices = int | Literal["auto"]


def use_devices(wanted: Devices, batch_size: int) -> int:
    """Distribute models created from now on over several devices, with `keras.distribution.DataParallel`.

    Args:
        wanted: number of devices; `auto`: the largest number of GPUs that the batch can be divided among evenly, else
            one device; on several hosts, all devices.
        batch_size: images in a batch, over all devices.

    Returns:
        The number of devices used.

    Raises:
        TrainingError: there are fewer devices, the backend is not JAX, or the batch cannot be divided evenly.
    """
    import keras

    backend = keras.backend.backend()
    names = keras.distribution.list_devices() if backend == "jax" else []
    if are_several():  # all devices must be used, since each host computes on its own devices
        count = len(names) if wanted == "auto" else wanted
        if count != len(names):
            raise TrainingError(
                f"hardware.devices: {count}, but the hosts have {plural(len(names), 'device')} in all; set it to auto"
            )
    else:
        count = _automatic(names, batch_size) if wanted == "auto" else wanted
    if count > 1 and backend != "jax":
        raise TrainingError(
            f"hardware.devices: {count}, but Keras runs on {backend} here, which trains on one device; "
            "set KERAS_BACKEND=jax, or hardware.devices: 1"
        )
    if count > max(1, len(names)):
        raise TrainingError(
            f"hardware.devices: {count}, but JAX sees {plural(len(names), 'device')} ({', '.join(names)}); "
            "set it to at most that, or to auto"
        )
    if batch_size % count:
        lower = batch_size // count * count
        sizes = " or ".join(str(size) for size in (lower, lower + count) if size)
        raise TrainingError(
            f"hardware.devices: data.batch_size {batch_size} cannot be divided among {count} devices; set it to {sizes}"
        )
    used = keras.distribution.DataParallel(devices=names[:count]) if count > 1 else None
    keras.distribution.set_distribution(used)
    return count


def _automatic(names: list[str], batch_size: int) -> int:
    gpus = sum(not name.startswith("cpu") for name in names)
    return max(count for count in range(1, max(1, gpus) + 1) if batch_size % count == 0)


def devices_in_use() -> int:
    """Return how many devices share each batch."""
    import keras

    distribution = keras.distribution.distribution()
    return 1 if distribution is None else int(distribution.device_mesh.devices.size)


def divided(batch: np.ndarray) -> np.ndarray:
    """Return a batch divided among the devices, or unchanged if there is only one or it cannot be divided.

    Every device computes an undivided batch in full, with the same result.
    """
    import keras

    distribution = keras.distribution.distribution()
    if distribution is None or len(batch) % devices_in_use():
        return batch
    import jax

    sharding = distribution.get_data_layout(batch.shape).backend_layout
    spread: np.ndarray = jax.make_array_from_callback(batch.shape, sharding, batch.__getitem__)
    return spread


def on_each_device() -> Any | None:  # noqa: ANN401  (a sharding of JAX)
    """Return the sharding that replicates values on every device, or None if there is only one device."""
    import keras

    distribution = keras.distribution.distribution()
    return distribution and keras.distribution.TensorLayout([], distribution.device_mesh).backend_layout
