"""A release is trained, written, checked and loaded; what is altered is refused."""

import itertools
import json
import shutil

import numpy as np
import pytest

from aetherscan.detector import load_detector
from aetherscan.errors import ReleaseError
from aetherscan.examples import ExampleSettings, draw_batch, draw_emitters
from aetherscan.forest import load_forest
from aetherscan.release import read_release
from aetherscan.train import TrainSettings, judge, train
from aetherscan.vae import CLOSEST, build_encoder, clustering_loss

TINY = TrainSettings(seed=3, cadences=8, batch=4, epochs=1, forest_cadences=60, judge_cadences=40, trees=20)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    train(folder, TINY)
    return folder


@pytest.fixture
def copied(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "tiny")


def test_the_clustering_loss_is_the_seeds_fifty_pairs():
    rng = np.random.default_rng(1)
    z, labels = rng.normal(size=(5, 6, 8)).astype(np.float32), np.array([1, 0, 1, 0, 1], np.float32)
    for one, label, loss in zip(z, labels, np.asarray(clustering_loss(z, labels)), strict=True):
        ons, offs = one[[0, 2, 4]], one[[1, 3, 5]]
        same = sum(
            ((a - b) ** 2).sum() for group in (ons, offs) for a, b in itertools.permutations(group, 2)
        )  # fmt: skip
        mixed = [((a - b) ** 2).sum() for a in ons for b in offs]
        apart = sum(1 / (d + CLOSEST) for d in mixed) if label else sum(mixed)
        assert loss == pytest.approx(same + apart, rel=1e-4)


def test_the_encoder_is_the_seeds_nine_convolutions():
    shapes = [layer.output.shape[1:] for layer in build_encoder().layers if "conv" in layer.name]
    assert shapes == [
        (8, 256, 16), (8, 256, 16), (4, 128, 32), (4, 128, 32), (4, 128, 32),
        (2, 64, 64), (2, 64, 64), (2, 64, 128), (1, 32, 256),
    ]  # fmt: skip


def test_a_trained_release_loads_with_its_card_and_scores_snippets(tiny):
    detector = load_detector(tiny)
    snippets, _, _ = draw_batch(np.random.default_rng(1), 40, ExampleSettings())
    latents = detector.encode_snippets(snippets)
    probability = detector.score(latents, np.empty((40, 0), np.float32))
    assert latents.mean.shape == (40, 6, 8)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert detector.release.card["training"]["seed"] == 3
    assert "not a recall on the sky" in (tiny / "CARD.md").read_text()


def test_an_altered_file_is_refused_and_named(copied):
    weights = copied / "forest.skops"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ReleaseError, match=r"forest\.skops: expected sha256 [0-9a-f]{64}, found"):
        read_release(copied)


def test_a_missing_file_a_missing_card_and_a_missing_key_are_named(copied, tmp_path):
    with pytest.raises(ReleaseError, match=r"expected a folder with release\.json"):
        read_release(tmp_path / "nowhere")
    (copied / "encoder.keras").rename(copied / "elsewhere")
    with pytest.raises(ReleaseError, match=r"expected encoder\.keras, found none"):
        read_release(copied)
    (copied / "release.json").write_text(json.dumps({"name": "tiny"}))
    with pytest.raises(ReleaseError, match="expected name, snippet, threshold and sha256"):
        read_release(copied)


def test_a_pickle_in_a_forests_place_is_never_run(tmp_path):
    bait = tmp_path / "forest.skops"
    bait.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "bitten").encode() + b"'\ntR.")
    with pytest.raises(ReleaseError, match="expected a forest stored with skops"):
        load_forest(bait)
    assert not (tmp_path / "bitten").exists()


def test_training_does_not_overwrite_a_release(tiny):
    with pytest.raises(FileExistsError, match="name another folder"):
        train(tiny, TINY)


def test_half_of_the_examples_hold_a_signal_in_the_ons_alone():
    rng = np.random.default_rng(6)
    snippets, labels, snrs = draw_batch(rng, 20, ExampleSettings())
    assert labels.sum() == 10
    assert ((snrs > 0) == (labels == 1)).all()
    assert snippets.shape == (20, 6, 16, 512)
    with_signal = draw_emitters(rng, ExampleSettings(), signal=True)[0].snr
    assert min(with_signal[::2]) > 0
    assert max(with_signal[1::2]) == 0


def test_the_same_seed_draws_the_same_examples():
    first, again = (draw_batch(np.random.default_rng([1, 2]), 4, ExampleSettings())[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_recall_is_judged_at_the_permitted_share_of_false_ones():
    scores = np.concatenate([np.linspace(0, 0.5, 10_000), np.full(100, 0.48), np.full(100, 0.3)])
    labels = np.concatenate([np.zeros(10_000), np.ones(200)]).astype(np.float32)
    snrs = np.concatenate([np.zeros(10_000), np.full(100, 100.0), np.full(100, 10.0)])
    found = judge(scores, labels, snrs)
    assert found["threshold"] == pytest.approx(0.475, abs=1e-4)
    assert found["recall_at_0.05"] == {"8-12": 0, "60-150": 1}
    assert found["recall_at_0.01"] == {"8-12": 0, "60-150": 0}
