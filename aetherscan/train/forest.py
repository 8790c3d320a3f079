"""The forests of a release: what each reads of the latents, chosen by measuring; fitted, calibrated, judged.

A forest may read the posterior's mean, its log variance too, and the measurements of a track. Each of these is tried on
skies that neither encoder nor forest has seen, and compared where it matters: at the smallest rate of false alarms that
their count carries. The rate is per window of band, as the seeds count: at 1e-4 a band of 100 MHz raises one. A random
draw, which the seeds' forest reads, is compared and never chosen: with it the same cadence searched twice is two lists.
Of two that differ by less than chance would make them, the simpler is taken.

What is strange is told apart from what is likely: `familiar` keeps where the latents of true signals lie, so that a
candidate's distance from them can be ranked by.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from aetherscan.detector.detector import Encode, Latents, encode_all, forest_features, on_and_off
from aetherscan.detector.random_forest import calibrate, fit_forest, save_forest, tree_share
from aetherscan.detector.release import MEASUREMENTS
from aetherscan.options.search import MODES
from aetherscan.options.train import TrainSettings
from aetherscan.search.cutouts import UINT8_MAX
from aetherscan.train.examples import Examples
from aetherscan.train.streams import Stream, generator

PASSED = 0.04
"""Share of what is no signal, as drawn here, that may pass: a sky's zoo then raises less than an alarm in 100 MHz."""
RATES = (0.05, 1e-2, 1e-3, 1e-4)
"""False alarms per window."""
FEWEST = 3
"""False alarms from which a rate is told of: fewer are an accident."""
SNR_EDGES = (6, 8, 10, 12, 16, 24, 60)
READS = {
    # what a forest may read, the simpler first; a random draw is compared and never served
    "windows": (("mean",), ("mean", "log_var"), ("draw",)),
    "tracks": (
        ("mean",), ("mean", "log_var"), ("mean", "measurements"), ("mean", "log_var", "measurements"),
        ("draw",), ("draw", "measurements"),
    ),
}  # fmt: skip
COMPARED_TREES, SAMPLES = 200, 200
LABEL_WEIGHT = 20.0
"""A row that a person has judged counts as so many drawn ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFeatures:
    """Examples as forests read them, without their snippets."""

    latents: Latents
    measurements: Float32[np.ndarray, "batch measurements"]
    labels: Float32[np.ndarray, " batch"]
    snrs: Float32[np.ndarray, " batch"]
    windows: float  # of band in which they were found

    def only(self, chosen: np.ndarray) -> "LabelledFeatures":
        """Return some of them, of as large a share of the windows."""
        return LabelledFeatures(
            latents=self.latents.of(chosen), measurements=self.measurements[chosen], labels=self.labels[chosen],
            snrs=self.snrs[chosen], windows=self.windows * len(chosen) / len(self.labels),
        )  # fmt: skip

    @staticmethod
    def join(parts: Sequence["LabelledFeatures"]) -> "LabelledFeatures":
        """Return several as one."""
        columns = ("measurements", "labels", "snrs")
        return LabelledFeatures(
            latents=Latents.join([part.latents for part in parts]), windows=sum(part.windows for part in parts),
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in columns},
        )  # fmt: skip


def labelled_features(encode: Encode, shown: Examples, windows: float = 0.0) -> LabelledFeatures:
    """Return what the encoder says of one example or more, which were found in so many windows."""
    latents = encode_all(encode, (snippet.astype(np.float32) / UINT8_MAX for snippet in shown.snippets))
    return LabelledFeatures(
        latents=latents, measurements=shown.measurements, labels=shown.labels, snrs=shown.snrs, windows=windows
    )


def collect_features(
    encode: Encode, drawn: Iterable[dict[str, Examples]], windows: float
) -> dict[str, LabelledFeatures]:
    """Return what the encoder says of all that is drawn, in so many windows; of `--mode windows` each is one."""
    parts: dict[str, list[LabelledFeatures]] = {mode: [] for mode in MODES}
    for some in drawn:
        for mode, shown in some.items():
            if len(shown.labels):
                parts[mode].append(labelled_features(encode, shown))
    joined = {mode: LabelledFeatures.join(of) for mode, of in parts.items()}
    counts = {"tracks": windows, "windows": float(np.sum(joined["windows"].labels == 0))}
    return {mode: replace(of, windows=counts[mode]) for mode, of in joined.items()}


def train_forest(
    folder: Path,
    mode: str,
    known: LabelledFeatures,
    select: LabelledFeatures,
    judged: LabelledFeatures,
    settings: TrainSettings,
    labelled: LabelledFeatures | None = None,
) -> dict[str, Any]:
    """Choose, fit, calibrate and judge the forest of one mode; return what the card says of it.

    Args:
        folder: where the forest is written.
        mode: of `MODES`.
        known: examples that forests are fitted to.
        select: examples of other patches, which choose the forest's features and calibrate its scores.
        judged: examples of further patches, which measure it.
        settings: of the training.
        labelled: tracks that people have judged, which join `known`.
    """
    known = known.only(np.arange(min(settings.num_samples_rf, len(known.labels))))
    drawn = len(known.labels)
    weights = np.ones(drawn, np.float32)
    if labelled:
        weights = np.append(weights, np.full(len(labelled.labels), LABEL_WEIGHT, np.float32))
        known = LabelledFeatures.join([known, labelled])
    chosen, compared = choose(mode, known, select, weights, settings)
    forest = fit(_read(known, chosen), known.labels, weights, settings, settings.rf_n_estimators)
    save_forest(folder / f"{mode}.skops", forest)
    points = calibrate(tree_share(forest, _read(select, chosen)), select.labels)
    scores = np.interp(tree_share(forest, _read(judged, chosen)), points["score"], points["probability"])
    metrics = judge(scores, judged, PASSED)
    return {
        "threshold": metrics.pop("threshold"),
        "latents": [part for part in chosen if part != "measurements"],
        "measurements": list(MEASUREMENTS) if "measurements" in chosen else [],
        "calibration": points,
        "familiar": familiar(known.latents.of(known.labels == 1)),
        "compared": compared,
        "learned": {"signals": int(known.labels.sum()), "others": int((known.labels == 0).sum())},
        "labelled": len(known.labels) - drawn,
        "metrics": metrics,
    }


def _read(shown: LabelledFeatures, parts: tuple[str, ...]) -> Float32[np.ndarray, "rows features"]:
    columns = shown.measurements if "measurements" in parts else shown.measurements[:, :0]
    latents = shown.latents
    if "draw" in parts:
        rng = generator(0, Stream.POSTERIOR, len(shown.labels))
        noise = rng.standard_normal(latents.mean.shape, dtype=np.float32)
        latents = Latents(mean=latents.mean + np.exp(latents.log_var / 2) * noise, log_var=latents.log_var)
    return forest_features(
        ["mean" if part == "draw" else part for part in parts if part != "measurements"], latents, columns
    )


def fit(
    features: Float32[np.ndarray, "rows features"],
    labels: Float32[np.ndarray, " rows"],
    weights: Float32[np.ndarray, " rows"],
    settings: TrainSettings,
    trees: int,
) -> Any:
    """Return a forest of so many trees, fitted as the settings say."""
    seed = settings.seed if settings.rf_seed is None else settings.rf_seed
    how = {"bootstrap": settings.rf_bootstrap, "max_features": settings.rf_max_features, "n_jobs": settings.rf_n_jobs}
    return fit_forest(features, labels, seed, trees, weights=weights, **how)


def choose(
    mode: str,
    known: LabelledFeatures,
    unseen: LabelledFeatures,
    weights: Float32[np.ndarray, " rows"],
    settings: TrainSettings,
) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Return what a forest should read, and how each choice did: recall of all signals at the smallest rate carried."""
    signal, table = unseen.labels == 1, list[dict[str, Any]]()
    chosen, best = READS[mode][0], None
    for parts in READS[mode]:
        trees = min(COMPARED_TREES, settings.rf_n_estimators)
        scores = tree_share(fit(_read(known, parts), known.labels, weights, settings, trees), _read(unseen, parts))
        found = {
            f"recall_at_{rate:g}": round(float(np.mean(scores[signal] > threshold)), 4)
            for rate, threshold in thresholds(scores[~signal], unseen.windows).items()
        }
        table.append({"reads": list(parts), **found})
        if "draw" not in parts and (best is None or surely_better(scores, best, signal, unseen.windows)):
            chosen, best = parts, scores
    return chosen, table


def surely_better(
    scores: Float64[np.ndarray, " rows"],
    than: Float64[np.ndarray, " rows"],
    signal: Bool[np.ndarray, " rows"],
    windows: float,
) -> bool:
    """Say whether recall at the smallest rate carried is higher in 19 of 20 samples of rows with replacement."""
    rng, wins = generator(0, Stream.BOOTSTRAP), 0
    for _ in range(SAMPLES):
        quiet, bright = (rng.choice(rows, len(rows)) for rows in (np.flatnonzero(~signal), np.flatnonzero(signal)))
        at = (min(thresholds(one[quiet], windows).items()) for one in (scores, than))
        mine, other = (np.mean(one[bright] > score) for one, (_, score) in zip((scores, than), at, strict=True))
        wins += mine > other
    return bool(wins >= 0.95 * SAMPLES)


def thresholds(quiet: Float64[np.ndarray, " rows"], windows: float) -> dict[float, float]:
    """Return the score that so few of what is no signal exceed, by their rate in so many windows, where it is carried.

    What got as far in fewer windows than the rate permits may all pass: above 0.
    """
    carried = [rate for rate in RATES if rate * windows >= FEWEST] or [RATES[0]]
    shares = {rate: rate * windows / len(quiet) for rate in carried}
    return {rate: float(np.quantile(quiet, 1 - part)) if part < 1 else 0.0 for rate, part in shares.items()}


def familiar(latents: Latents) -> dict[str, Any]:
    """Return the centre of the latents of true signals, ONs' and OFFs' means, and what makes their scatter round."""
    summary = on_and_off(latents)
    scatter = np.cov(summary, rowvar=False) + 1e-3 * np.eye(summary.shape[1])
    whiten = np.linalg.cholesky(np.linalg.inv(scatter)).T
    return {"centre": np.round(summary.mean(axis=0), 4).tolist(), "whiten": np.round(whiten, 4).tolist()}


def judge(scores: Float64[np.ndarray, " rows"], unseen: LabelledFeatures, passed: float) -> dict[str, Any]:
    """Return the threshold that passes the permitted share, and recall by SNR of the signal at several rates."""
    signal, snrs = unseen.labels == 1, unseen.snrs
    quiet = scores[~signal]
    carried = thresholds(quiet, unseen.windows)
    bins = [(low, high, signal & (snrs >= low) & (snrs < high)) for low, high in pairwise(SNR_EDGES)]
    recall = {
        f"recall_at_{rate:g}": {
            f"{low}-{high}": round(float(np.mean(scores[inside] > threshold)), 4)
            for low, high, inside in bins
            if inside.any()
        }
        for rate, threshold in carried.items()
    }
    return {
        "threshold": float(np.quantile(quiet, 1 - passed)),
        "signals": int(signal.sum()),
        "others": len(quiet),
        "windows": round(unseen.windows),
        **recall,
    }
