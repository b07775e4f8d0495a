"""Strided 1 x 1 convolutions whose weights get their gradient fast on a CPU, whatever the size of their input."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("whichcar")
class StridedConv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a kernel of 1 x 1 and strides, channels last. TensorFlow only.

    If the height or the width of the input is odd, oneDNN has no fast kernel for the gradient of the weights: at 144
    pixels, two such convolutions take a tenth of a step of ResNet-50. While training, such an input is therefore
    reduced to the pixels that the strides select, by average pooling over 1 x 1, which changes no number.
    """

    _is_trained = False

    def call(self, inputs: Any, training: bool | None = None) -> Any:  # noqa: ANN401
        """Convolve images, (n, height, width, channels) in the compute dtype."""
        self._is_trained = bool(training and self.trainable)
        return super().call(inputs)

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:  # noqa: ANN401
        """Convolve without bias and activation, which `call` adds."""
        import tensorflow as tf

        if not self._is_trained or not any(side is not None and side % 2 for side in inputs.shape[1:3]):
            return super().convolution_op(inputs, kernel)
        return keras.ops.conv(tf.nn.avg_pool2d(inputs, 1, self.strides, "VALID"), kernel)


# Keras derives the path of a layer in a weights file from the name of its class.
StridedConv2D.__name__ = keras.layers.Conv2D.__name__
