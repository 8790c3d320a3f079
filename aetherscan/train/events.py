"""TensorBoard logs, on every backend: a file of scalars for each epoch.

TensorFlow writes the files, because Keras has no other writer. Beside JAX and PyTorch it is loaded for this alone, and
leaves the GPUs to them.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import keras


@cache
def _tensorflow() -> Any:
    import tensorflow as tf  # noqa: PLC0415  takes seconds, and JAX and PyTorch do without it until the first epoch ends

    if keras.backend.backend() != "tensorflow":
        with suppress(RuntimeError):  # it has GPUs already
            tf.config.set_visible_devices([], "GPU")
    return tf


def drop_events(folder: Path, epochs: int) -> None:
    """Remove the epochs after the first `epochs` from a log: a training that resumes repeats them."""
    for path in folder.glob("events.*"):
        number = path.suffix.removeprefix(".")
        if number.isdecimal() and int(number) > epochs:
            path.unlink()


def write_events(folder: Path, values: Mapping[str, float], step: int) -> None:
    """Add values to a TensorBoard log; TensorBoard itself need not be installed.

    Args:
        folder: of the log.
        values: by name.
        step: epochs since the start of the training.
    """
    tf = _tensorflow()
    plugin = tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
    metadata = tf.compat.v1.SummaryMetadata(plugin_data=plugin, data_class=1)
    writer = tf.summary.create_file_writer(str(folder), filename_suffix=f".{step:06d}")
    with writer.as_default(step=step):
        for name, value in values.items():
            tf.summary.write(name, tf.constant(value, tf.float32), metadata=metadata)
    writer.close()
