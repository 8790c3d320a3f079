"""Encoder and forest in memory: snippets in, probabilities out.

The encoder is served by ONNX Runtime: a process that searches loads neither Keras nor what it runs on. It is shown one
snippet at a time, so that a snippet has the same latents, to the bit, whatever it is searched with; batches of
thirty-two would be seven per cent faster. Probability rests on the posterior's mean, which does not change from one
search to the next as a random draw's would; how much it would change is its spread.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float32, Float64
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from aetherscan.errors import ReleaseError
from aetherscan.forest import load_forest, share
from aetherscan.release import Release, read_release

OBSERVATIONS = 6
DRAWS = 32
"""Of the posterior, for the spread of a probability: each row sees the same, and so do any two searches."""
REFUSED = (
    onnx_errors.Fail,
    onnx_errors.InvalidArgument,
    onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf,
    onnx_errors.NotImplemented,
    onnx_errors.RuntimeException,
)

Encode = Callable[
    [Float32[np.ndarray, "obs time bins"]], tuple[Float32[np.ndarray, "obs latent"], Float32[np.ndarray, "obs latent"]]
]
"""One snippet in, mean and log variance of each observation's posterior out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """What the encoder says of some snippets: a Gaussian for each observation."""

    mean: Float32[np.ndarray, "batch obs latent"]
    log_var: Float32[np.ndarray, "batch obs latent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A release in memory."""

    release: Release
    encode: Encode
    forest: Any

    def encode_snippets(self, snippets: Iterable[Float32[np.ndarray, "obs time bins"]]) -> Latents:
        """Return the latents of normalized snippets, of which there may be none."""
        geometry = self.release.snippet
        blank = np.zeros((OBSERVATIONS, geometry["rows"], geometry["bins"]), dtype=np.float32)
        given = list(snippets)
        latents = encode_all(self.encode, given or [blank])
        return Latents(mean=latents.mean[: len(given)], log_var=latents.log_var[: len(given)])

    def score(
        self, latents: Latents, measurements: Float32[np.ndarray, "batch measurements"]
    ) -> Float64[np.ndarray, " batch"]:
        """Return each snippet's probability, calibrated where the release is; `release.measurements` names columns."""
        batch, obs, latent = latents.mean.shape
        shares = share(self.forest, np.concatenate([latents.mean.reshape(batch, obs * latent), measurements], axis=1))
        points = self.release.calibration
        return np.interp(shares, points["score"], points["probability"]) if points else shares

    def spread(
        self, latents: Latents, measurements: Float32[np.ndarray, "batch measurements"]
    ) -> Float64[np.ndarray, " batch"]:
        """Return the standard deviation of each probability over draws of the posterior: as long as 32 scores take."""
        batch, *shape = latents.mean.shape
        draws = np.random.default_rng(0).standard_normal((DRAWS, *shape), dtype=np.float32)
        z = latents.mean[:, None] + np.exp(latents.log_var[:, None] / 2) * draws
        drawn = Latents(mean=z.reshape(batch * DRAWS, *shape), log_var=np.repeat(latents.log_var, DRAWS, axis=0))
        return self.score(drawn, np.repeat(measurements, DRAWS, axis=0)).reshape(batch, DRAWS).std(axis=1)


def encode_all(encode: Encode, snippets: Iterable[Float32[np.ndarray, "obs time bins"]]) -> Latents:
    """Return the latents of one snippet or more."""
    mean, log_var = (np.stack(part) for part in zip(*map(encode, snippets), strict=True))
    return Latents(mean=mean, log_var=log_var)


def load_encoder(path: Path, shape: tuple[int, int], threads: int = 1) -> Encode:
    """Return the encoder in `path`, which takes observations of `shape`: rows and bins.

    Raises:
        ReleaseError: the file is no such encoder.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    try:
        # From memory: a model that points at other files finds none.
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except (OSError, *REFUSED) as error:
        raise ReleaseError(f"{path}: expected an ONNX model, found {error}") from error
    given, made = session.get_inputs(), session.get_outputs()
    found = [*((one.name, *one.shape[1:]) for one in given), *(one.name for one in made)]
    if found != (expected := [("image", *shape, 1), "z_mean", "z_log_var"]):
        raise ReleaseError(f"{path}: expected an encoder of {expected}, found {found}")

    def encode(snippet: Float32[np.ndarray, "obs time bins"]) -> tuple[Any, Any]:
        return tuple(session.run(None, {"image": snippet[..., None]}))

    return encode


def load_detector(folder: Path, threads: int = 1) -> Detector:
    """Load and warm the release in `folder`; the encoder runs on as many `threads`.

    Raises:
        ReleaseError: a file is missing, altered, or encoder and forest do not fit each other.
    """
    release = read_release(folder)
    encode = load_encoder(folder / "encoder.onnx", (release.snippet["rows"], release.snippet["bins"]), threads)
    detector = Detector(release=release, encode=encode, forest=load_forest(folder / "forest.skops"))
    obs, latent = detector.encode_snippets([]).mean.shape[1:]
    features = obs * latent + len(release.measurements)
    if detector.forest.n_features_in_ != features:
        raise ReleaseError(
            f"{folder}: expected a forest of {features} features, found {detector.forest.n_features_in_}"
        )
    return detector
