"""Runtimes for networks behind one protocol: Keras for a checkpoint, ONNX Runtime for a bundle."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from whichcar.errors import CheckpointError
from whichcar.images.pixels import Pixels
from whichcar.inference.bundle import PLAIN_SUFFIX, SUFFIX, Bundle, read_bundle
from whichcar.inference.released import name_of
from whichcar.onnx_session import open_session, reason_of
from whichcar.parallel import usable_cores
from whichcar.records import Metadata
from whichcar.text import plural

Probabilities = npt.NDArray[np.float32]
BUNDLES = (SUFFIX, PLAIN_SUFFIX)


class Runtime(Protocol):
    """A network that is ready to run.

    `batch_size` is the fastest number of images per call; `callers` the fastest number of threads that call it
    concurrently, 0 if the runtime itself uses all cores, so that one thread calls it; `hardware` is for the record of
    a result.
    """

    batch_size: int
    callers: int
    hardware: Mapping[str, str]

    def __call__(self, images: Pixels) -> Probabilities:
        """Return (n, classes) float32 probabilities for (n, height, width, 3) uint8 RGB.

        Raises:
            CheckpointError: the network does not return one finite number per class, or memory ran out.
        """


class KerasRuntime:
    """A Keras model; batches are padded to 1, 2, 4, 8, 16, 24 … images, so that few shapes are compiled."""

    batch_size, callers = 32, 0

    def __init__(
        self,
        model: Any,  # noqa: ANN401  (any Keras model)
        classes: int,
        dtype: type[np.generic] = np.float32,
        hardware: Mapping[str, str] | None = None,
    ) -> None:
        """Wrap a model with this number of classes, fed with arrays of `dtype`."""
        self.model, self._classes, self._dtype = model, classes, dtype
        self.hardware = hardware or {}

    def __call__(self, images: Pixels) -> Probabilities:
        """Run the model on the padded images."""
        count = len(images)
        room = -8 * (-count // 8) if count > 8 else 1 << (count - 1).bit_length()
        fed = filled(images, room).astype(self._dtype, copy=False)
        try:
            answer = np.asarray(self.model.predict_on_batch(fed), np.float32)
        except Exception as error:  # backends raise errors of many kinds
            from whichcar.training.hardware import is_out_of_memory

            if not is_out_of_memory(error):
                raise
            raise CheckpointError(
                f"model {self.model.name!r}: out of memory with {plural(room, 'image')} at a time; close other "
                "programs, or predict fewer at a time (`predict --batch-size N`)"
            ) from error
        return checked(answer, (room, self._classes), f"model {self.model.name!r}")[:count]


class OnnxRuntime:
    """A bundle's network. Each call uses one core and runs in its caller's thread, so calls do not wait for each other.

    One image per call takes the same time per image as 16, within 5 %; two cores per call take a tenth longer
    (benchmarks/prediction.py). A network with a fixed batch size gets batches of that size.

    Args:
        bundle: the network and its description.
        name: the network's name in messages.

    Raises:
        CheckpointError: ONNX Runtime cannot load it, or its inputs or outputs are not those of a bundle's network.
    """

    def __init__(self, bundle: Bundle, name: str | Path) -> None:
        """Load the network."""
        import onnxruntime

        try:
            self._session = open_session(bundle.network, 1, name)
        except ValueError as error:
            raise CheckpointError(f"{name}: its network cannot be loaded: {error}") from error
        self._name, self._classes = name, len(bundle.class_names)
        self._input, self._batch = self._declared(bundle)
        self.batch_size = self._batch or 1
        self.callers = usable_cores()
        self.hardware: Mapping[str, str] = {
            "backend": f"onnxruntime {onnxruntime.__version__}",
            "precision": bundle.precision,
            "device": self._session.get_providers()[0],
            "cores": str(self.callers),
        }

    def __call__(self, images: Pixels) -> Probabilities:
        """Run the network on the images, in batches of its size if that is fixed."""
        step = self._batch or max(1, len(images))
        parts = [self._part(images[start : start + step], step) for start in range(0, len(images), step)]
        return np.concatenate(parts) if parts else np.empty((0, self._classes), np.float32)

    def _part(self, images: Pixels, room: int) -> Probabilities:
        try:
            answer = self._session.run(None, {self._input: filled(images, room)})[0]
        except Exception as error:  # ONNX Runtime raises errors of many kinds
            raise CheckpointError(f"{self._name}: its network failed: {reason_of(error)}") from error
        return checked(answer, (room, self._classes), str(self._name))[: len(images)]

    def _declared(self, bundle: Bundle) -> tuple[str, int | None]:
        """Return the name of the input and the fixed batch size, if any."""
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shape = list(inputs[0].shape)
        if len(inputs) != 1 or inputs[0].type != "tensor(uint8)" or shape[1:] != [*bundle.image_size, 3]:
            found = ", ".join(f"{one.name} {one.shape} {one.type}" for one in inputs)
            wanted = f"(n, {bundle.image_size[0]}, {bundle.image_size[1]}, 3) uint8"
            raise CheckpointError(f"{self._name}: its network takes {found}, not {wanted}; export it again")
        if len(outputs) != 1:
            raise CheckpointError(f"{self._name}: its network has {len(outputs)} outputs, not one; export it again")
        return inputs[0].name, shape[0] if isinstance(shape[0], int) else None


class MirroredRuntime:
    """A network that sees each image mirrored, left to right."""

    def __init__(self, runtime: Runtime) -> None:
        """Wrap a runtime."""
        self._runtime = runtime
        self.batch_size, self.callers, self.hardware = runtime.batch_size, runtime.callers, runtime.hardware

    def __call__(self, images: Pixels) -> Probabilities:
        """Run the network on the mirrored images."""
        return self._runtime(np.ascontiguousarray(images[:, :, ::-1]))


def open_network(path: Path) -> tuple[Path, Metadata, Runtime]:
    """Load a bundle, a checkpoint or an experiment's refit or best one in the runtime that predicts fastest here.

    Returns:
        The file, its metadata and its network.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    if path.suffix.lower() in BUNDLES and not path.is_dir():
        with ThreadPoolExecutor(1) as pool:  # loading the library takes as long as reading the bundle
            pool.submit(importlib.import_module, "onnxruntime")  # an error is raised again on use
            bundle = read_bundle(path)
        return path, bundle.metadata, OnnxRuntime(bundle, name_of(path))
    # Only a checkpoint needs Keras and the training code.
    from whichcar.training.hardware import prepare
    from whichcar.training.run.checkpoint import find_checkpoint, load_model, read_metadata

    checkpoint = find_checkpoint(path)
    hardware = {name: str(value) for name, value in dataclasses.asdict(prepare()).items()}
    try:
        metadata, model = read_metadata(checkpoint), load_model(checkpoint)
    except CheckpointError:
        if checkpoint.is_file():
            raise
        checkpoint = find_checkpoint(path)  # a running training has just replaced it
        metadata, model = read_metadata(checkpoint), load_model(checkpoint)
    return checkpoint, metadata, KerasRuntime(model, len(metadata.class_names), np.uint8, hardware)


def checked(answer: Probabilities, shape: tuple[int, int], name: str) -> Probabilities:
    """Return a network's output if it has this shape and is finite.

    Raises:
        CheckpointError: it does not have this shape, or is not finite.
    """
    if answer.shape != shape:
        raise CheckpointError(
            f"{name}: {answer.shape[-1]} values an image, but {shape[1]} class names; "
            "pass the names the model was trained with, in that order"
        )
    if not np.isfinite(answer).all():
        raise CheckpointError(f"{name}: its output has NaN or infinity; take an earlier checkpoint")
    return answer


def filled(images: Pixels, room: int) -> Pixels:
    """Return `images` padded to `room` with copies of the last one (a black image might cause a division by zero)."""
    missing = room - len(images)
    return np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)), mode="edge") if missing > 0 else images
