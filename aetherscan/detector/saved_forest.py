"""A saved random forest: measurements of a track, or latents of a window in, shares of trees out.

`aetherscan/train/random_forest.py` fits a forest with scikit-learn and saves it with skops: a zip archive of arrays and
a JSON file that says what they are. Here the arrays are read and the trees followed without either library. Loading
executes no code. A search starts 3 s earlier, because skops lists all classes of scikit-learn when it is imported. The
shares are those of scikit-learn's `predict_proba` with one job, to the bit.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, no_type_check
from zipfile import BadZipFile, ZipFile

import numpy as np
from jaxtyping import Float32, Float64

from aetherscan.errors import ReleaseError
from aetherscan.kernels import njit

GROUPS = 10
"""Groups of trees, of which the spread of a probability is the scatter."""
PICKLES = {".joblib", ".pkl", ".pickle"}
NODE = np.dtype(
    [("left", "i4"), ("right", "i4"), ("feature", "i4"), ("missing_left", "?"), ("threshold", "f8")], align=True
)
"""A node of a tree. A row goes left if its feature is at most the threshold; a leaf has left -1."""
DAMAGED = (OSError, KeyError, ValueError, TypeError, IndexError, BadZipFile, zlib.error, EOFError)


@njit(cache=True, nogil=True)
@no_type_check
def _add_shares(
    nodes: np.ndarray,
    values: Float64[np.ndarray, "nodes classes"],
    first: np.ndarray,
    features: Float32[np.ndarray, "rows features"],
    shares: Float64[np.ndarray, "rows classes"],
) -> None:
    """Add to `shares` the share of each class in the leaf of each row, of one tree after another."""
    for row in range(len(features)):
        for tree in range(len(first)):
            at = first[tree]
            while nodes[at].left >= 0:
                value = features[row, nodes[at].feature]
                goes_left = nodes[at].missing_left if np.isnan(value) else value <= nodes[at].threshold
                at = first[tree] + (nodes[at].left if goes_left else nodes[at].right)
            for number in range(values.shape[1]):
                shares[row, number] += values[at, number]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SavedForest:
    """Trees of a forest, in the interface of scikit-learn's RandomForestClassifier.

    Attributes:
        n_features_in_: number of features that it reads.
        nodes: records of `NODE`, those of one tree after another; a child is counted from the first node of its tree.
        values: share of each class in each node.
        first: index of the first node of each tree.
    """

    n_features_in_: int
    nodes: np.ndarray
    values: Float64[np.ndarray, "nodes classes"]
    first: np.ndarray

    def predict_proba(self, features: Float32[np.ndarray, "rows features"]) -> Float64[np.ndarray, "rows classes"]:
        """Return the mean over the trees of the share of each class in the leaf of each row, 0-1."""
        shares = np.zeros((len(features), self.values.shape[1]))
        _add_shares(self.nodes, self.values, self.first, np.ascontiguousarray(features, np.float32), shares)
        return shares / len(self.first)

    @property
    def estimators_(self) -> list["SavedForest"]:
        """The trees, each as a forest of its own."""
        return [
            SavedForest(n_features_in_=self.n_features_in_, nodes=self.nodes, values=self.values, first=first)
            for first in self.first[:, None]
        ]


def load_forest(path: Path, classes: int = 2) -> SavedForest:
    """Return the forest in `path`.

    Raises:
        ReleaseError: the file is not a skops file of a scikit-learn forest that separates so many classes.
    """
    if path.suffix in PICKLES:
        raise ReleaseError(
            f"{path}: expected a forest stored with skops, found a pickle, which can execute code when it is opened; "
            "if you trust it, convert it: skops.io.dump(joblib.load('forest.joblib'), 'forest.skops')"
        )
    try:
        with ZipFile(path) as archive:
            schema = json.loads(archive.read("schema.json"))
            if schema["__class__"] != "RandomForestClassifier":
                raise ReleaseError(f"{path}: expected a RandomForestClassifier, found {schema['__class__']}")
            return _forest(archive, schema["content"]["content"], classes)
    except DAMAGED as error:
        raise ReleaseError(f"{path}: expected a forest stored with skops, found {error!r}") from error


def _forest(archive: ZipFile, content: dict[str, Any], classes: int) -> SavedForest:
    """Return the forest whose attributes the JSON file describes.

    Raises:
        ValueError: a tree refers to nodes or features that do not exist, or is not of so many classes.
    """
    n_features, parts, shares = int(content["n_features_in_"]["content"]), [], []
    for described in content["estimators_"]["content"]:
        tree = described["content"]["content"]["tree_"]["content"]["content"]
        nodes, values = (_array(archive, tree[name]["file"]) for name in ("nodes", "values"))
        if values.shape != (len(nodes), 1, classes) or not np.allclose(values.sum(axis=2), 1):
            raise ValueError(f"a tree without the shares of {classes} classes, which scikit-learn stores from 1.3 on")
        parts.append(_tree(nodes, n_features))
        shares.append(np.ascontiguousarray(values[:, 0], np.float64))
    first = np.cumsum([0, *map(len, parts)])[:-1]
    return SavedForest(
        n_features_in_=n_features, nodes=np.concatenate(parts), values=np.concatenate(shares), first=first
    )


def _array(archive: ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        return np.asarray(np.load(file, allow_pickle=False))


def _tree(nodes: np.ndarray, n_features: int) -> np.ndarray:
    """Return the nodes of a tree of scikit-learn as records of `NODE`."""
    found = np.empty(len(nodes), NODE)
    names = ("left_child", "right_child", "feature", "missing_go_to_left", "threshold")
    for own, name in zip(NODE.names or (), names, strict=False):
        found[own] = nodes[name]
    inner = found[found["left"] >= 0]
    parent = np.flatnonzero(found["left"] >= 0)
    for child in (inner["left"], inner["right"]):  # behind its parent, so that every way ends in a leaf
        if not ((parent < child) & (child < len(nodes))).all():
            raise ValueError("a tree with a node outside")
    if not ((inner["feature"] >= 0) & (inner["feature"] < n_features)).all():
        raise ValueError("a tree with a feature outside")
    return found


def tree_share(forest: Any, features: Float32[np.ndarray, "rows features"]) -> Float64[np.ndarray, " rows"]:
    """Return the mean over the trees of the share of signals in the leaf of each row, 0-1."""
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
