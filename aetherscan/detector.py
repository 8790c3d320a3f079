"""Encoder and forest in memory: snippets in, probabilities out.

Batches always have one size, the last padded, so that a snippet gets the same score whatever it is searched with.
The score rests on the posterior's mean: it does not change from one search to the next, as a random draw's would.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from jaxtyping import Float32, Float64

from aetherscan.errors import ReleaseError
from aetherscan.forest import load_forest, probability
from aetherscan.release import Release, read_release

BATCH = 32
"""Snippets a call; six observations each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What the detector says of some snippets."""

    probability: Float64[np.ndarray, " batch"]
    latents: Float32[np.ndarray, "batch obs latent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A release in memory."""

    release: Release
    encode: Callable[[Any], Any]
    forest: Any

    def score(self, snippets: Float32[np.ndarray, "batch obs time bins"]) -> Scores:
        """Return probability and latents of normalized snippets."""
        latents = encode_all(self.encode, snippets)
        return Scores(probability=probability(self.forest, latents.reshape(len(latents), -1)), latents=latents)


def encode_all(
    encode: Callable[[Any], Any], snippets: Float32[np.ndarray, "batch obs time bins"]
) -> Float32[np.ndarray, "batch obs latent"]:
    """Return the posterior mean of each observation of each snippet."""
    obs, rows, bins = snippets.shape[1:]
    found = []
    for start in range(0, len(snippets), BATCH):
        part = snippets[start : start + BATCH]
        padded = np.zeros((BATCH, obs, rows, bins), dtype=np.float32)
        padded[: len(part)] = part
        z_mean = np.asarray(encode(padded.reshape(-1, rows, bins, 1)))
        found.append(z_mean.reshape(BATCH, obs, -1)[: len(part)])
    return np.concatenate(found)


def encode_with(encoder: keras.Model) -> Callable[[Any], Any]:
    """Return the encoder's mean as a compiled function: (batch, 16, 512, 1) -> (batch, latent)."""

    def encode(images: Any) -> Any:
        return encoder.predict_on_batch(images)[0]

    return encode


def load_detector(folder: Path) -> Detector:
    """Load and warm the release in `folder`; takes seconds.

    Raises:
        ReleaseError: a file is missing, altered, or encoder and forest do not fit each other.
    """
    release = read_release(folder)
    try:
        encoder = keras.saving.load_model(folder / "encoder.keras", compile=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ReleaseError(f"{folder / 'encoder.keras'}: expected a Keras model, found {error}") from error
    shape = (release.snippet["rows"], release.snippet["bins"], 1)
    if tuple(encoder.input_shape[1:]) != shape:
        raise ReleaseError(f"{folder}: expected an encoder of {shape}, found {tuple(encoder.input_shape[1:])}")
    detector = Detector(release=release, encode=encode_with(encoder), forest=load_forest(folder / "forest.skops"))
    latents = encode_all(detector.encode, np.zeros((1, 6, *shape[:2]), dtype=np.float32))
    if latents[0].size != detector.forest.n_features_in_:
        raise ReleaseError(
            f"{folder}: expected a forest of {latents[0].size} features, found {detector.forest.n_features_in_}"
        )
    return detector
