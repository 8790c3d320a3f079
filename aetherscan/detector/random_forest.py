"""The random forest: measurements of a track, or latents of a window in, share of trees out.

A forest is stored with skops, which rebuilds the trees from plain arrays: loading a file does not execute code.

The share of trees that vote for a signal is not a probability. `calibrate` maps one to the other on rows that the
forest was not fitted to, by centered isotonic regression (Oron & Flournoy 2017, doi:10.1080/19466315.2017.1286256),
which rises everywhere. Plain isotonic regression has flat steps, on which candidates of different scores would tie.
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
"""Most leaves of a tree by default: with unlimited depth, a forest takes 5 to 10 times as much space."""
POINTS = 64
"""Most points of a calibration."""
GROUPS = 10
"""Groups of trees, of which the spread of a probability is the scatter."""
PICKLES = {".joblib", ".pkl", ".pickle"}
TRUSTED = ["sklearn.tree._tree.Tree"]


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


def load_forest(path: Path) -> RandomForestClassifier:
    """Return the forest in `path`.

    Raises:
        ReleaseError: the file is not a skops file, or holds other types than those of a scikit-learn forest.
    """
    if path.suffix in PICKLES:
        raise ReleaseError(
            f"{path}: expected a forest stored with skops, found a pickle, which can execute code when it is opened; "
            "if you trust it, convert it: skops.io.dump(joblib.load('forest.joblib'), 'forest.skops')"
        )
    try:
        if untrusted := set(skops.io.get_untrusted_types(file=path)) - set(TRUSTED):
            raise ReleaseError(f"{path}: expected a forest of plain arrays, found types {sorted(untrusted)}")
        forest = skops.io.load(path, trusted=TRUSTED)
    except (OSError, KeyError, ValueError, TypeError, BadZipFile) as error:
        raise ReleaseError(f"{path}: expected a forest stored with skops, found {error}") from error
    if not isinstance(forest, RandomForestClassifier):
        raise ReleaseError(f"{path}: expected a RandomForestClassifier, found {type(forest).__name__}")
    forest.n_jobs = 1
    return forest


def tree_share(forest: Any, features: Float32[np.ndarray, "rows features"]) -> Float64[np.ndarray, " rows"]:
    """Return the mean over the trees of the fraction of signals in the leaf of each row, 0-1."""
    return forest.predict_proba(features)[:, 1] if len(features) else np.empty(0)


def group_shares(forest: Any, features: Float32[np.ndarray, "rows features"]) -> Float64[np.ndarray, "rows groups"]:
    """Return `tree_share` of each of `GROUPS` groups of the trees, or of each tree if there are fewer.

    The trees are added one after another, so that a row has the same shares among any others.
    """
    trees = forest.estimators_
    shares = np.zeros((len(features), min(GROUPS, len(trees))))
    for group, numbers in enumerate(np.array_split(np.arange(len(trees)), shares.shape[1])):
        for i in numbers if len(features) else ():
            shares[:, group] += trees[i].predict_proba(features)[:, 1] / len(numbers)
    return shares


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
