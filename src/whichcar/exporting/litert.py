"""A network as one file of LiteRT (formerly TensorFlow Lite), the runtime of phones and single-board computers."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from whichcar import files
from whichcar.errors import CheckpointError
from whichcar.exporting.onnx import INPUT, OUTPUT
from whichcar.images.pixels import Pixels
from whichcar.inference.bundle import DESCRIPTION, Bundle, Precision
from whichcar.inference.runtimes import Probabilities
from whichcar.parallel import usable_cores
from whichcar.text import first_line, one_line
from whichcar.training.hardware import native_messages_hidden
from whichcar.training.run.signals import interrupts_kept

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

LABELS = "labels.txt"


class LiteRtNetwork:
    """A Keras model converted to LiteRT (a `Runtime` that classifies one image at a time); `size` is in bytes.

    Its signature is that of the bundle: `images`, (1, height, width, 3) uint8 RGB, to `probabilities`, (1, classes)
    float32.

    Args:
        model: of `onnx.float32_copy`.
        image_size: (height, width) of the images.
        calibrating: (n, height, width, 3) uint8, images that the ranges of int8 activations are determined from; None:
            the network stays float32.
        name: the model's name in messages.

    Raises:
        CheckpointError: a layer has no counterpart in LiteRT.
    """

    batch_size, callers = 1, 0
    hardware: Mapping[str, str] = {}

    def __init__(self, model: keras.Model, image_size: tuple[int, int], calibrating: Pixels | None, name: str) -> None:
        """Convert the model and load it."""
        from ai_edge_litert.interpreter import Interpreter

        self._content = _converted(model, image_size, calibrating, name)
        self.size = len(self._content)
        with native_messages_hidden():
            self._run = Interpreter(model_content=self._content, num_threads=usable_cores()).get_signature_runner()
        self.precision: Precision = "float32" if calibrating is None else "int8"

    def __call__(self, images: Pixels) -> Probabilities:
        """Return (n, classes) float32 probabilities for (n, height, width, 3) uint8 RGB."""
        return np.concatenate([self._run(**{INPUT: image[None]})[OUTPUT] for image in images])

    def write(self, bundle: Bundle, path: Path) -> tuple[Path, ...]:
        """Write the network atomically, with a zip archive of the class names and of `bundle.json` appended.

        Appended files are a convention of LiteRT, which ignores them; `unzip` extracts them. The thresholds of an int8
        bundle are left out: they do not apply to this network's probabilities.

        Raises:
            OSError: the file cannot be written.
        """
        described = bundle.as_json() | ({"thresholds": None} if self.precision == "int8" else {})
        with files.atomic_write(path) as tmp:
            tmp.write_bytes(self._content)
            with zipfile.ZipFile(tmp, "a") as archive:
                archive.writestr(LABELS, "".join(f"{one_line(one)}\n" for one in bundle.class_names))
                archive.writestr(DESCRIPTION, json.dumps(described))
        return (path,)


@interrupts_kept()
def _converted(model: keras.Model, image_size: tuple[int, int], calibrating: Pixels | None, name: str) -> bytes:
    """Return the content of a LiteRT file: constants for weights, batch normalization folded into convolutions."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [tf.TensorSpec((1, *image_size, 3), tf.uint8, name=INPUT)]

    def function(body: Callable[[tf.Tensor], Any]) -> tf.types.experimental.ConcreteFunction:
        return tf.function(body, input_signature=signature, autograph=False).get_concrete_function()

    # The calibration of int8 cannot read variables.
    constant = convert_variables_to_constants_v2(function(lambda images: model(images, training=False)))
    named = function(lambda images: {OUTPUT: constant(images)[0]})
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)  # those of swish cannot be saved
    with files.temporary_folder(8 * model.count_params()) as folder, native_messages_hidden():
        tf.saved_model.save(tf.Module(), folder, named, options)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        if calibrating is not None:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in calibrating)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that uint8 images have no range for int8
                content: bytes = converter.convert()
        except Exception as error:  # ConverterError, RuntimeError and others
            raise CheckpointError(
                f"{name}: cannot be converted to LiteRT ({first_line(error)}); leave out --format litert"
            ) from error
    return content
