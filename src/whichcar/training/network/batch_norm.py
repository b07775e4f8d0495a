"""Batch normalization through TensorFlow's fused op: the same numbers as Keras' layer, in one pass over memory.

Keras casts to float32 and runs the moments and the affine map as separate element-wise ops. On a CPU, where training
is bound by memory, that costs about a third of a ResNet-50 step.
"""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("whichcar")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the last axis of (n, h, w, c) by `fused_batch_norm`. TensorFlow only.

    Input and output are in the compute dtype (bfloat16 or float32); scale, offset and moments are float32, as in Keras'
    layer. Weights have the same names, shapes and order, so files of weights fit either layer. Moving moments use the
    biased variance, as Keras does: the fused op returns the unbiased one, which is scaled back.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:  # noqa: ANN401
        """Normalize by the batch's moments while training, by the moving ones otherwise."""
        import tensorflow as tf

        if mask is not None or not (self.scale and self.center) or len(inputs.shape) != 4 or self.axis not in (-1, 3):
            return super().call(inputs, training=training, mask=mask)
        by_batch = bool(training and self.trainable)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            self.gamma.value,
            self.beta.value,
            mean=None if by_batch else self.moving_mean.value,
            variance=None if by_batch else self.moving_variance.value,
            epsilon=self.epsilon,
            data_format="NHWC",
            is_training=by_batch,
        )
        if by_batch:
            shape = tf.shape(inputs)
            count = tf.cast(shape[0] * shape[1] * shape[2], tf.float32)
            variance = variance * ((count - 1.0) / count)
            keep = self.momentum
            self.moving_mean.assign(self.moving_mean * keep + mean * (1.0 - keep))
            self.moving_variance.assign(self.moving_variance * keep + variance * (1.0 - keep))
        return outputs


# Keras derives the path of a layer in a weights file from the name of its class.
FusedBatchNormalization.__name__ = keras.layers.BatchNormalization.__name__
