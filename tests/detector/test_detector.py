"""ONNX Runtime gives the numbers of Keras, each snippet the same bits in every batch; wrong files are refused."""

import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from aetherscan.detector.detector import Latents, forest_features, load_detector, load_encoder
from aetherscan.detector.release import MEASUREMENTS, write_card
from aetherscan.errors import ReleaseError
from aetherscan.train.onnx_export import export_onnx
from aetherscan.train.random_forest import POINTS, calibrate, fit_forest, save_forest
from sentinel.commands.search import detector_of
from sentinel.config import Search

SHIPPED = Path(__file__).parents[2] / "models" / "equinox"
RNG = np.random.default_rng(5)
SNIPPETS = RNG.random((9, 6, 16, 512), dtype=np.float32)
FEATURES = 6 * 8 + len(MEASUREMENTS)
NAMES = ["drifting", "signal", "wide"]


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """A process that has loaded a search and a release, and the folder in which it may write."""
    folder = tmp_path_factory.mktemp("home")
    code = f"""import sys, pathlib, aetherscan.search.pipeline, aetherscan.detector.detector
aetherscan.detector.detector.load_detector(pathlib.Path({str(SHIPPED)!r}))
assert not {{"keras", "tensorflow", "jax", "torch", "onnx"}} & set(sys.modules)"""
    environment = {"HOME": str(folder), "TMPDIR": str(folder), "PYTHONPATH": str(SHIPPED.parents[1])}
    return subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, check=False), folder


def test_onnx_runtime_writes_no_telemetry_session(process):
    assert process[0].returncode == 0
    assert [path for path in process[1].rglob("*") if "onnxruntime" in str(path) or path.name == ".ses"] == []


def small_encoder(seed=1, **last):
    """Odd sizes, and every kind of padding, stride, dilation and bias, so that a transposed axis changes the result."""
    image = x = keras.Input((7, 30, 2))
    x = layers.Conv2D(4, (3, 2), 2, padding="same", activation="relu")(x)
    x = layers.Conv2D(6, (2, 3), padding="valid", dilation_rate=(1, 2), use_bias=False, groups=2)(x)
    x = layers.Flatten()(layers.MaxPooling2D((2, 2), padding="same")(x))
    x = layers.Dense(10, **{"activation": "relu", **last})(x)
    heads = [layers.Dense(3, name=name)(x) for name in ("z_mean", "z_log_var")]
    encoder = keras.Model(image, heads)
    rng = np.random.default_rng(seed)
    encoder.set_weights([rng.normal(size=weight.shape).astype(np.float32) for weight in encoder.get_weights()])
    return encoder


def kind_labels(measured):
    return np.digitize(measured[:, 0], [-0.5, 0.5]).astype(np.float32)


@pytest.fixture
def release(tmp_path):
    """The shipped encoder with a forest that decides by the last measurement."""
    features = RNG.normal(size=(200, FEATURES)).astype(np.float32)
    save_forest(tmp_path / "tracks.skops", fit_forest(features, (features[:, -1] > 0).astype(np.float32), 1, 20))
    for name in ("encoder.keras", "encoder.onnx"):
        (tmp_path / name).symlink_to(SHIPPED / name)

    def write(snippet=(16, 512), kinds=None, **mode):
        shape = dict(zip(("rows", "bins"), snippet, strict=True))
        modes = {"tracks": {"threshold": 0.5, "measurements": MEASUREMENTS, **mode}}
        card = {"name": "r", "snippet": shape, "modes": modes}
        if kinds:
            measured = features[:, : len(MEASUREMENTS)]
            save_forest(tmp_path / "kinds.skops", fit_forest(measured, kind_labels(measured), 1, 20))
            card["kinds"] = {"power": 2.0, "measurements": MEASUREMENTS, **kinds}
        write_card(tmp_path, card)
        return tmp_path

    return write


def test_the_shipped_encoder_gives_the_numbers_of_the_one_that_was_trained():
    trained = keras.saving.load_model(SHIPPED / "encoder.keras", compile=False)
    served = load_detector(SHIPPED).encode_snippets(SNIPPETS)
    for expected, found in zip(
        trained.predict_on_batch(SNIPPETS.reshape(-1, 16, 512, 1)), astuple(served), strict=True
    ):
        np.testing.assert_allclose(found.reshape(-1, 8), np.asarray(expected), atol=1e-5, rtol=1e-5)


def test_odd_sizes_strides_and_paddings_are_exported_as_keras_has_them(tmp_path):
    import onnxruntime

    encoder, images = small_encoder(), RNG.random((5, 7, 30, 2), dtype=np.float32)
    export_onnx(encoder, tmp_path / "small.onnx")
    found = onnxruntime.InferenceSession(tmp_path / "small.onnx").run(["z_mean", "z_log_var"], {"image": images})
    for served, expected in zip(found, encoder.predict_on_batch(images), strict=True):
        np.testing.assert_allclose(served, np.asarray(expected), atol=1e-4, rtol=1e-5)


def test_the_same_weights_are_the_same_file_and_others_another(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        export_onnx(small_encoder(seed), tmp_path / name)
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again != other


def test_what_cannot_be_exported_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"expected relu or linear, channels last, found tanh"):
        export_onnx(small_encoder(activation="tanh"), tmp_path / "tanh.onnx")
    image = keras.Input((4, 4, 1))
    with pytest.raises(ValueError, match=r"norm: expected Conv2D.+, found BatchNormalization"):
        export_onnx(keras.Model(image, layers.BatchNormalization(name="norm")(image)), tmp_path / "norm.onnx")


def test_a_snippet_has_the_same_latents_and_probability_in_any_batch_and_on_any_number_of_threads(release):
    folder = release(calibration={"score": [0.0, 0.4, 1.0], "probability": [0.0, 0.1, 1.0]})
    measured = RNG.normal(size=(9, len(MEASUREMENTS))).astype(np.float32)
    single, threaded = load_detector(folder), load_detector(folder, threads=2)
    together = single.encode_snippets(SNIPPETS)
    scores, spreads = single.score(together, measured), single.spread(together, measured)
    assert spreads.max() > 0
    for i in (0, 4, 8):
        for alone in (single.encode_snippets(SNIPPETS[i : i + 1]), threaded.encode_snippets(SNIPPETS[[i, 2]])):
            assert [part[0].tobytes() for part in astuple(alone)] == [part[i].tobytes() for part in astuple(together)]
        first = together.of([i])
        assert (single.score(first, measured[[i]])[0], single.spread(first, measured[[i]])[0]) == (
            scores[i],
            spreads[i],
        )
    none = single.encode_snippets([])
    assert (none.mean.shape, single.spread(none, measured[:0]).shape) == ((0, 6, 8), (0,))


def test_the_spread_is_that_between_ten_groups_of_trees_and_the_last_measurement_decides(release):
    plain = load_detector(release())
    calibrated = load_detector(release(calibration={"score": [0, 1], "probability": [0.2, 0.4]}))
    latents = Latents(mean=np.zeros((2, 6, 8), np.float32), log_var=np.zeros((2, 6, 8), np.float32))
    measured = np.zeros((2, len(MEASUREMENTS)), np.float32)
    measured[:, -1] = -2, 2
    low, high = plain.score(latents, measured)
    assert low < 0.5 < high
    np.testing.assert_allclose(calibrated.score(latents, measured), [0.2 + 0.2 * low, 0.2 + 0.2 * high])
    columns = forest_features(plain.release.modes["tracks"].latents, latents, measured)
    trees = [tree.predict_proba(columns)[:, 1] for tree in plain.forests["tracks"].estimators_]
    expected = np.std([np.mean(group, axis=0) for group in np.array_split(trees, 10)], axis=0)
    np.testing.assert_allclose(plain.spread(latents, measured), expected, atol=1e-12)
    np.testing.assert_allclose(calibrated.spread(latents, measured), 0.2 * expected, atol=1e-12)


def test_a_calibrated_score_is_the_fraction_of_signals_among_rows_of_that_score():
    shares = RNG.random(20_000)
    points = calibrate(shares, (RNG.random(20_000) < shares**3).astype(np.float32))
    assert len(points["score"]) == len(points["probability"]) <= POINTS
    assert (np.diff([points["score"], points["probability"]]) > 0).all()
    missed = np.interp(shares, points["score"], points["probability"]) - shares**3
    assert np.abs(missed).max() < 0.1
    assert np.abs(missed).mean() < 0.02
    unanimous = calibrate(np.array([0.0, 0.0, 1.0]), np.array([0, 0, 1], np.float32))
    assert unanimous == {"score": [0, 1], "probability": [0, 1]}


@pytest.mark.fault(34, promise="P5")
@pytest.mark.parametrize(
    ("card", "wrong"),
    [
        ({"measurements": []}, f"expected a tracks forest of 48 features, found {FEATURES}"),
        (
            {"measurements": MEASUREMENTS[::-1]},
            "expected tracks measurements on_together, .+ found side_lobe_odds",
        ),
        (
            {"measurements": ("on_sum", *MEASUREMENTS[1:])},
            "expected tracks measurements on_together.+ found on_sum, on",
        ),
        ({"measurements": MEASUREMENTS[:-1]}, "expected tracks measurements .+: train the forests anew"),
        ({"snippet": (16, 256)}, r"expected an encoder of .+256, 1.+, found .+512, 1"),
        ({"calibration": {"score": [0.0, 1.0], "probability": [1.0, 0.0]}}, "expected rising points"),
        ({"calibration": {"score": [0.0, 1.0]}}, "KeyError"),
        ({"kinds": {"names": NAMES, "measurements": MEASUREMENTS[:-1]}}, "expected kinds measurements .+: train the"),
        ({"kinds": {"names": ["wide", "wide", "signal"]}}, "kinds: expected different names and a power above 0"),
        ({"kinds": {"names": NAMES, "power": 0.0}}, "kinds: expected different names and a power above 0"),
        ({"kinds": {"names": NAMES[:2]}}, "without the shares of 2 classes"),
    ],
)
def test_a_card_that_does_not_fit_its_encoder_forests_or_measurements_is_refused(release, card, wrong):
    with pytest.raises(ReleaseError, match=wrong):
        load_detector(release(**card))


def test_a_line_has_the_kind_that_most_trees_name_with_the_power_of_their_shares(release):
    detector, measured = load_detector(release(kinds={"names": NAMES})), np.zeros((3, len(MEASUREMENTS)), np.float32)
    measured[:, 0] = [-1.5, 0.0, 1.5]
    names, probabilities = detector.kinds(measured)
    shares = detector.kind_forest.predict_proba(measured)
    assert names == NAMES
    assert probabilities == pytest.approx((shares.max(axis=1) ** 2) / (shares**2).sum(axis=1), rel=1e-2)
    assert detector.kinds(measured[:0])[0] == []


def test_a_release_without_a_forest_of_kinds_names_none(release):
    names, probabilities = load_detector(release()).kinds(np.zeros((2, len(MEASUREMENTS)), np.float32))
    assert names == [None, None]
    assert np.isnan(probabilities).all()


@pytest.mark.fault(34, promise="P5")
def test_an_encoder_that_is_not_an_onnx_model_is_refused(tmp_path):
    for content in (b"", b"rubbish" * 99, (SHIPPED / "encoder.onnx").read_bytes()[:-9999]):
        (tmp_path / "encoder.onnx").write_bytes(content)
        with pytest.raises(ReleaseError, match="expected an ONNX model"):
            load_encoder(tmp_path / "encoder.onnx", (16, 512))


def test_a_process_that_searches_loads_no_keras_and_prints_nothing(process):
    assert (process[0].returncode, process[0].stdout, process[0].stderr) == (0, b"", b"")


def test_a_release_without_a_forest_for_a_mode_says_which_it_has(release):
    with pytest.raises(ReleaseError, match="r: expected a forest for windows, found tracks"):
        load_detector(release()).for_mode("windows")


@pytest.fixture
def other_forest(tmp_path):
    features = RNG.normal(size=(50, FEATURES)).astype(np.float32)
    save_forest(tmp_path / "other.skops", fit_forest(features, (features[:, 0] > 0).astype(np.float32), 1, 5))
    return tmp_path / "other.skops"


def test_an_encoder_and_a_forest_from_outside_the_release_score_uncalibrated_under_a_name_that_says_so(
    release, tmp_path, other_forest
):
    folder = release(calibration={"score": [0.0, 1.0], "probability": [0.2, 0.4]})
    encoder = keras.saving.load_model(SHIPPED / "encoder.keras", compile=False)
    encoder.set_weights([weight * 1.01 for weight in encoder.get_weights()])
    encoder.save(tmp_path / "further.keras")
    detector = detector_of(folder, Search(threshold=0.3), tmp_path / "further.keras", other_forest)
    mean, _ = encoder.predict_on_batch(SNIPPETS[0][..., None])
    np.testing.assert_allclose(detector.encode_snippets(SNIPPETS[:1]).mean[0], np.asarray(mean), atol=1e-4)
    assert (detector.release.name, detector.threshold) == ("r+further.onnx+other.skops", 0.3)
    assert detector.release.modes["tracks"].calibration is None
    assert detector.release.sha256 != load_detector(folder).release.sha256
    own = detector_of(folder, Search(), folder / "encoder.keras", folder / "tracks.skops")
    assert own.release == load_detector(folder).release


def test_a_missing_threshold_or_forest_of_given_files_is_named_with_what_to_do(release, tmp_path, other_forest):
    pickled, odd = tmp_path / "random_forest_final_v1.joblib", tmp_path / "vae_encoder_final_v1.keras"
    pickled.write_bytes(b"cos\nsystem\n")
    odd.write_bytes(b"none")
    for threshold, encoder, forest, wrong in (
        (0.5, None, pickled, r"found a pickle, which can execute .* convert it: skops\.io\.dump"),
        (0.5, odd, other_forest, "expected an encoder of this training code"),
        (0.5, SHIPPED / "CARD.md", None, "expected --rf-path with the forest fitted to its latents"),
        (0.5, None, SHIPPED / "windows.skops", f"expected a tracks forest of {FEATURES} features, found 48"),
        (None, None, other_forest, r"other\.skops: --classification-threshold is required with"),
    ):
        with pytest.raises(ReleaseError, match=wrong):
            detector_of(release(), Search(threshold=threshold), encoder, forest)


def test_a_number_of_alarms_chooses_the_threshold():
    detector = load_detector(SHIPPED)
    alarms = detector.release.modes["tracks"].alarms
    assert detector.threshold_for(None, None) == detector.threshold
    assert detector.threshold_for(0.3, 2.0) == 0.3
    assert detector.threshold_for(None, alarms["allowed"]) == pytest.approx(detector.threshold)
    assert detector.threshold_for(None, 0.5) == pytest.approx(alarms["threshold"][alarms["per_100_mhz"].index(0.5)])
    ladder = [detector.threshold_for(None, number) for number in (0.05, 0.3, 0.36, 1.5, 10.0)]
    assert ladder == sorted(ladder, reverse=True)
    assert ladder[0] == alarms["threshold"][0]
    with pytest.raises(ReleaseError, match="no thresholds"):
        detector.for_mode("windows").threshold_for(None, 1.0)
