"""A saved forest gives the shares of the fitted one to the bit, and a damaged file is refused."""

import json
import zipfile

import numpy as np
import pytest

from aetherscan.detector.saved_forest import group_shares, load_forest, tree_share
from aetherscan.errors import ReleaseError
from aetherscan.train.random_forest import fit_forest, save_forest

RNG = np.random.default_rng(5)
FEATURES = RNG.normal(size=(400, 7)).astype(np.float32)
FEATURES[RNG.random(FEATURES.shape) < 0.1] = np.nan


@pytest.fixture(scope="module")
def fitted():
    return fit_forest(FEATURES, (np.nan_to_num(FEATURES[:, 2]) > 0.1).astype(np.float32), 1, 23, n_jobs=1)


@pytest.fixture
def saved(fitted, tmp_path):
    save_forest(tmp_path / "forest.skops", fitted)
    return tmp_path / "forest.skops"


def test_a_saved_forest_gives_the_shares_of_scikit_learn_to_the_bit_also_for_missing_values(fitted, saved):
    rows, forest = RNG.permutation(FEATURES) * np.float32(1.1), load_forest(saved)
    np.testing.assert_array_equal(tree_share(forest, rows), tree_share(fitted, rows))
    np.testing.assert_array_equal(group_shares(forest, rows), group_shares(fitted, rows))
    assert forest.n_features_in_ == 7
    assert tree_share(forest, rows[:0]).shape == (0,)


def test_a_forest_of_three_classes_gives_their_shares_and_no_other_number_of_classes_is_read(tmp_path):
    labels = np.digitize(np.nan_to_num(FEATURES[:, 2]), [-0.5, 0.5])
    fitted = fit_forest(FEATURES, labels.astype(np.float32), 1, 11, n_jobs=1)
    save_forest(tmp_path / "kinds.skops", fitted)
    np.testing.assert_array_equal(
        load_forest(tmp_path / "kinds.skops", 3).predict_proba(FEATURES), fitted.predict_proba(FEATURES)
    )
    with pytest.raises(ReleaseError, match="without the shares of 2 classes"):
        load_forest(tmp_path / "kinds.skops")


@pytest.mark.parametrize("change", ["child", "feature", "counts", "class", "array"])
def test_a_forest_with_impossible_nodes_is_refused(saved, tmp_path, change):
    with zipfile.ZipFile(saved) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(files["schema.json"])
    tree = schema["content"]["content"]["estimators_"]["content"][0]["content"]["content"]["tree_"]["content"][
        "content"
    ]
    with zipfile.ZipFile(saved) as archive:
        arrays = {name: np.load(archive.open(tree[name]["file"])) for name in ("nodes", "values")}
    if change == "child":
        arrays["nodes"]["left_child"][0] = 0
    elif change == "feature":
        arrays["nodes"]["feature"][0] = 7
    elif change == "counts":
        arrays["values"] *= 5
    elif change == "class":
        schema["__class__"] = "Pipeline"
    else:
        tree["nodes"]["file"] = "schema.json"
    with zipfile.ZipFile(tmp_path / "changed.skops", "w") as archive:
        for name, content in (files | {"schema.json": json.dumps(schema).encode()}).items():
            if name not in {tree["values"]["file"], tree["nodes"]["file"]} or name == "schema.json":
                archive.writestr(name, content)
        for name, array in arrays.items() if change != "array" else ():
            with archive.open(tree[name]["file"], "w") as file:
                np.save(file, array)
    with pytest.raises(ReleaseError, match=r"changed\.skops: expected a (forest stored with skops|RandomForest)"):
        load_forest(tmp_path / "changed.skops")
