"""A release in memory: snippets in, probabilities out.

ONNX Runtime runs the encoder, so a search loads neither Keras nor its backend. The encoder takes one snippet at a time:
the latents of a snippet are then the same, to the bit, in every search. Batches of 32 would be less than 10% faster.

The probability is computed from measurements, or from the mean of the posterior, so that two searches of a cadence
agree. Its scatter between groups of trees is a measure of its uncertainty.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from jaxtyping import Float32, Float64
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from aetherscan.detector.release import (
    KINDS,
    MEASUREMENTS,
    OBSERVATIONS,
    SIGNAL,
    Kinds,
    Release,
    file_sha256,
    read_release,
)
from aetherscan.detector.saved_forest import group_shares, load_forest, tree_share
from aetherscan.detector.strangeness import strangeness
from aetherscan.errors import ReleaseError

ONNX_ERRORS = (
    onnx_errors.Fail,
    onnx_errors.InvalidArgument,
    onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf,
    onnx_errors.NotImplemented,
    onnx_errors.RuntimeException,
)

LEAST_SHARE = 1e-3
"""Share of trees of a kind that no tree votes for: few lines were simulated, so that no kind is excluded."""

Encode = Callable[
    [Float32[np.ndarray, "obs time bins"]], tuple[Float32[np.ndarray, "obs latent"], Float32[np.ndarray, "obs latent"]]
]
"""Encodes one snippet, 0-1: returns mean and log variance of the posterior of each observation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """Posteriors of some snippets: a Gaussian over the latents for each observation."""

    mean: Float32[np.ndarray, "batch obs latent"]
    log_var: Float32[np.ndarray, "batch obs latent"]

    def of(self, chosen: Any) -> "Latents":
        """Return the posteriors of the chosen snippets."""
        return Latents(mean=self.mean[chosen], log_var=self.log_var[chosen])

    @staticmethod
    def join(parts: Sequence["Latents"]) -> "Latents":
        """Concatenate several batches."""
        mean, log_var = (np.concatenate([getattr(part, name) for part in parts]) for name in ("mean", "log_var"))
        return Latents(mean=mean, log_var=log_var)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """A release in memory."""

    release: Release
    encode: Encode
    forests: Mapping[str, Any]  # by search mode
    kind_forest: Any = None  # None: the release names no kinds
    mode: str = "tracks"

    @property
    def threshold(self) -> float:
        """The lowest probability of a candidate."""
        return self.release.modes[self.mode].threshold

    def threshold_for(self, threshold: float | None, alarms_per_100_mhz: float | None) -> float:
        """Return the lowest probability of a candidate: as given, for a number of alarms, or the release's.

        Args:
            threshold: the probability itself, or None.
            alarms_per_100_mhz: alarms that may be expected in 100 MHz, or None.

        Raises:
            ReleaseError: the release has no thresholds for a budget.
        """
        if threshold is not None or alarms_per_100_mhz is None:
            return self.threshold if threshold is None else threshold
        alarms = self.release.modes[self.mode].alarms
        if alarms is None:
            raise ReleaseError(f"alarms_per_100_mhz: {self.release.name} has no thresholds for it in mode {self.mode}")
        ladder = dict(zip(alarms["per_100_mhz"], alarms["threshold"], strict=True))
        if "allowed" in alarms:
            ladder[alarms["allowed"]] = self.threshold
        budgets, thresholds = zip(*sorted(ladder.items()), strict=True)
        return float(np.interp(math.log(alarms_per_100_mhz), np.log(budgets), thresholds))

    def for_mode(self, mode: str) -> "Detector":
        """Return the same detector for another search mode.

        Raises:
            ReleaseError: the release has no forest for it.
        """
        if mode not in self.forests:
            raise ReleaseError(f"{self.release.name}: expected a forest for {mode}, found {', '.join(self.forests)}")
        return replace(self, mode=mode)

    def encode_snippets(self, snippets: Iterable[Float32[np.ndarray, "obs time bins"]]) -> Latents:
        """Return the latents of normalized snippets; an empty list gives an empty batch."""
        batch = list(snippets)
        blank = np.zeros((OBSERVATIONS, *self.release.snippet), dtype=np.float32)
        return encode_all(self.encode, batch or [blank]).of(slice(len(batch)))

    def score(
        self,
        latents: Latents,
        measurements: Float32[np.ndarray, "batch measurements"],
        factors: Float64[np.ndarray, " batch"] | float = 1.0,
    ) -> Float64[np.ndarray, " batch"]:
        """Return the probability of each snippet, or the share of trees where the mode has no calibration.

        Args:
            latents: of the snippets.
            measurements: of the snippets, with the columns of `MEASUREMENTS`; ignored by a forest that reads none.
            factors: by which the odds are greater than where the calibration holds; see `search.density`.
        """
        return self._calibrated(tree_share(self.forests[self.mode], self._columns(latents, measurements)), factors)

    def spread(
        self,
        latents: Latents,
        measurements: Float32[np.ndarray, "batch measurements"],
        factors: Float64[np.ndarray, " batch"] | float = 1.0,
    ) -> Float64[np.ndarray, " batch"]:
        """Return the standard deviation of each probability between groups of the trees."""
        shares = group_shares(self.forests[self.mode], self._columns(latents, measurements))
        return self._calibrated(shares.T, factors).std(axis=0)

    def _columns(self, latents: Latents, measurements: Float32[np.ndarray, "batch measurements"]) -> np.ndarray:
        mode = self.release.modes[self.mode]
        return forest_features(mode.latents, latents, measurements if mode.measurements else measurements[:, :0])

    def _calibrated(
        self, shares: Float64[np.ndarray, "*groups batch"], factors: Float64[np.ndarray, " batch"] | float
    ) -> Float64[np.ndarray, "*groups batch"]:
        points = self.release.modes[self.mode].calibration
        if points is None:
            return shares
        return times_odds(np.interp(shares, points["score"], points["probability"]), factors)

    def kinds(
        self, measurements: Float32[np.ndarray, "batch measurements"]
    ) -> tuple[list[str | None], Float64[np.ndarray, " batch"]]:
        """Return the most probable kind of each followed line, and its probability; None and NaN without a forest.

        Args:
            measurements: of lines that pass the gates, or that only an OFF vetoes.
        """
        kinds = self.release.kinds
        if kinds is None or not len(measurements):
            return [None] * len(measurements), np.full(len(measurements), np.nan)
        probabilities = self._kind_probabilities(measurements, kinds)
        return [kinds.names[i] for i in probabilities.argmax(axis=1)], probabilities.max(axis=1)

    def strangeness(self, measurements: Float32[np.ndarray, "batch measurements"]) -> Float64[np.ndarray, " batch"]:
        """Return how unlike the training's signals each line is (`aetherscan.detector.strangeness`).

        It is NaN if the release does not know what signals look like.

        Args:
            measurements: of lines that pass the gates.
        """
        kinds = self.release.kinds
        if kinds is None or kinds.signals is None or not len(measurements):
            return np.full(len(measurements), np.nan)
        probabilities = self._kind_probabilities(measurements, kinds)
        return strangeness(measurements, 1 - probabilities[:, kinds.names.index(SIGNAL)], kinds.signals)

    def _kind_probabilities(
        self, measurements: Float32[np.ndarray, "batch measurements"], kinds: Kinds
    ) -> Float64[np.ndarray, "batch kinds"]:
        return kind_probabilities(self.kind_forest.predict_proba(measurements), kinds.power)


def times_odds(
    probabilities: Float64[np.ndarray, "*groups batch"], factors: Float64[np.ndarray, " batch"] | float
) -> Float64[np.ndarray, "*groups batch"]:
    """Return the probabilities whose odds are greater by a factor."""
    return np.asarray(factors * probabilities / (1 + (factors - 1) * probabilities))


def kind_probabilities(shares: Float64[np.ndarray, "batch kinds"], power: float) -> Float64[np.ndarray, "batch kinds"]:
    """Return the probabilities that a power of the shares of trees gives; those of a line add up to 1."""
    raised = np.maximum(shares, LEAST_SHARE) ** power
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def forest_features(
    parts: Sequence[str], latents: Latents, measurements: Float32[np.ndarray, "batch measurements"]
) -> Float32[np.ndarray, "batch features"]:
    """Return the columns that a forest reads: the named parts of the latents, then the measurements."""
    batch, obs, latent = latents.mean.shape
    return np.concatenate(
        [*(getattr(latents, part).reshape(batch, obs * latent) for part in parts), measurements],
        axis=1,
        dtype=np.float32,
    )


def encode_all(encode: Encode, snippets: Iterable[Float32[np.ndarray, "obs time bins"]]) -> Latents:
    """Return the latents of at least one snippet."""
    mean, log_var = (np.stack(part) for part in zip(*map(encode, snippets), strict=True))
    return Latents(mean=mean, log_var=log_var)


def load_encoder(path: Path, shape: tuple[int, int], threads: int = 1) -> Encode:
    """Load an ONNX encoder.

    Args:
        path: the `.onnx` file.
        shape: rows and bins of an observation.
        threads: threads that ONNX Runtime uses.

    Raises:
        ReleaseError: the file is not an encoder of this shape.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    try:
        # Loaded from bytes, so that a model cannot refer to other files.
        session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except (OSError, *ONNX_ERRORS) as error:
        raise ReleaseError(f"{path}: expected an ONNX model, found {error}") from error
    found = [*((node.name, *node.shape[1:]) for node in session.get_inputs())]
    found += [node.name for node in session.get_outputs()]
    if found != (expected := [("image", *shape, 1), "z_mean", "z_log_var"]):
        raise ReleaseError(f"{path}: expected an encoder of {expected}, found {found}")

    def encode(snippet: Float32[np.ndarray, "obs time bins"]) -> tuple[Any, Any]:
        return tuple(session.run(None, {"image": snippet[..., None]}))

    return encode


def load_detector(folder: Path, threads: int = 1) -> Detector:
    """Load the release in `folder` and run its encoder once, on `threads` threads.

    Raises:
        ReleaseError: a file is missing or altered, the measurements are not those of this code, or the forests do not
            fit the encoder.
    """
    release = read_release(folder)
    encode = load_encoder(folder / "encoder.onnx", release.snippet, threads)
    forests = {mode: load_forest(folder / f"{mode}.skops") for mode in release.modes}
    kinds = load_forest(folder / f"{KINDS}.skops", len(release.kinds.names)) if release.kinds else None
    return _checked(Detector(release=release, encode=encode, forests=forests, kind_forest=kinds))


def exchange(detector: Detector, threshold: float | None, *, encoder: Path | None, forest: Path | None) -> Detector:
    """Replace the encoder or the forest of a detector's mode by a file from outside the release.

    The calibration of the release does not hold for another forest, so the result has none.

    Args:
        detector: a release, in the mode to change.
        threshold: lowest share of trees of a candidate, 0-1; required, as that of the release does not hold.
        encoder: `.onnx` file; None: that of the release.
        forest: `.skops` file, fitted to the latents of `encoder`; None: that of the release.

    Raises:
        ReleaseError: the threshold or the forest is missing, a file is not what its name says, or the forest does not
            fit the encoder.
    """
    own, mode = detector.release, detector.mode
    others = {path.name: file_sha256(path) for path in (encoder, forest) if path}
    if others and threshold is None:
        raise ReleaseError(
            f"{', '.join(others)}: --classification-threshold is required with --encoder-path or --rf-path, as the "
            f"calibration of {own.name} does not hold"
        )
    if encoder and not forest:
        raise ReleaseError(f"{encoder}: expected --rf-path with the forest fitted to its latents, found none")
    release = replace(
        own,
        name="+".join([own.name, *others]),
        sha256=hashlib.sha256("".join([own.sha256, *others.values()]).encode()).hexdigest(),
        modes={mode: replace(own.modes[mode], calibration=None, threshold=threshold or 0.0)},
    )
    return _checked(
        Detector(
            release=release,
            encode=load_encoder(encoder, own.snippet) if encoder else detector.encode,
            forests={mode: load_forest(forest) if forest else detector.forests[mode]},
            kind_forest=detector.kind_forest,
            mode=mode,
        )
    )


def _checked(detector: Detector) -> Detector:
    """Return the detector if each forest has as many columns as the encoder and the card give it."""
    release, (obs, latent) = detector.release, detector.encode_snippets([]).mean.shape[1:]
    for mode, forest in detector.forests.items():
        features = obs * latent * len(release.modes[mode].latents) + len(release.modes[mode].measurements)
        if forest.n_features_in_ != features:
            raise ReleaseError(
                f"{release.name}: expected a {mode} forest of {features} features, found {forest.n_features_in_}"
            )
    if detector.kind_forest and detector.kind_forest.n_features_in_ != len(MEASUREMENTS):
        found = detector.kind_forest.n_features_in_
        raise ReleaseError(f"{release.name}: expected a {KINDS} forest of {len(MEASUREMENTS)} features, found {found}")
    return detector
