"""Checkpoints: the state of a training after a round, on disk.

    round_07/
        encoder.keras, decoder.keras   float32, also after mixed-precision training; loads on every backend
        optimizer.npz                  Adam's moments and step count
        state.json                     run, round, history, phases, settings

A checkpoint is written to a temporary folder, flushed and renamed, so it is complete or absent. It holds no random
state: the draws of a round depend only on the seed, the round and the epoch.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from aetherscan.errors import TrainingError
from aetherscan.train.vae import BetaVAE, Shape, build_decoder, build_encoder

History = list[dict[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a checkpoint says of the training that wrote it.

    Attributes:
        run: identifies the training.
        round: its last round, from 1.
        history: every epoch so far.
        phases: rounds with the same settings, in the order in which they were trained.
        start: the encoder part of the card of the release that the training started from.
        settings: of the last round.
        files: sizes of the files of backgrounds, bytes.
    """

    run: str
    round: int
    history: History
    phases: list[dict[str, Any]]
    start: dict[str, Any] | None
    settings: dict[str, Any]
    files: dict[str, int]


def read_state(folder: Path) -> State | None:
    """Return the state that a checkpoint holds; None for a release, which has none.

    Raises:
        TrainingError: it is no state of this version.
    """
    path = folder / "state.json"
    if not path.exists():
        return None
    try:
        return State(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path}: expected the state of a checkpoint of this version, found {error}") from error


def save(checkpoints: Path, model: BetaVAE, shape: Shape, state: State) -> Path:
    """Write the checkpoint of a round, replacing one of the same name, and return its folder.

    Args:
        checkpoints: folder of the checkpoints of the training.
        model: after the round.
        shape: of its encoder.
        state: of the training.
    """
    folder = checkpoints / f"round_{state.round:02d}"
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save_encoder(temporary / "encoder.keras", model.encoder, shape)
        _float32(build_decoder, model.decoder, shape).save(temporary / "decoder.keras")
        values = {f"{i:03d}": variable.numpy() for i, variable in enumerate(_state(model.optimizer))}
        np.savez(temporary / "optimizer.npz", **values)
        (temporary / "state.json").write_text(json.dumps(asdict(state), indent=1) + "\n", encoding="utf-8")
        for file in temporary.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load(folder: Path, model: BetaVAE) -> State | None:
    """Load a checkpoint into a compiled model, and return its state.

    A release folder holds only the encoder: decoder and optimizer then stay as they are, and there is no state.

    Raises:
        TrainingError: the folder holds no encoder, or one of another shape.
    """
    try:
        model.encoder.set_weights(_loaded(folder / "encoder.keras"))
        if not (state := read_state(folder)):
            return None
        model.decoder.set_weights(_loaded(folder / "decoder.keras"))
        with np.load(folder / "optimizer.npz") as values:
            for variable, name in zip(_state(model.optimizer), sorted(values), strict=True):
                variable.assign(values[name])
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{folder}: expected a checkpoint of the same settings, found {error}") from error
    return state


def save_encoder(path: Path, encoder: keras.Model, shape: Shape) -> keras.Model:
    """Write an encoder with float32 computation, and return that encoder."""
    plain = _float32(build_encoder, encoder, shape)
    plain.save(path)
    return plain


def _state(optimizer: keras.Optimizer) -> list[Any]:
    """Return the optimizer's variables without its accumulated gradients, which are all applied when a round ends."""
    return [variable for variable in optimizer.variables if "gradient_accumulator" not in variable.path]


def _float32(build: Any, model: keras.Model, shape: Shape) -> keras.Model:
    with keras.device("cpu"):
        plain = build(replace(shape, precision="float32"))
        plain.set_weights(model.get_weights())
    return plain


def _loaded(path: Path) -> list[Any]:
    return list(keras.saving.load_model(path, compile=False).get_weights())
