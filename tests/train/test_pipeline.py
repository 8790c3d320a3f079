"""A release is trained, written, checked and loaded; an altered release is refused."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from aetherscan.detector.detector import Latents, load_detector, load_encoder
from aetherscan.detector.release import MEASUREMENTS, SIGNAL, read_release
from aetherscan.detector.saved_forest import load_forest, tree_share
from aetherscan.errors import ReleaseError, TrainingError
from aetherscan.options.search import MODES
from aetherscan.options.train import TrainSettings
from aetherscan.search.density import BESIDE_PER_MHZ, REFERENCE_PER_MHZ
from aetherscan.train.examples import Examples, draw_examples
from aetherscan.train.forest import LabelledFeatures, alarm_budget, labelled_features, measure, thresholds, train_forest
from aetherscan.train.kinds import NOISE, draw_lines
from aetherscan.train.pipeline import add_kinds, train
from aetherscan.train.random_skies import KINDS, ExampleSettings, Kind, draw_emitters
from aetherscan.train.vae import CLOSEST, build_encoder, clustering_loss

TINY = TrainSettings(
    seed=3, per_replica_batch_size=4, effective_batch_size=4, per_replica_val_batch_size=4, num_samples_beta_vae=12,
    num_training_rounds=1, epochs_per_round=1, forest_patches=6, judge_patches=6, rf_n_estimators=20, processes=1,
)  # fmt: skip
SMALL = ExampleSettings(chans=2**15)
CROWD = ExampleSettings(chans=2**15, tones=7, unsteady=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    train(folder, replace(TINY, model_path=folder.parent, output_path=folder.parent / "logs"), SMALL)
    return folder


@pytest.fixture
def copied(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "tiny")


def test_new_forests_are_trained_for_the_encoder_of_a_release(tiny, tmp_path):
    (kept := tmp_path / "checkpoints" / "round_01").mkdir(parents=True)
    settings = replace(
        TINY, start=tiny, num_training_rounds=0, seed=4, model_path=tmp_path, output_path=tmp_path / "logs"
    )
    again = train(tmp_path / "again", settings, SMALL)
    first = read_release(tiny)
    assert kept.exists()  # of another training, which may be resumed
    assert (tmp_path / "again" / "encoder.onnx").read_bytes() == (tiny / "encoder.onnx").read_bytes()
    assert again.modes["tracks"].calibration != first.modes["tracks"].calibration
    assert again.card["encoder"] == {"name": "tiny", **first.card["encoder"]}
    assert "The encoder of tiny was trained on 8 cadences in 1 epochs" in (tmp_path / "again" / "CARD.md").read_text()


def test_the_clustering_loss_is_the_sum_over_fifty_pairs_of_aetherscan():
    rng = np.random.default_rng(1)
    z, labels = rng.normal(size=(5, 6, 8)).astype(np.float32), np.array([1, 0, 1, 0, 1], np.float32)
    for latents, label, loss in zip(z, labels, np.asarray(clustering_loss(z, labels)), strict=True):
        ons, offs = latents[[0, 2, 4]], latents[[1, 3, 5]]
        same = sum(
            ((a - b) ** 2).sum() for group in (ons, offs) for a, b in itertools.permutations(group, 2)
        )  # fmt: skip
        mixed = [((a - b) ** 2).sum() for a in ons for b in offs]
        apart = sum(1 / (d + CLOSEST) for d in mixed) if label else sum(mixed)
        assert loss == pytest.approx(same + apart, rel=1e-4)


def test_the_encoder_has_the_nine_convolutions_of_aetherscan():
    shapes = [layer.output.shape[1:] for layer in build_encoder().layers if "conv" in layer.name]
    assert shapes == [
        (8, 256, 16), (8, 256, 16), (4, 128, 32), (4, 128, 32), (4, 128, 32),
        (2, 64, 64), (2, 64, 64), (2, 64, 128), (1, 32, 256),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def drawn():
    drawn = [draw_examples(np.random.default_rng([1, number]), CROWD) for number in range(3)]
    return [Examples.join(parts) for parts in zip(*drawn, strict=True)]


def test_a_trained_release_loads_with_its_card_and_scores_in_either_mode(tiny, drawn):
    detector = load_detector(tiny)
    for mode, examples in zip(MODES, drawn, strict=True):
        latents = detector.encode_snippets(examples.snippets / np.float32(255))
        probability = detector.for_mode(mode).score(latents, examples.measurements)
        columns = latents.mean.reshape(len(latents.mean), -1) if mode == "windows" else examples.measurements
        points = detector.release.modes[mode].calibration
        expected = np.interp(
            tree_share(load_forest(tiny / f"{mode}.skops"), columns), points["score"], points["probability"]
        )
        np.testing.assert_array_equal(probability, expected)
        if mode == "tracks":
            assert probability[examples.labels == 1].mean() > 2 * probability[examples.labels == 0].mean()
    assert detector.release.card["training"]["seed"] == 3
    assert detector.release.modes["tracks"].measurements == MEASUREMENTS
    card = (tiny / "CARD.md").read_text()
    assert "not a recall on the sky" in card.replace("\n", " ")
    assert "## windows" in card


def test_an_altered_file_is_refused_and_named(copied):
    weights = copied / "tracks.skops"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(ReleaseError, match=r"tracks\.skops: expected sha256 [0-9a-f]{64}, found"):
        read_release(copied)


def test_a_missing_file_card_or_key_is_named(copied, tmp_path):
    with pytest.raises(ReleaseError, match=r"expected a folder with release\.json"):
        read_release(tmp_path / "nowhere")
    (copied / "encoder.keras").rename(copied / "elsewhere")
    with pytest.raises(ReleaseError, match=r"expected encoder\.keras, found none"):
        read_release(copied)
    (copied / "release.json").write_text(json.dumps({"name": "tiny"}))
    with pytest.raises(ReleaseError, match="expected name, snippet, modes and sha256"):
        read_release(copied)


def test_a_pickle_in_place_of_a_forest_is_never_executed(tmp_path):
    bait = tmp_path / "forest.skops"
    bait.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "bitten").encode() + b"'\ntR.")
    with pytest.raises(ReleaseError, match="expected a forest stored with skops"):
        load_forest(bait)
    assert not (tmp_path / "bitten").exists()


def test_training_does_not_overwrite_a_release(tiny):
    with pytest.raises(FileExistsError, match="choose another name"):
        train(tiny, TINY, SMALL)


def test_examples_are_tracks_that_a_search_finds_with_tones_labelled_as_signals(drawn):
    tracks, windows = drawn
    assert 0 < tracks.labels.sum() < len(tracks.labels)
    assert ((tracks.snrs > 0) == (tracks.labels == 1)).all()
    assert tracks.measurements.shape == (len(tracks.labels), len(MEASUREMENTS))
    together = tracks.measurements[:, MEASUREMENTS.index("on_together")]
    expected = tracks.snrs[tracks.labels == 1] * 3**0.5
    assert np.median(together[tracks.labels == 1] / expected) == pytest.approx(1.05, abs=0.2)
    assert windows.snippets.shape == (3 * CROWD.windows, 6, 16, 512)
    assert windows.labels.any()


def test_every_kind_is_drawn_and_some_tones_pulse_or_curve():
    tones, others = draw_emitters(np.random.default_rng(6), ExampleSettings(tones=200, interference=200))
    unsteady = [tone for tone in tones if tone.period_s or tone.curvature_hz_s2]
    assert len(unsteady) == pytest.approx(60, abs=20)
    assert len({bool(tone.period_s) for tone in unsteady}) == 2
    assert {emitter.kind for emitter in others} == set(KINDS)
    assert all(min(tone.snr[::2]) > 0 == max(tone.snr[1::2]) for tone in tones)
    partial = [emitter for emitter in others if emitter.kind == "partial"]
    assert all(0 < sum(snr > 0 for snr in emitter.snr[::2]) < 3 for emitter in partial)


def test_the_same_seed_draws_the_same_examples(drawn):
    again = draw_examples(np.random.default_rng([1, 0]), CROWD)
    for first, second in zip(drawn, again, strict=True):
        np.testing.assert_array_equal(first.snippets[: len(second.snippets)], second.snippets)
        np.testing.assert_array_equal(first.measurements[: len(second.measurements)], second.measurements)


def test_a_rate_of_false_alarms_is_per_window_and_needs_three_expected_ones():
    quiet = np.linspace(0, 1, 3001)
    assert list(thresholds(quiet, 29)) == [0.05]
    found = thresholds(quiet, 30_000)
    assert list(found) == [0.05, 0.01, 0.001, 0.0001]
    assert found[0.01] == pytest.approx(0.9, abs=1e-4)  # 300 of 3,001 are above
    assert found[0.0001] == pytest.approx(0.999, abs=1e-4)
    assert thresholds(quiet, 80_000)[0.05] == 0  # more may pass than there are


@pytest.mark.parametrize(
    ("name", "signals"), [("fit", 1), ("calibrate", 0), ("measure", 0), ("fit", 9), ("measure", 9)]
)
def test_a_set_without_both_signals_and_others_is_refused_with_what_it_has(tmp_path, name, signals):
    zeros = np.zeros((9, 6, 2), np.float32)

    def features(count):
        labels = (np.arange(9) < count).astype(np.float32)
        return LabelledFeatures(
            latents=Latents(mean=zeros, log_var=zeros), labels=labels, snrs=labels * 9, measurements=zeros[:, 0, :0],
            kinds=np.zeros(9, "U16"), beside=np.zeros(9, bool), windows=9,
        )  # fmt: skip

    sets = {other: features(4) for other in ("fit", "calibrate", "measure")} | {name: features(signals)}
    expected = rf"forest of windows: expected at least .+ to {name} it, found {signals} and {9 - signals}: raise "
    with pytest.raises(TrainingError, match=expected):
        train_forest(tmp_path, "windows", sets, TINY, {})


def test_tracks_labelled_by_people_join_the_fit_and_are_counted(tiny, drawn, tmp_path):
    encode = load_encoder(tiny / "encoder.onnx", (16, 512))
    count = len(drawn[0].labels)
    known = replace(drawn[0], labels=(np.arange(count) % 2).astype(np.float32))  # both kinds in both halves
    rows = replace(labelled_features(encode, known), windows=50.0)
    card = train_forest(
        tmp_path, "tracks", dict.fromkeys(("fit", "calibrate", "measure"), rows), TINY, {}, rows.only(np.arange(2))
    )
    assert card["labelled"] == 2
    assert sum(card["learned"].values()) == count + 2


def test_a_training_writes_a_page_figures_and_logs(tiny):
    logs = tiny.parent / "logs" / "tiny"
    page = (logs / "training.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page
    assert all(word in page for word in ("forest tracks", "round 1", "ram_bytes", "cpu_s"))
    assert {path.suffix for path in logs.iterdir() if path.is_file()} == {".png", ".csv", ".html"}
    assert list((logs / "tensorboard").iterdir())


def test_recall_is_measured_at_each_rate_of_false_alarms():
    scores = np.concatenate([np.linspace(0, 0.5, 10_000), np.full(100, 0.48), np.full(100, 0.3)])
    labels = np.concatenate([np.zeros(10_000), np.ones(200)]).astype(np.float32)
    snrs = np.concatenate([np.zeros(10_000), np.full(100, 30.0), np.full(100, 7.0)]).astype(np.float32)
    unseen = LabelledFeatures(
        latents=Latents(mean=(none := np.zeros((10_200, 6, 0), np.float32)), log_var=none), snrs=snrs, labels=labels,
        measurements=none[:, 0], kinds=np.zeros(10_200, "U16"), beside=np.zeros(10_200, bool),
        windows=10_000,
    )  # fmt: skip
    found = measure(scores, unseen, 0.05)
    assert found["threshold"] == pytest.approx(0.475, abs=1e-4)
    assert found["recall_at_0.05"] == {"6-8": 0, "24-60": 1}
    assert found["recall_at_0.01"] == {"6-8": 0, "24-60": 0}


def test_the_threshold_is_the_lowest_that_the_alarm_budget_pays_for():
    count = 1000
    scores, numbers = np.linspace(0, 0.999, count), np.arange(count)
    kinds = np.where(numbers % 2, "side_lobe", "").astype("U16")
    measured = np.zeros((count, len(MEASUREMENTS)), np.float32)
    measured[:, MEASUREMENTS.index("on_together")] = np.where(numbers % 4 == 1, 7.0, 20.0) * 3**0.5
    none = np.zeros((count, 6, 0), np.float32)
    others = LabelledFeatures(
        latents=Latents(mean=none, log_var=none), snrs=np.zeros(count, np.float32), labels=np.zeros(count, np.float32),
        measurements=measured, kinds=kinds, beside=numbers % 8 == 3, windows=10_000,
    )  # fmt: skip
    # 1,000 MHz with ten times as many side lobes as in a band in which they are the only kind; half are too faint.
    # A quarter of the side lobes is beside interference, where the odds are lower.
    found = alarm_budget(scores, others, 0.1, {"side_lobe": Kind(150.0, (8.0, 3000.0))})
    counts = np.where(numbers % 4 == 1, 0.0, 0.01)
    factor = REFERENCE_PER_MHZ / (REFERENCE_PER_MHZ + BESIDE_PER_MHZ * (numbers % 8 == 3))
    scores = scores * factor / (1 - scores + scores * factor)
    for budget, threshold in zip(found["per_100_mhz"], found["threshold"], strict=True):
        kept = counts[scores >= threshold].sum()
        assert kept <= budget + 1e-9
        assert threshold == 0 or kept + 0.01 > budget - 1e-9
    at_default = (scores >= found["threshold"][found["per_100_mhz"].index(0.5)]) & (numbers % 2 == 1)
    assert found["kinds"]["side_lobe"] == pytest.approx(counts[at_default].sum(), abs=1e-3)


def test_a_trained_release_names_kinds_and_another_forest_of_kinds_leaves_the_other_files(tiny, copied):
    detector, card = load_detector(tiny), json.loads((tiny / "release.json").read_text())["kinds"]
    assert set(card["names"]) <= {*KINDS, SIGNAL, NOISE}
    assert sum(card["learned"].values()) > 10
    lines = draw_lines(np.random.default_rng(8), SMALL)
    names, probabilities = detector.kinds(lines.measurements)
    assert set(names) <= set(card["names"])
    assert ((probabilities > 1 / len(card["names"])) & (probabilities <= 1)).all()
    assert (detector.strangeness(lines.measurements) >= 0).all() if card["signals"] else True
    assert "The forest of kinds reads measurements" in (tiny / "CARD.md").read_text()
    before = {path.name: path.read_bytes() for path in copied.iterdir()}
    again = add_kinds(copied, replace(TINY, seed=9), SMALL, measure_seed=4)
    changed = {path.name for path in copied.iterdir() if path.read_bytes() != before[path.name]}
    assert changed == {"kinds.skops", "release.json"}
    assert again.card["modes"] == detector.release.card["modes"]


def test_tracks_are_named_by_the_interference_that_they_are(drawn):
    tracks, windows = drawn
    assert set(windows.kinds) == {""}
    assert set(tracks.kinds[tracks.labels == 0]) <= {*KINDS, ""}
    assert set(tracks.kinds) & set(KINDS)
