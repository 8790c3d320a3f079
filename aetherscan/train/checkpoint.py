"""A training between two rounds, on disk: whole, or not there.

    round_07/
        encoder.keras, decoder.keras   float32, whatever they were trained in; loads on every backend
        optimizer.npz                  Adam's moments and its count of steps
        state.json                     round, history, settings

A folder is written beside its place, flushed, and renamed, so that one that is there is whole. Random state is not in
it because there is none: a round draws from its seed, its number and the epoch's, and from nothing before it.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np

from aetherscan.errors import TrainingError
from aetherscan.train.vae import BetaVAE, Shape, build_decoder, build_encoder

History = list[dict[str, float]]


def save(checkpoints: Path, number: int, model: BetaVAE, shape: Shape, history: History, settings: Any) -> Path:
    """Write the checkpoint of a round, in place of one of the same name, and return its folder."""
    place = checkpoints / f"round_{number:02d}"
    fresh = place.with_name(f".{place.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        fresh.mkdir(parents=True)
        save_encoder(fresh / "encoder.keras", model.encoder, shape)
        _plain(build_decoder, model.decoder, shape).save(fresh / "decoder.keras")
        values = {f"{i:03d}": one.numpy() for i, one in enumerate(_state(model.optimizer))}
        np.savez(fresh / "optimizer.npz", **values)
        state = {"round": number, "history": history, "settings": settings}
        (fresh / "state.json").write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
        for file in fresh.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        shutil.rmtree(place, ignore_errors=True)
        fresh.rename(place)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return place


def load(folder: Path, model: BetaVAE) -> History:
    """Give `model`, compiled, the weights in a folder, and the optimizer's if they are there; return the history.

    A release has an encoder alone: then the decoder and the optimizer begin anew, and the history is empty.

    Raises:
        TrainingError: the folder holds no encoder, or one of another shape.
    """
    try:
        model.encoder.set_weights(_loaded(folder / "encoder.keras"))
        if not (folder / "state.json").exists():
            return []
        model.decoder.set_weights(_loaded(folder / "decoder.keras"))
        with np.load(folder / "optimizer.npz") as values:
            for variable, name in zip(_state(model.optimizer), sorted(values), strict=True):
                variable.assign(values[name])
        return list(json.loads((folder / "state.json").read_text(encoding="utf-8"))["history"])
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(f"{folder}: expected a checkpoint of the same settings, found {error}") from error


def save_encoder(path: Path, encoder: keras.Model, shape: Shape) -> keras.Model:
    """Write an encoder in float32, and return it so."""
    plain = _plain(build_encoder, encoder, shape)
    plain.save(path)
    return plain


def _state(optimizer: keras.Optimizer) -> list[Any]:
    """Return its variables but for gradients not yet applied, of which a round leaves none behind."""
    return [one for one in optimizer.variables if "gradient_accumulator" not in one.path]


def _plain(build: Any, model: keras.Model, shape: Shape) -> keras.Model:
    with keras.device("cpu"):
        plain = build(shape.plain())
        plain.set_weights(model.get_weights())
    return plain


def _loaded(path: Path) -> list[Any]:
    return list(keras.saving.load_model(path, compile=False).get_weights())
