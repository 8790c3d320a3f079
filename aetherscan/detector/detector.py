"""Encoder and forests in memory: snippets in, probabilities out.

The encoder is served by ONNX Runtime: a process that searches loads neither Keras nor what it runs on. It is shown one
snippet at a time, so that a snippet has the same latents, to the bit, whatever it is searched with; batches of
thirty-two would be less than a tenth faster. Probability rests on the posterior's mean, which does not change from one
search to the next as a random draw's would; how much it would change is its spread.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float32, Float64
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from aetherscan.detector.random_forest import load_forest, share
from aetherscan.detector.release import Release, file_sha256, read_release
from aetherscan.errors import ReleaseError

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

    def of(self, chosen: Any) -> "Latents":
        """Return those of some snippets."""
        return Latents(mean=self.mean[chosen], log_var=self.log_var[chosen])

    @staticmethod
    def join(parts: Sequence["Latents"]) -> "Latents":
        """Return several as one."""
        return Latents(
            mean=np.concatenate([part.mean for part in parts]), log_var=np.concatenate([part.log_var for part in parts])
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A release in memory."""

    release: Release
    encode: Encode
    forests: Mapping[str, Any]  # by mode of searching
    mode: str = "tracks"

    @property
    def threshold(self) -> float:
        """The probability from which a candidate is told of."""
        return self.release.modes[self.mode].threshold

    def for_mode(self, mode: str) -> "Detector":
        """Return the same detector for another mode of searching.

        Raises:
            ReleaseError: the release has no forest for it.
        """
        if mode not in self.forests:
            raise ReleaseError(f"{self.release.name}: expected a forest for {mode}, found {', '.join(self.forests)}")
        return replace(self, mode=mode)

    def encode_snippets(self, snippets: Iterable[Float32[np.ndarray, "obs time bins"]]) -> Latents:
        """Return the latents of normalized snippets, of which there may be none."""
        blank = np.zeros((OBSERVATIONS, *self.release.snippet), dtype=np.float32)
        given = list(snippets)
        latents = encode_all(self.encode, given or [blank])
        return Latents(mean=latents.mean[: len(given)], log_var=latents.log_var[: len(given)])

    def score(
        self, latents: Latents, measurements: Float32[np.ndarray, "batch measurements"]
    ) -> Float64[np.ndarray, " batch"]:
        """Return each snippet's probability, calibrated where the mode is; `Mode.measurements` names columns."""
        mode = self.release.modes[self.mode]
        shares = share(
            self.forests[self.mode], read_by(mode.latents, latents, measurements[:, : len(mode.measurements)])
        )
        points = mode.calibration
        return np.interp(shares, points["score"], points["probability"]) if points else shares

    def strangeness(self, latents: Latents) -> Float64[np.ndarray, " batch"]:
        """Return how far each snippet's latents lie from those of the signals learned from; 1 is usual for a signal.

        It is Mahalanobis' distance over the square root of the count of dimensions; NaN where the card does not say.
        """
        known = self.release.modes[self.mode].familiar
        if known is None:
            return np.full(len(latents.mean), np.nan)
        away = (on_and_off(latents) - known["centre"]) @ np.array(known["whiten"]).T
        return np.sqrt(np.mean(away**2, axis=1))

    def spread(
        self, latents: Latents, measurements: Float32[np.ndarray, "batch measurements"]
    ) -> Float64[np.ndarray, " batch"]:
        """Return the standard deviation of each probability over draws of the posterior: as long as 32 scores take."""
        batch, *shape = latents.mean.shape
        draws = np.random.default_rng(0).standard_normal((DRAWS, *shape), dtype=np.float32)
        z = latents.mean[:, None] + np.exp(latents.log_var[:, None] / 2) * draws
        drawn = Latents(mean=z.reshape(batch * DRAWS, *shape), log_var=np.repeat(latents.log_var, DRAWS, axis=0))
        return self.score(drawn, np.repeat(measurements, DRAWS, axis=0)).reshape(batch, DRAWS).std(axis=1)


def read_by(
    parts: Sequence[str], latents: Latents, measurements: Float32[np.ndarray, "batch measurements"]
) -> Float32[np.ndarray, "batch features"]:
    """Return what a forest reads of each snippet: parts of its `Latents`, and the measurements beside them."""
    batch, obs, latent = latents.mean.shape
    return np.concatenate(
        [*(getattr(latents, part).reshape(batch, obs * latent) for part in parts), measurements],
        axis=1,
        dtype=np.float32,
    )


def on_and_off(latents: Latents) -> Float64[np.ndarray, "batch features"]:
    """Return the mean latents of the ONs and those of the OFFs, side by side."""
    mean = latents.mean.astype(np.float64)
    return np.concatenate([mean[:, ::2].mean(axis=1), mean[:, 1::2].mean(axis=1)], axis=1)


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
        ReleaseError: a file is missing, altered, or encoder and forests do not fit each other.
    """
    release = read_release(folder)
    encode = load_encoder(folder / "encoder.onnx", release.snippet, threads)
    forests = {mode: load_forest(folder / f"{mode}.skops") for mode in release.modes}
    return _fitting(Detector(release=release, encode=encode, forests=forests))


def exchange(detector: Detector, threshold: float | None, *, encoder: Path | None, forest: Path | None) -> Detector:
    """Return a detector, for its mode alone, with an encoder (.onnx) or a forest (.skops) that is not its release's.

    What the release knows of its own does not hold for others: they have no calibration, and `threshold` must be given.

    Raises:
        ReleaseError: a file is no such thing, they do not fit each other, or something is not given.
    """
    own, mode = detector.release, detector.mode
    others = {path.name: file_sha256(path) for path in (encoder, forest) if path}
    if others and threshold is None:
        raise ReleaseError(f"{', '.join(others)}: expected a threshold of probability beside what {own.name} lacks")
    if encoder and not forest:
        raise ReleaseError(f"{encoder}: expected the forest that was fitted to its latents beside it, found none")
    release = replace(
        own,
        name="+".join([own.name, *others]),
        sha256=hashlib.sha256("".join([own.sha256, *others.values()]).encode()).hexdigest(),
        modes={mode: replace(own.modes[mode], calibration=None, familiar=None, threshold=threshold or 0.0)},
    )
    return _fitting(
        Detector(
            release=release,
            encode=load_encoder(encoder, own.snippet) if encoder else detector.encode,
            forests={mode: load_forest(forest) if forest else detector.forests[mode]},
            mode=mode,
        )
    )


def _fitting(detector: Detector) -> Detector:
    """Return the detector if its forests read what its encoder makes."""
    release, (obs, latent) = detector.release, detector.encode_snippets([]).mean.shape[1:]
    for mode, forest in detector.forests.items():
        features = obs * latent * len(release.modes[mode].latents) + len(release.modes[mode].measurements)
        if forest.n_features_in_ != features:
            raise ReleaseError(
                f"{release.name}: expected a {mode} forest of {features}, found {forest.n_features_in_} features"
            )
    return detector
