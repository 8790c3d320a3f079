"""The random forest that reads six latents and says how likely a signal from the target is.

Stored with skops, which rebuilds the trees from plain arrays: loading one executes nothing that came with the file.
"""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import skops.io
from jaxtyping import Float32, Float64
from sklearn.ensemble import RandomForestClassifier

from aetherscan.errors import ReleaseError

TREES = 1000
LEAVES = 128
"""Per tree: keeps a forest near 9 MB where unlimited depth makes 44-114 MB."""
TRUSTED = ["sklearn.tree._tree.Tree"]


def fit_forest(
    features: Float32[np.ndarray, "rows features"], labels: Float32[np.ndarray, " rows"], seed: int, trees: int = TREES
) -> RandomForestClassifier:
    """Return a forest fitted on latents (48 a row) and labels (0.0 or 1.0)."""
    forest = RandomForestClassifier(trees, max_leaf_nodes=LEAVES, n_jobs=-1, random_state=seed)
    return forest.fit(features, labels.astype(np.int8))


def save_forest(path: Path, forest: RandomForestClassifier) -> None:
    """Write `forest` to `path`, compressed."""
    skops.io.dump(forest, path, compression=8, compresslevel=6)


def load_forest(path: Path) -> RandomForestClassifier:
    """Return the forest in `path`.

    Raises:
        ReleaseError: the file holds types beyond a scikit-learn forest's own, or is no skops file.
    """
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


def probability(forest: Any, features: Float32[np.ndarray, "rows features"]) -> Float64[np.ndarray, " rows"]:
    """Return the share of trees, weighted by their leaves, that see a signal in each row."""
    return forest.predict_proba(features)[:, 1]
