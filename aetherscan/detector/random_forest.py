"""The random forest that reads six latents, and measurements beside them, and says how likely a signal is.

Stored with skops, which rebuilds the trees from plain arrays: loading one executes nothing that came with the file.

The share of trees that see a signal is no probability. `calibrate` draws the line from one to the other through rows
the forest has not seen: centered isotonic regression (Oron and Flournoy 2017), which rises everywhere. The flat steps
of plain isotonic regression would make equals of a good candidate and a better one.
"""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import skops.io
from jaxtyping import Float32, Float64
from sklearn.ensemble import RandomForestClassifier
from sklearn.isotonic import IsotonicRegression

from aetherscan.errors import ReleaseError

LEAVES = 128
"""Per tree: keeps a forest near 9 MB where unlimited depth makes 44-114 MB."""
POINTS = 64
"""At most so many points make a calibration."""
PICKLES = {".joblib", ".pkl", ".pickle"}
TRUSTED = ["sklearn.tree._tree.Tree"]


def fit_forest(
    features: Float32[np.ndarray, "rows features"],
    labels: Float32[np.ndarray, " rows"],
    seed: int,
    trees: int,
    weights: Float32[np.ndarray, " rows"] | None = None,
    **how: Any,
) -> RandomForestClassifier:
    """Return a forest fitted on rows of features, labels (0.0 or 1.0) and weights; `how` is scikit-learn's."""
    forest = RandomForestClassifier(trees, max_leaf_nodes=LEAVES, random_state=seed, **{"n_jobs": -1, **how})
    return forest.fit(features, labels.astype(np.int8), weights)


def save_forest(path: Path, forest: RandomForestClassifier) -> None:
    """Write `forest` to `path`, compressed."""
    skops.io.dump(forest, path, compression=8, compresslevel=6)


def load_forest(path: Path) -> RandomForestClassifier:
    """Return the forest in `path`.

    Raises:
        ReleaseError: the file holds types beyond a scikit-learn forest's own, or is no skops file.
    """
    if path.suffix in PICKLES:
        raise ReleaseError(
            f"{path}: expected a forest stored with skops, found a pickle, which runs what code it holds when opened; "
            "where you trust it, store it anew: skops.io.dump(joblib.load('forest.joblib'), 'forest.skops')"
        )
    try:
        strangers = set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED)
        if strangers:
            raise ReleaseError(f"{path}: expected a forest of plain arrays, found types {sorted(strangers)}")
        forest = skops.io.load(path, trusted=TRUSTED)
    except (OSError, KeyError, ValueError, TypeError, BadZipFile) as error:
        raise ReleaseError(f"{path}: expected a forest stored with skops, found {error}") from error
    if not isinstance(forest, RandomForestClassifier):
        raise ReleaseError(f"{path}: expected a RandomForestClassifier, found {type(forest).__name__}")
    forest.n_jobs = 1
    return forest


def share(forest: Any, features: Float32[np.ndarray, "rows features"]) -> Float64[np.ndarray, " rows"]:
    """Return the share of trees, weighted by their leaves, that see a signal in each row."""
    return forest.predict_proba(features)[:, 1] if len(features) else np.empty(0)


def calibrate(scores: Float64[np.ndarray, " rows"], labels: Float32[np.ndarray, " rows"]) -> dict[str, list[float]]:
    """Return the rising points, `score` and `probability`, between which a share of trees becomes a probability.

    They hold for rows of which as many are signals as among `labels` (0.0 or 1.0).
    """
    fitted = IsotonicRegression().fit_transform(scores, labels.astype(np.float64))
    levels, level, sizes = np.unique(fitted, return_inverse=True, return_counts=True)
    centres = np.bincount(level, scores) / sizes
    inside = (centres > 0) & (centres < 1)
    few = 1 / (len(scores) + 2)  # none among so many is not never
    score = np.concatenate([[0], centres[inside], [1]])
    probability = np.concatenate([[0], np.clip(levels[inside], few, 1 - few), [1]])
    kept = [0, len(score) - 1]
    for _ in range(POINTS - len(kept)):
        missed = np.abs(np.interp(score, score[kept], probability[kept]) - probability)
        kept = sorted({*kept, int(np.argmax(missed))})
    return {"score": score[kept].tolist(), "probability": probability[kept].tolist()}
