"""Keras callbacks of a training: stop on NaN or collapse, lower the learning rate, log, show progress."""

import csv
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from aetherscan.errors import TrainingError
from aetherscan.train.events import write_events
from aetherscan.train.progress import Progress

TENSORFLOW = keras.backend.backend() == "tensorflow"
COLLAPSED = 0.01
"""KL divergence, nats, below which a latent holds no information about its observation."""
CHECKED_EVERY = 20
"""Batches between two checks of the loss: a check waits for the device."""


class NanGuard(keras.callbacks.Callback):
    """Stop a training whose loss is NaN or infinite, or whose posterior has collapsed onto the prior."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Check the loss of every `CHECKED_EVERY`th batch."""
        if batch % CHECKED_EVERY == 0:
            self._check_finite(logs or {}, f"batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Check every loss, and the largest KL divergence of a latent."""
        logs = logs or {}
        self._check_finite(logs, f"epoch {epoch + 1}")
        if logs["kl_most"] < COLLAPSED:
            raise TrainingError(
                f"round {self.number}, epoch {epoch + 1}: posterior collapse: expected a latent with a KL "
                f"divergence of at least {COLLAPSED}, found {logs['kl_most']:.2g}: lower vae_beta, or raise vae_alpha"
            )

    def _check_finite(self, logs: dict[str, Any], when: str) -> None:
        if names := [name for name, value in logs.items() if not math.isfinite(float(value))]:
            raise TrainingError(
                f"round {self.number}, {when}: expected finite losses, found NaN or infinity in {', '.join(names)}: "
                "lower base_learning_rate, train in float32, or check train_files for bad values"
            )


class Plateau(keras.callbacks.Callback):
    """Lower the learning rate after some epochs without a lower validation loss.

    Args:
        patience: epochs without improvement.
        improvement: smallest relative decrease of the loss that counts, 0-1.
        reduction: fraction by which the learning rate is lowered, 0-1.
        least: lowest learning rate.
    """

    def __init__(self, patience: int, improvement: float, reduction: float, least: float) -> None:
        super().__init__()
        self.patience, self.improvement, self.reduction, self.least = patience, improvement, reduction, least
        self.best, self.waited = math.inf, 0

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Compare the validation loss with the best, and lower the learning rate if it is time."""
        loss = (logs or {})["val_loss"]
        better = loss < self.best * (1 - self.improvement)
        self.best, self.waited = (loss, 0) if better else (self.best, self.waited + 1)
        if self.waited >= self.patience:
            rate = rate_of(self.model) * (1 - self.reduction)
            self.model.optimizer.learning_rate = max(rate, self.least)
            self.waited = 0


def rate_of(model: keras.Model) -> float:
    """Return the learning rate, also where each device has a copy."""
    return float(model.optimizer.learning_rate.numpy())


class Log(keras.callbacks.Callback):
    """Log every epoch as a row: in `rows`, as CSV, and for TensorBoard."""

    def __init__(self, number: int, rows: list[dict[str, float]], folder: Path, events: Path) -> None:
        super().__init__()
        self.number, self.rows, self.folder, self.events = number, rows, folder, events
        self.began = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Record the learning rate. The time of an epoch starts when the last one ends, so it includes the batches'."""
        self.rate = rate_of(self.model)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the epoch."""
        losses = {name: float(value) for name, value in (logs or {}).items()}
        head = {"round": self.number, "epoch": epoch + 1, "learning_rate": self.rate}
        began, self.began = self.began, time.monotonic()
        self.rows.append({**head, "seconds": round(self.began - began, 3), **losses})
        write_history(self.folder / "history.csv", self.rows)
        write_events(self.events, {**losses, "learning_rate": self.rate}, len(self.rows))


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write the epochs so far as CSV."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]) if rows else [])
        table.writeheader()
        table.writerows(rows)


class ShowProgress(keras.callbacks.Callback):
    """Count the batches of all rounds as progress."""

    def __init__(self, progress: Progress, number: int, rounds: int) -> None:
        super().__init__()
        self.progress, self.number, self.rounds, self.losses = progress, number, rounds, ""

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Show the round and the epoch."""
        self.progress.describe(f"round {self.number}/{self.rounds}, epoch {epoch + 1}", self.losses)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Advance by a batch."""
        self.progress.advance()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Show the losses."""
        self.losses = ", ".join(f"{name} {(logs or {})[name]:.4g}" for name in ("loss", "val_loss"))
