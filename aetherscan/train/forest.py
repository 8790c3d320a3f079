"""Fit, calibrate and measure the random forest of each search mode.

The forest of tracks reads the measurements of a track, that of windows the mean of the posterior of each observation.
These inputs are fixed: `benchmarks/forest_inputs.py` compares them with others, among them a random draw of the
posterior, as Aetherscan uses, with which two searches of a cadence differ.

Three sets of patches, each from a random stream of its own, fit the forest, calibrate it and measure it. False alarms
are counted per window of band, as Aetherscan counts them: at a rate of 1e-4, a band of 100 MHz has about one.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from aetherscan.detector.alarms import alarm_table
from aetherscan.detector.detector import Encode, Latents, encode_all, forest_features, times_odds
from aetherscan.detector.release import MEASUREMENTS
from aetherscan.detector.saved_forest import tree_share
from aetherscan.errors import TrainingError
from aetherscan.options.search import MODES
from aetherscan.options.train import TrainSettings
from aetherscan.search.cutouts import UINT8_MAX
from aetherscan.search.density import BESIDE_PER_MHZ, REFERENCE_PER_MHZ, odds_factor
from aetherscan.train.examples import Examples
from aetherscan.train.random_forest import calibrate, fit_forest, save_forest
from aetherscan.train.random_skies import Kind

LATENTS = {"tracks": (), "windows": ("mean",)}
"""Parts of the posterior that the forest of each mode reads. Beside the measurements of a track they do not help."""
MAX_FEATURES: dict[str, float | str] = {"tracks": 0.5, "windows": "sqrt"}
"""Features of a split, by default."""
LEAVES = {"tracks": 512, "windows": 128}
"""Most leaves of a tree. 100 trees of 512 leaves recall as much as 300, and more than 300 of 128 or 256."""
PASSED = 0.04
"""Fraction of the windows without a signal that may be above the threshold of `--mode windows`."""
BUDGET, EMITTERS_PER_MHZ, ZOO_SNR = 0.5, 15.0, (8.0, 3000.0)
"""Alarms per 100 MHz that a release has by default, and density and SNR of the interference for which they hold."""
ON_TOGETHER = MEASUREMENTS.index("on_together")
RATES = (0.05, 1e-2, 1e-3, 1e-4)
"""False alarms per window at which recall is measured."""
FEWEST_ALARMS = 3
"""Fewest expected false alarms of a rate: fewer are too uncertain."""
SNR_EDGES = (4, 5, 6, 8, 10, 12, 16, 24, 60)
FEWEST = {"fit": 2, "calibrate": 1, "measure": 1}
"""Fewest signals, and fewest other examples, of each set; two signals at least have a covariance."""
FAINT_WEIGHT = 0.3
"""Weight of interference too faint for the budget. With 1, recall at SNR 4 to 6 is 6 to 7 points lower, for a third
fewer alarms of such interference; above SNR 8 they agree within a point."""
LABEL_WEIGHT = 20.0
"""Weight of an example that a person has labelled; a simulated one has 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFeatures:
    """Examples as a forest reads them, without their snippets."""

    latents: Latents
    measurements: Float32[np.ndarray, "batch measurements"]
    labels: Float32[np.ndarray, " batch"]  # 1.0 for a signal, else 0.0
    snrs: Float32[np.ndarray, " batch"]  # of the signal in its faintest ON; 0 without a signal
    kinds: Shaped[np.ndarray, " batch"]  # of interference, "" for others
    beside: Bool[np.ndarray, " batch"]  # whether a track is beside interference
    windows: float  # number of windows of band in which the examples were found

    def only(self, chosen: np.ndarray) -> "LabelledFeatures":
        """Return the chosen examples, with the same fraction of the windows."""
        return LabelledFeatures(
            latents=self.latents.of(chosen), measurements=self.measurements[chosen], labels=self.labels[chosen],
            snrs=self.snrs[chosen], kinds=self.kinds[chosen], beside=self.beside[chosen],
            windows=self.windows * len(chosen) / max(1, len(self.labels)),
        )  # fmt: skip

    @staticmethod
    def join(parts: Sequence["LabelledFeatures"]) -> "LabelledFeatures":
        """Concatenate several sets of examples."""
        columns = ("measurements", "labels", "snrs", "kinds", "beside")
        return LabelledFeatures(
            latents=Latents.join([part.latents for part in parts]), windows=sum(part.windows for part in parts),
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns},
        )  # fmt: skip

    def features(self, mode: str) -> Float32[np.ndarray, "batch features"]:
        """Return the columns that the forest of a mode reads: windows have no measurements."""
        return forest_features(LATENTS[mode], self.latents, self.measurements)


def labelled_features(encode: Encode, examples: Examples) -> LabelledFeatures:
    """Encode at least one example; the number of windows in which they were found is left at 0."""
    latents = encode_all(encode, (snippet.astype(np.float32) / UINT8_MAX for snippet in examples.snippets))
    return LabelledFeatures(
        latents=latents, measurements=examples.measurements, labels=examples.labels, snrs=examples.snrs,
        kinds=examples.kinds, beside=examples.beside, windows=0.0,
    )  # fmt: skip


def collect_features(
    encode: Encode, drawn: Iterable[dict[str, Examples]], windows: float
) -> dict[str, LabelledFeatures]:
    """Encode drawn examples, and return them by search mode.

    Args:
        encode: the encoder.
        drawn: examples of several patches, by search mode.
        windows: number of windows of band in all patches. In windows mode, each example without a signal is one.

    Raises:
        TrainingError: no example of a mode was drawn.
    """
    parts: dict[str, list[LabelledFeatures]] = {mode: [] for mode in MODES}
    for batch in drawn:
        for mode, examples in batch.items():
            if len(examples.labels):
                parts[mode].append(labelled_features(encode, examples))
    if empty := [mode for mode in MODES if not parts[mode]]:
        raise TrainingError(
            f"{', '.join(empty)}: expected examples for the forests, found none: raise forest_patches and judge_patches"
        )
    joined = {mode: LabelledFeatures.join(features) for mode, features in parts.items()}
    counts = {"tracks": windows, "windows": float(np.sum(joined["windows"].labels == 0))}
    return {mode: replace(features, windows=counts[mode]) for mode, features in joined.items()}


def train_forest(
    folder: Path,
    mode: str,
    sets: dict[str, LabelledFeatures],
    settings: TrainSettings,
    drawn_kinds: Mapping[str, Kind],
    labelled: LabelledFeatures | None = None,
) -> dict[str, Any]:
    """Fit, calibrate and measure the forest of one search mode; return its part of the card.

    Args:
        folder: of the release, in which the forest is written.
        mode: search mode, of `MODES`.
        sets: examples of separate patches: `fit`, `calibrate` and `measure`.
        settings: of the training.
        drawn_kinds: how often and with which SNR each kind of interference is in the examples.
        labelled: examples labelled by people, which join the set `fit`.

    Raises:
        TrainingError: a set has too few signals or too few other examples.
    """
    fit = sets["fit"].only(np.arange(min(settings.num_samples_rf, len(sets["fit"].labels))))
    for name, features in {**sets, "fit": fit}.items():
        check_both_classes(mode, name, features.labels)
    drawn = len(fit.labels)
    weights = np.ones(drawn, np.float32)
    if mode == "tracks":
        weights[(fit.labels == 0) & (mean_on_snr(fit) < ZOO_SNR[0])] = FAINT_WEIGHT
    if labelled:
        weights = np.append(weights, np.full(len(labelled.labels), LABEL_WEIGHT, np.float32))
        fit = LabelledFeatures.join([fit, labelled])
    forest = fit_forest(
        fit.features(mode), fit.labels, settings.seed if settings.rf_seed is None else settings.rf_seed,
        settings.rf_n_estimators, weights=weights, bootstrap=settings.rf_bootstrap,
        max_features=settings.rf_max_features or MAX_FEATURES[mode], max_leaf_nodes=LEAVES[mode],
        n_jobs=settings.rf_n_jobs,
    )  # fmt: skip
    save_forest(folder / f"{mode}.skops", forest)
    calibration = calibrate(tree_share(forest, sets["calibrate"].features(mode)), sets["calibrate"].labels)
    shares = tree_share(forest, sets["measure"].features(mode))
    scores = np.interp(shares, calibration["score"], calibration["probability"])
    metrics = measure(scores, sets["measure"], PASSED)
    threshold = metrics.pop("threshold")
    alarms = None
    if mode == "tracks":
        alarms = alarm_budget(
            scores, sets["measure"], settings.freq_resolution * settings.width_bin * 1e-6, drawn_kinds
        )
        threshold = alarms.pop("threshold_allowed")
    return {
        "threshold": threshold,
        "alarms": alarms,
        "latents": list(LATENTS[mode]),
        "measurements": list(MEASUREMENTS) if mode == "tracks" else [],
        "calibration": calibration,
        "learned": {"signals": int(fit.labels.sum()), "others": int((fit.labels == 0).sum())},
        "labelled": len(fit.labels) - drawn,
        "metrics": metrics,
    }


def check_both_classes(mode: str, name: str, labels: Float32[np.ndarray, " batch"]) -> None:
    """Check that a set of examples can fit, calibrate or measure a forest.

    Args:
        mode: search mode.
        name: of the set: `fit`, `calibrate` or `measure`.
        labels: 1.0 for a signal, else 0.0.

    Raises:
        TrainingError: it has too few signals or too few other examples.
    """
    signals, others = int(labels.sum()), int((labels == 0).sum())
    if min(signals, others) < FEWEST[name]:
        options = "forest_patches or num_samples_rf" if name == "fit" else "judge_patches"
        raise TrainingError(
            f"forest of {mode}: expected at least {FEWEST[name]} signals and {FEWEST[name]} other examples to {name} "
            f"it, found {signals} and {others}: raise {options}"
        )


def thresholds(others: Float64[np.ndarray, " rows"], windows: float) -> dict[float, float]:
    """Return the score threshold for each rate of false alarms with at least `FEWEST_ALARMS` expected.

    Args:
        others: scores of the examples without a signal, at least one.
        windows: number of windows of band in which they were found.

    Returns:
        Threshold by rate per window: 0 if the rate allows more false alarms than there are examples.
    """
    rates = [rate for rate in RATES if rate * windows >= FEWEST_ALARMS] or [RATES[0]]
    fractions = {rate: rate * windows / len(others) for rate in rates}
    return {rate: float(np.quantile(others, 1 - part)) if part < 1 else 0.0 for rate, part in fractions.items()}


def alarm_budget(
    scores: Float64[np.ndarray, " rows"], features: LabelledFeatures, window_mhz: float, drawn: Mapping[str, Kind]
) -> dict[str, Any]:
    """Return the threshold for each budget of alarms, and the alarms by kind of interference at the default one.

    Alarms are those in a band with `EMITTERS_PER_MHZ`, of all kinds alike, with SNR log-uniform from 8 to 3,000, as
    `simulate.interference.zoo` draws them. The examples hold more and fainter interference. An example of a kind
    therefore counts as often as that kind and SNR is in such a band, and not if its SNR is below 8. A false alarm that
    is no interference counts by the density of all. The odds of a track beside interference are lower, as in a search.

    Args:
        scores: probabilities of the examples, 0-1.
        features: the examples.
        window_mhz: band of a window.
        drawn: how often and with which SNR each kind is in the examples.
    """
    mhz, other = features.windows * window_mhz, features.labels == 0
    scores = times_odds(scores, odds_factor(REFERENCE_PER_MHZ + BESIDE_PER_MHZ * features.beside))
    kinds, snrs = features.kinds[other], mean_on_snr(features)[other]
    density = EMITTERS_PER_MHZ / max(1, len(drawn)) / math.log(ZOO_SNR[1] / ZOO_SNR[0])
    scale = {name: density / kind.per_mhz * math.log(kind.snr[1] / kind.snr[0]) for name, kind in drawn.items()}
    unnamed = EMITTERS_PER_MHZ / (sum(kind.per_mhz for kind in drawn.values()) or EMITTERS_PER_MHZ)
    times = [
        scale[name] * (snr >= ZOO_SNR[0]) if name in scale else unnamed
        for name, snr in zip(kinds, snrs, strict=True)
    ]  # fmt: skip
    return alarm_table(scores[other], np.array(times) * 100 / mhz, kinds, BUDGET)


def mean_on_snr(features: LabelledFeatures) -> Float32[np.ndarray, " batch"]:
    """Return the mean SNR of each example of tracks in the ONs."""
    return np.asarray(features.measurements[:, ON_TOGETHER] / 3**0.5)


def measure(scores: Float64[np.ndarray, " rows"], features: LabelledFeatures, passed: float) -> dict[str, Any]:
    """Return the threshold, and the recall by SNR at each rate of false alarms.

    Args:
        scores: probabilities of the examples, 0-1.
        features: the examples.
        passed: fraction of the examples without a signal that may lie above the threshold.
    """
    signal, snrs = features.labels == 1, features.snrs
    others = scores[~signal]
    bins = {f"{low}-{high}": signal & (snrs >= low) & (snrs < high) for low, high in pairwise(SNR_EDGES)}
    recall = {
        f"recall_at_{rate:g}": {
            name: round(float(np.mean(scores[inside] > threshold)), 4) for name, inside in bins.items() if inside.any()
        }
        for rate, threshold in thresholds(others, features.windows).items()
    }
    return {
        "threshold": float(np.quantile(others, 1 - passed)),
        "signals": int(signal.sum()),
        "others": len(others),
        "windows": round(features.windows),
        **recall,
    }
