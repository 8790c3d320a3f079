"""What a training does on TensorFlow alone: share a batch among devices, and write for TensorBoard.

Keras cannot accumulate gradients over several devices (keras-team/keras#20582): an optimizer that decides in the graph
whether to apply gradients would have to wait for the other replicas inside that decision. Here each replica takes its
share of an effective batch in pieces, adds up their gradients, and the optimizer sees one step.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, no_type_check

import tensorflow as tf

from aetherscan.train.vae import BetaVAE


def mirrored(devices: Sequence[str]) -> Any:
    """Return the strategy that keeps a copy of the weights on each device; GPUs tell each other by NCCL."""
    return tf.distribute.MirroredStrategy([name.upper() for name in devices])


@no_type_check
class MirroredVAE(BetaVAE):
    """A beta-VAE that takes an effective batch in `pieces`; only under `mirrored`."""

    pieces: int = 1

    def train_step(self, data: Any) -> dict[str, Any]:
        """Take one step of the optimizer with the mean gradient of the pieces."""
        snippets, labels = (tf.split(part, self.pieces) for part in data[:2])
        total = [tf.zeros_like(weight) for weight in self.trainable_weights]
        for piece, known in zip(snippets, labels, strict=True):
            with tf.control_dependencies(total), tf.GradientTape() as tape:  # one after the other: memory of one
                loss = self.compute_loss(x=piece, y=known, y_pred=self(piece, training=True))
            gradients = tape.gradient(loss, self.trainable_weights)
            total = [a + b / self.pieces for a, b in zip(total, gradients, strict=True)]
            self._loss_tracker.update_state(loss * self.replicas)
        self.optimizer.apply(total, self.trainable_weights)
        return {metric.name: metric.result() for metric in self.metrics}


def write_events(folder: Path, values: Mapping[str, float], step: int) -> None:
    """Add numbers to a log that TensorBoard shows; it need not be installed where they are written."""
    plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
    metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin, data_class=1)
    writer = tf.summary.create_file_writer(str(folder), filename_suffix=f".{step:06d}")
    with writer.as_default(step=step):
        for name, value in values.items():
            tf.summary.write(name, tf.constant(value, tf.float32), metadata=metadata)
    writer.close()
