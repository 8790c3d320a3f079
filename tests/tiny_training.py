"""A training that takes seconds: a narrow encoder, and batches of noise with lines."""

from contextlib import nullcontext
from typing import ClassVar

import numpy as np
import pytest

from aetherscan.options.train import TrainSettings
from aetherscan.train.batches import BatchSource
from aetherscan.train.encoder import train_encoder

NARROW = ((2, 2), (2, 2), (2, 2), (4, 2))
"""Filters and strides of an encoder that trains in a second."""


class LinesAndNoise(BatchSource):
    """Noise, with a line in the ONs of every signal; `requests` lists the epochs that were requested."""

    requests: ClassVar = []
    snippet = (6, 16, 128)

    def __init__(self):
        """Make batches without processes."""

    def epoch(self, number, count, snr, *, batch, validation=False):
        self.requests.append((number, count, snr, validation))
        rng = np.random.default_rng([number, validation])
        snippets = rng.integers(0, 16, (count, *self.snippet), dtype=np.uint8)
        labels = (np.arange(count) % 2).astype(np.float32)
        snippets[1::2, ::2, :, rng.integers(128)] += np.uint8(100)
        for first in range(0, count, batch):
            chosen = slice(first, first + batch)
            yield snippets[chosen], labels[chosen]


@pytest.fixture
def settings(tmp_path):
    return TrainSettings(
        model_path=tmp_path / "models", output_path=tmp_path / "logs", width_bin=1024, vae_dense_layer_size=8,
        num_training_rounds=2, epochs_per_round=2, num_samples_beta_vae=40, per_replica_batch_size=16,
        effective_batch_size=16, per_replica_val_batch_size=4, retry_delay=0.5, max_retries=2,
    )  # fmt: skip


def opened():
    return nullcontext(LinesAndNoise())


def trained(folder, settings, open_batches=opened, **options):
    folder.mkdir(exist_ok=True)
    made = train_encoder(folder, settings, open_batches, tell=lambda _: None, **options)
    return np.concatenate([weight.ravel() for weight in made.encoder.get_weights()]), made.history
