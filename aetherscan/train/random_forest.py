"""Fit, save and calibrate a random forest. `aetherscan/detector/saved_forest.py` reads and runs it.

A forest is stored with skops, as plain arrays: loading a file does not execute code.

The share of trees that vote for a signal is not a probability. `calibrate` maps one to the other on rows that the
forest was not fitted to, by centered isotonic regression (Oron & Flournoy 2017, doi:10.1080/19466315.2017.1286256),
which rises everywhere. Plain isotonic regression has flat steps, on which candidates of different scores would tie.
"""

from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from jaxtyping import Float32, Float64
from sklearn.ensemble import RandomForestClassifier
from sklearn.isotonic import IsotonicRegression

LEAVES = 128
"""Most leaves of a tree by default: with unlimited depth, a forest takes 5 to 10 times as much space."""
POINTS = 64
"""Most points of a calibration."""


def fit_forest(
    features: Float32[np.ndarray, "rows features"],
    labels: Float32[np.ndarray, " rows"],
    seed: int,
    trees: int,
    weights: Float32[np.ndarray, " rows"] | None = None,
    **options: Any,
) -> RandomForestClassifier:
    """Fit a random forest.

    Args:
        features: of each example.
        labels: 1.0 for a signal, else 0.0.
        seed: of scikit-learn's random state.
        trees: number of trees.
        weights: of each example; None: all equal.
        **options: of scikit-learn's RandomForestClassifier.
    """
    given = {"n_jobs": -1, "max_leaf_nodes": LEAVES, **options}
    forest = RandomForestClassifier(trees, random_state=seed, **given)
    return forest.fit(features, labels.astype(np.int8), weights)


def save_forest(path: Path, forest: RandomForestClassifier) -> None:
    """Write `forest` to `path`, compressed."""
    skops.io.dump(forest, path, compression=8, compresslevel=6)


def calibrate(scores: Float64[np.ndarray, " rows"], labels: Float32[np.ndarray, " rows"]) -> dict[str, list[float]]:
    """Return rising points, `score` and `probability`, of a piecewise linear calibration of the share of trees.

    The probability assumes the fraction of signals among `labels` (0.0 or 1.0).
    """
    fitted = IsotonicRegression().fit_transform(scores, labels.astype(np.float64))
    levels, level, sizes = np.unique(fitted, return_inverse=True, return_counts=True)
    centres = np.bincount(level, scores) / sizes
    inside = (centres > 0) & (centres < 1)
    few = 1 / (len(scores) + 2)  # no signal among n rows does not make the probability 0
    score = np.concatenate([[0], centres[inside], [1]])
    probability = np.concatenate([[0], np.clip(levels[inside], few, 1 - few), [1]])
    kept = [0, len(score) - 1]
    for _ in range(POINTS - len(kept)):
        missed = np.abs(np.interp(score, score[kept], probability[kept]) - probability)
        kept = sorted({*kept, int(np.argmax(missed))})
    return {"score": score[kept].tolist(), "probability": probability[kept].tolist()}
