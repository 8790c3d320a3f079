"""What watches a training while Keras runs it: guards, learning rate, logs, progress, and what it costs the machine."""

import csv
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from tqdm import tqdm

from aetherscan.errors import TrainingError

TENSORFLOW = keras.backend.backend() == "tensorflow"
if TENSORFLOW:
    from aetherscan.train import multi_gpu
COLLAPSED = 0.01
"""Nats of KL below which a latent says nothing of what was seen."""
LOOKED_EVERY = 20
"""Batches; looking waits for the device."""


class NanGuard(keras.callbacks.Callback):
    """Stop a training that has gone where no further batch brings it back."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop at a loss that is no number."""
        if batch % LOOKED_EVERY == 0:
            self._number(logs or {}, f"batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop at a loss that is no number, or when every latent has collapsed onto the prior."""
        logs = logs or {}
        self._number(logs, f"epoch {epoch + 1}")
        if logs["kl_most"] < COLLAPSED:
            raise TrainingError(
                f"round {self.number}, epoch {epoch + 1}: posterior collapse: expected a KL of {COLLAPSED} in a latent "
                f"or more, found {logs['kl_most']:.2g} in the one that says most: lower vae_beta, or raise vae_alpha"
            )

    def _number(self, logs: dict[str, Any], where: str) -> None:
        wrong = [name for name, value in logs.items() if not math.isfinite(float(value))]
        if wrong:
            raise TrainingError(
                f"round {self.number}, {where}: expected numbers, found NaN or infinity in {', '.join(wrong)}: lower "
                "base_learning_rate, train in float32, or look for bad values in train_files"
            )


class Plateau(keras.callbacks.Callback):
    """Lower the learning rate when validation has not improved by a share for so many epochs."""

    def __init__(self, patience: int, improvement: float, reduction: float, least: float) -> None:
        super().__init__()
        self.patience, self.improvement, self.reduction, self.least = patience, improvement, reduction, least
        self.best, self.waited = math.inf, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Count an epoch."""
        loss = (logs or {})["val_loss"]
        better = loss < self.best * (1 - self.improvement)
        self.best, self.waited = (loss, 0) if better else (self.best, self.waited + 1)
        if self.waited >= self.patience:
            rate = rate_of(self.model) * (1 - self.reduction)
            self.model.optimizer.learning_rate = max(rate, self.least)
            self.waited = 0


def rate_of(model: keras.Model) -> float:
    """Return the learning rate, which may be kept once on each device."""
    return float(model.optimizer.learning_rate.numpy())


class Log(keras.callbacks.Callback):
    """Keep every epoch as a row: in `rows`, as CSV, and for TensorBoard where that is the backend."""

    def __init__(self, number: int, rows: list[dict[str, float]], folder: Path) -> None:
        super().__init__()
        self.number, self.rows, self.folder, self.began = number, rows, folder, time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Note the rate of an epoch, whose time counts from the end of the last: the feed's work is in it."""
        self.rate = rate_of(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write the epoch down."""
        found = {name: float(value) for name, value in (logs or {}).items()}
        head = {"round": self.number, "epoch": epoch + 1, "learning_rate": self.rate}
        began, self.began = self.began, time.monotonic()
        self.rows.append({**head, "seconds": round(self.began - began, 3), **found})
        write_history(self.folder / "history.csv", self.rows)
        if TENSORFLOW:
            multi_gpu.write_events(self.folder / "tensorboard", {**found, "learning_rate": self.rate}, len(self.rows))


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write every epoch so far as CSV."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]) if rows else [])
        table.writeheader()
        table.writerows(rows)


class ProgressBar(keras.callbacks.Callback):
    """Move a progress bar that counts the batches of all rounds."""

    def __init__(self, bar: tqdm, number: int, rounds: int) -> None:
        super().__init__()
        self.bar, self.number, self.rounds = bar, number, rounds

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Say where the training is."""
        self.bar.set_description(f"round {self.number}/{self.rounds}, epoch {epoch + 1}", refresh=False)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Move on by a batch."""
        self.bar.update()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Show the losses."""
        self.bar.set_postfix({name: f"{(logs or {})[name]:.4g}" for name in ("loss", "val_loss")}, refresh=False)
