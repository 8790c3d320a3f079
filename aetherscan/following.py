"""What watches a training while Keras runs it: guards, learning rate, logs, progress, and what it costs the machine."""

import csv
import math
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import keras
import numpy as np
import psutil
from tqdm import tqdm

from aetherscan.errors import TrainingError

TENSORFLOW = keras.backend.backend() == "tensorflow"
if TENSORFLOW:
    from aetherscan import on_tensorflow

Note = Callable[[Mapping[str, Any]], object]
"""Takes a finished stage of a training: its name, seconds, what the machine spent on it, and what came of it."""
COLLAPSED = 0.01
"""Nats of KL below which a latent says nothing of what was seen."""
LOOKED_EVERY = 20
"""Batches; looking waits for the device."""
GPU_USE = ("--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "--loop=5")
"""What is asked of NVIDIA's own tool: percent and MiB of each GPU, every five seconds."""


class Guard(keras.callbacks.Callback):
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
            on_tensorflow.write_events(
                self.folder / "tensorboard", {**found, "learning_rate": self.rate}, len(self.rows)
            )


def write_history(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write every epoch so far as CSV."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]) if rows else [])
        table.writeheader()
        table.writerows(rows)


class Bar(keras.callbacks.Callback):
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


@contextmanager
def stage(name: str, note: Note) -> Iterator[dict[str, Any]]:
    """Time what is done inside, and note it with what is put into the dict."""
    began, (cpu_s, _), found = time.monotonic(), _held(), dict[str, Any]()
    with _gpus() as gpus:
        yield found
    now_s, ram_bytes = _held()
    spent = {"seconds": round(time.monotonic() - began, 3), "cpu_s": round(now_s - cpu_s, 3), "ram_bytes": ram_bytes}
    note({"stage": name, **spent, **gpus, **found})


@contextmanager
def _gpus() -> Iterator[dict[str, float]]:
    """Fill the dict with how busy the GPUs were meanwhile, 0-1, and the most memory that one had in use."""
    used, tool = dict[str, float](), shutil.which("nvidia-smi")
    if tool is None:
        yield used
        return
    with TemporaryFile("w+") as said:
        with subprocess.Popen([tool, *GPU_USE], stdout=said, stderr=subprocess.DEVNULL) as looking:
            try:
                yield used
            finally:
                looking.terminate()
        said.seek(0)
        pairs = [line.split(", ") for line in said if line.replace(", ", "").strip().isdigit()]  # some tell [N/A]
    if pairs:
        busy, mib = np.array(pairs, dtype=float).T
        used |= {"gpu_load": round(float(busy.mean()) / 100, 3), "gpu_bytes": int(mib.max()) * 2**20}


def _held() -> tuple[float, int]:
    """Return the CPU seconds of this process and all below it, ended ones too, and the bytes that each has alone."""
    me, cpu_s, ram_bytes = psutil.Process(), 0.0, 0
    for one in (me, *me.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            memory = one.memory_info()
            cpu_s, ram_bytes = cpu_s + sum(one.cpu_times()[:4]), ram_bytes + memory.rss - getattr(memory, "shared", 0)
    return cpu_s, ram_bytes
