"""Stamps (plates) are scored; `search` accepts every option of the first Aetherscan's `inference`."""

import csv
import json

import numpy as np
import pytest
from seed_options import ACCEPTED

from aetherscan.detector.detector import load_detector
from aetherscan.errors import FormatError
from aetherscan.header import SCAN_STEP_S, gbt_header
from aetherscan.search.stamps import open_stamps, score_stamps
from aetherscan.simulate.injection import Emitter, add_emitter
from aetherscan.simulate.noise import NOISE, noise
from sentinel import cli
from sentinel.config import ROOT

SHIPPED = ROOT / "models" / "equinox"


def sky(count, snr=0.0, drift_hz_s=0.3, step_s=SCAN_STEP_S):
    """Return stamps of noise, or with a drifting tone in the ONs, of scans that start `step_s` seconds apart."""
    header, rng = gbt_header(4096), np.random.default_rng(3)
    tone = Emitter(frequency_mhz=header.frequency(2000), drift_hz_s=drift_hz_s, width_hz=4.0, snr=(snr, 0.0) * 3)
    power = np.stack([[noise(rng, 16, 4096) for _ in range(6)] for _ in range(count)])
    for stamp in power if snr else ():
        for position in (0, 2, 4):
            add_emitter(
                stamp[position], tone, position=position, start_s=position * step_s, tsamp=header.tsamp,
                fch1=header.fch1, foff=header.foff, noise=np.full(16, NOISE),
            )  # fmt: skip
    return power


@pytest.fixture(scope="module")
def detector():
    return load_detector(SHIPPED)


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    """Four stamps of noise and three with a tone, in the folder layout of the first Aetherscan."""
    data = tmp_path_factory.mktemp("data")
    (data / "testing").mkdir()
    np.save(data / "testing" / "seven.npy", np.concatenate([sky(4), sky(3, 60.0)]))
    return data / "testing" / "seven.npy"


@pytest.mark.parametrize(("option", "form"), [form[1:] for form in ACCEPTED if form[0] == "inference"])
def test_search_and_inference_accept_every_option_of_inference(option, form):
    cli.parser().parse_args(["search", "a.h5", option, *form])
    cli.parser().parse_args(["inference", "--test-files", "a.npy", option, *form])


def test_inference_scores_stamps_like_search_and_writes_into_its_tag(plates, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ["--test-files", plates.name, "--data-path", str(plates.parent.parent), "--output-path", "out"]
    model = ["--config-path", str(SHIPPED / "release.json"), "--classification-threshold", "0.6"]
    assert cli.main(["inference", *asked, *model, "--save-tag", "final_v1"]) == 0
    assert "3 of 7 stamps from probability 0.6" in capsys.readouterr().out
    assert cli.main(["search", *asked, *model, "--save-tag", "final_v2"]) == 0
    first, second = ((tmp_path / "out" / tag / "plates.csv").read_text() for tag in ("final_v1", "final_v2"))
    assert first == second
    assert cli.main(["inference", *asked, "--config-path", str(SHIPPED / "release.json")]) == 0
    assert len(list((tmp_path / "out").glob("2*/plates.csv"))) == 1  # named by the time


def test_each_stamp_has_a_probability_and_those_with_a_tone_are_signals(plates, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AETHERSCAN_DATA_PATH", str(plates.parent.parent))
    asked = ["--test-files", plates.name, "--classification-threshold", "0.6", "--save-tag", "test_v1"]
    card = ["--config-path", str(SHIPPED / "release.json")]
    assert cli.main(["search", *asked, *card, "--output-path", str(tmp_path), "--per-replica-batch-size", "2"]) == 0
    assert "3 of 7 stamps from probability 0.6" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "test_v1" / "plates.csv").read_text().splitlines()))
    assert list(rows[0]) == ["file", "plate", "probability", "spread", "prediction"]
    assert [row["prediction"] for row in rows] == list("0000111")
    assert [int(row["plate"]) for row in rows] == list(range(7))


@pytest.mark.parametrize("mode", ["tracks", "windows"])
def test_a_dead_stamp_has_no_probability_and_the_exit_status_says_so(tmp_path, monkeypatch, capsys, mode):
    monkeypatch.chdir(tmp_path)
    stamps = sky(3, 60.0)
    stamps[1] = 0
    np.save("three.npy", stamps)
    asked = ["search", "--release", str(SHIPPED), "--mode", mode, "--test-files"]
    assert cli.main([*asked, "three.npy"]) == 3
    said = capsys.readouterr().out
    assert "not scored: three.npy: 1 of 3 stamps hold no power and are not used: 1 with zeros (the first is" in said
    rows = list(csv.DictReader((tmp_path / "found" / "plates.csv").read_text().splitlines()))
    assert [row["probability"] == "" for row in rows] == [False, True, False]
    np.save("three.npy", np.full_like(stamps, np.nan))
    assert cli.main([*asked, "three.npy", "--format", "json"]) == 1
    assert {row["prediction"] for row in json.loads((tmp_path / "found" / "plates.json").read_text())} == {None}


@pytest.mark.parametrize("mode", ["tracks", "windows"])
def test_scores_of_stamps_depend_neither_on_the_batch_size_nor_on_gains(plates, tmp_path, mode, detector):
    detector = detector.for_mode(mode)
    rows = list(score_stamps(plates, detector, 0.5, 7))
    assert rows == list(score_stamps(plates, detector, 0.5, 3))
    np.save(tmp_path / "gained.npy", np.load(plates) * np.float32([1, 3, 0.5, 8, 2, 1])[None, :, None, None])
    for row, gained in zip(rows, score_stamps(tmp_path / "gained.npy", detector, 0.5, 7), strict=True):
        assert gained["probability"] == pytest.approx(row["probability"], abs=0.02)


def stretched(power):
    """Return the logarithm of every observation scaled to 0..1, as the first Aetherscan stores it."""
    logarithm = np.log(power)
    logarithm -= logarithm.min(axis=(-2, -1), keepdims=True)
    return logarithm / logarithm.max(axis=(-2, -1), keepdims=True)


@pytest.mark.parametrize("kept", [np.asarray, stretched])
@pytest.mark.parametrize("binning", [1, 8])
@pytest.mark.parametrize("step_s", [SCAN_STEP_S, 16 * 18.253611008])
def test_a_faint_fast_tone_in_a_stamp_is_found_for_either_scan_spacing(tmp_path, binning, step_s, kept, detector):
    power = np.concatenate([sky(3), sky(3, 12.0, 3.0, step_s)])
    np.save(tmp_path / "six.npy", kept(power.reshape(*power.shape[:3], -1, binning).sum(axis=-1)))
    rows = list(score_stamps(tmp_path / "six.npy", detector, 0.5, 6))
    assert [row["prediction"] for row in rows] == [0, 0, 0, 1, 1, 1]


def test_a_file_without_stamps_is_refused_with_the_expected_shape(tmp_path):
    np.save(tmp_path / "small.npy", np.zeros((2, 6, 16, 256), np.float32))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    (tmp_path / "text.npy").write_text("none")
    for name, wrong in (("small", r"\(n, 6, 16, 4096\), found float32"), ("objects", "of numbers"), ("text", "found")):
        with pytest.raises(FormatError, match=rf"{name}\.npy: expected .*{wrong}"):
            open_stamps(tmp_path / f"{name}.npy", (16, 512))


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ([], "expected FILE ... or --test-files"),
        (["a.h5", "--test-files", "b.npy"], "and not both"),
        (["--test-files", "b.npy", "--trace", "1500"], "expected files with frequencies"),
        (["--test-files", "b.npy", "c.npy"], "c.npy: expected a file"),
        (["a.h5", "--save-tag", "mine"], "save_tag: expected final_vX"),
        (["a.h5", "--config-path", "config_final_v1.json"], "expected the release.json of a release, found config_f"),
        (
            ["--test-files", "b.npy", "--rf-path", "m/forest.joblib"],
            "expected a forest stored with skops (.skops), found",
        ),
    ],
)
def test_invalid_arguments_exit_2_with_the_reason(asked, wrong, capsys):
    assert cli.main(["search", *asked]) == 2
    assert wrong in capsys.readouterr().err
