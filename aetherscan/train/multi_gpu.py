"""TensorFlow only: share a batch among several devices.

Keras cannot accumulate gradients over several devices (keras-team/keras#20582): its optimizer would have to
synchronize the replicas inside a condition of the graph. Here each replica processes its part of an effective batch in
pieces and sums their gradients, and the optimizer makes one step.
"""

from collections.abc import Sequence
from typing import Any, no_type_check

import tensorflow as tf

from aetherscan.train.vae import BetaVAE


def mirrored(devices: Sequence[str]) -> Any:
    """Return the strategy that copies the weights to each device; GPUs exchange gradients through NCCL."""
    return tf.distribute.MirroredStrategy([name.upper() for name in devices])


@no_type_check
class MirroredVAE(BetaVAE):
    """A beta-VAE that processes an effective batch in `pieces`; build it in the scope of `mirrored`."""

    pieces: int = 1

    def train_step(self, data: Any) -> dict[str, Any]:
        """Make one optimizer step with the mean gradient of the pieces."""
        snippets, labels = (tf.split(part, self.pieces) for part in data[:2])
        total = [tf.zeros_like(weight) for weight in self.trainable_weights]
        for piece, piece_labels in zip(snippets, labels, strict=True):
            with tf.control_dependencies(total), tf.GradientTape() as tape:  # in sequence, to hold one piece in memory
                loss = self.compute_loss(x=piece, y=piece_labels, y_pred=self(piece, training=True))
            gradients = tape.gradient(loss, self.trainable_weights)
            total = [a + b / self.pieces for a, b in zip(total, gradients, strict=True)]
            self._loss_tracker.update_state(loss * self.replicas)
        self.optimizer.apply(total, self.trainable_weights)
        return {metric.name: metric.result() for metric in self.metrics}
