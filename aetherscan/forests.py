"""The forests of a release: what each reads of the latents, chosen by measuring; fitted, calibrated, judged.

A forest may read the posterior's mean, its log variance too, and the measurements of a track. Each of these is tried on
skies that neither encoder nor forest has seen, and compared where it matters: at the smallest share of false ones that
the count of false ones carries. A random draw, which the seeds' forest reads, is compared and never chosen: with it the
same cadence searched twice is two lists. Of two that differ by less than chance would make them, the simpler is taken.

What is strange is told apart from what is likely: `familiar` keeps where the latents of true signals lie, so that a
candidate's distance from them can be ranked by.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64

from aetherscan.detector import Encode, Latents, encode_all, on_and_off, read_by
from aetherscan.examples import Examples
from aetherscan.forest import calibrate, fit_forest, save_forest, share
from aetherscan.normalize import SHADES
from aetherscan.recipe import TrainSettings
from aetherscan.tracks import MEASUREMENTS

PASSED = 0.04
"""Share of what is no signal, as drawn here, that may pass: a sky's zoo then raises less than an alarm in 100 MHz."""
RATES = (0.05, 0.02, 1e-2, 1e-3, 1e-4)
FEWEST = 3
"""False ones above a threshold from which a rate is told of: fewer are an accident."""
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


def train_forest(
    folder: Path,
    mode: str,
    encode: Encode,
    known: Examples,
    unseen: Examples,
    settings: TrainSettings,
    labelled: Examples | None = None,
) -> dict[str, Any]:
    """Choose, fit, calibrate and judge the forest of one mode; return what the card says of it.

    The first half of the unseen examples, which are in the order of the patches they come from, chooses and calibrates;
    the second judges.
    """
    known = known.only(np.arange(min(settings.num_samples_rf, len(known.labels))))
    drawn = len(known.labels)
    weights = np.ones(drawn, np.float32)
    if labelled:
        weights = np.append(weights, np.full(len(labelled.labels), LABEL_WEIGHT, np.float32))
        known = Examples.join([known, labelled])
    seen, new = latents_of(encode, known), latents_of(encode, unseen)
    first, second = np.array_split(np.arange(len(unseen.labels)), 2)
    chosen, compared = choose(mode, (seen, known), (new.of(first), unseen.only(first)), weights, settings)
    forest = fit(_read(seen, known, chosen), known.labels, weights, settings, settings.rf_n_estimators)
    save_forest(folder / f"{mode}.skops", forest)
    shares = share(forest, _read(new, unseen, chosen))
    points = calibrate(shares[first], unseen.labels[first])
    scores = np.interp(shares[second], points["score"], points["probability"])
    metrics = judge(scores, unseen.labels[second], unseen.snrs[second], PASSED)
    return {
        "threshold": metrics.pop("threshold"),
        "latents": [part for part in chosen if part != "measurements"],
        "measurements": list(MEASUREMENTS) if "measurements" in chosen else [],
        "calibration": points,
        "familiar": familiar(seen.of(known.labels == 1)),
        "compared": compared,
        "learned": {"signals": int(known.labels.sum()), "others": int((known.labels == 0).sum())},
        "labelled": len(known.labels) - drawn,
        "metrics": metrics,
    }


def latents_of(encode: Encode, shown: Examples) -> Latents:
    """Return what the encoder says of examples."""
    return encode_all(encode, (snippet.astype(np.float32) / SHADES for snippet in shown.snippets))


def _read(latents: Latents, shown: Examples, parts: tuple[str, ...]) -> Float32[np.ndarray, "rows features"]:
    columns = shown.measurements if "measurements" in parts else shown.measurements[:, :0]
    if "draw" in parts:
        noise = np.random.default_rng(0).standard_normal(latents.mean.shape, dtype=np.float32)
        latents = Latents(mean=latents.mean + np.exp(latents.log_var / 2) * noise, log_var=latents.log_var)
    return read_by(["mean" if part == "draw" else part for part in parts if part != "measurements"], latents, columns)


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
    known: tuple[Latents, Examples],
    unseen: tuple[Latents, Examples],
    weights: Float32[np.ndarray, " rows"],
    settings: TrainSettings,
) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Return what a forest should read, and how each choice did: recall of all signals at the smallest rate carried."""
    signal, table = unseen[1].labels == 1, list[dict[str, Any]]()
    chosen, best = READS[mode][0], None
    for parts in READS[mode]:
        trees = min(COMPARED_TREES, settings.rf_n_estimators)
        scores = share(fit(_read(*known, parts), known[1].labels, weights, settings, trees), _read(*unseen, parts))
        found = {
            f"recall_at_{rate:g}": round(float(np.mean(scores[signal] > threshold)), 4)
            for rate, threshold in thresholds(scores[~signal]).items()
        }
        table.append({"reads": list(parts), **found})
        if "draw" not in parts and (best is None or surely_better(scores, best, signal)):
            chosen, best = parts, scores
    return chosen, table


def surely_better(
    scores: Float64[np.ndarray, " rows"], than: Float64[np.ndarray, " rows"], signal: Bool[np.ndarray, " rows"]
) -> bool:
    """Say whether recall at the smallest rate carried is higher in 19 of 20 samples of rows with replacement."""
    rng, rate, wins = np.random.default_rng(0), min(thresholds(scores[~signal])), 0
    for _ in range(SAMPLES):
        quiet, bright = (rng.choice(rows, len(rows)) for rows in (np.flatnonzero(~signal), np.flatnonzero(signal)))
        mine, other = (np.mean(one[bright] > np.quantile(one[quiet], 1 - rate)) for one in (scores, than))
        wins += mine > other
    return bool(wins >= 0.95 * SAMPLES)


def thresholds(quiet: Float64[np.ndarray, " rows"]) -> dict[float, float]:
    """Return the score that so small a share of what is no signal exceeds, for the rates that the count carries."""
    carried = [rate for rate in RATES if rate * len(quiet) >= FEWEST] or [RATES[0]]
    return {rate: float(np.quantile(quiet, 1 - rate)) for rate in carried}


def familiar(latents: Latents) -> dict[str, Any]:
    """Return the centre of the latents of true signals, ONs' and OFFs' means, and what makes their scatter round."""
    summary = on_and_off(latents)
    scatter = np.cov(summary, rowvar=False) + 1e-3 * np.eye(summary.shape[1])
    whiten = np.linalg.cholesky(np.linalg.inv(scatter)).T
    return {"centre": np.round(summary.mean(axis=0), 4).tolist(), "whiten": np.round(whiten, 4).tolist()}


def judge(
    scores: Float64[np.ndarray, " rows"],
    labels: Float32[np.ndarray, " rows"],
    snrs: Float32[np.ndarray, " rows"],
    passed: float,
) -> dict[str, Any]:
    """Return the threshold that passes the permitted share, and recall by SNR of the signal at several shares."""
    quiet = scores[labels == 0]
    carried = thresholds(quiet)
    bins = [(low, high, (labels == 1) & (snrs >= low) & (snrs < high)) for low, high in pairwise(SNR_EDGES)]
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
        "signals": int(labels.sum()),
        "others": len(quiet),
        **recall,
    }
