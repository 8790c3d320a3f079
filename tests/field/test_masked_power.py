"""Where an observer, a recorder or a disk left nothing measured, nothing is confirmed and nothing is cleared."""

from dataclasses import replace

import numpy as np
import pytest
from factories import make_detector

from aetherscan.header import NOT_MEASURED, gbt_header
from aetherscan.io import ArrayObservation, open_cadence, write_h5
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import normalize_bandpass
from aetherscan.search.explain import trace
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.config import Config
from sentinel.workers.search import search_files

HEADER = replace(gbt_header(2**15), nfpc=2**13)
CHANNEL = 9000
NEAR = np.s_[:, CHANNEL - 40 : CHANNEL + 40]
MASKS = {
    "NaN": (NEAR, np.nan),
    "infinity": (NEAR, np.inf),
    "zeros": (NEAR, 0.0),
    "a constant near the level": (NEAR, 1.0),
    "a negative filler": (NEAR, -999.0),
    "a huge filler": (NEAR, 1e30),
    "a filler for each channel": (NEAR, np.linspace(0.9, 1.1, 80, dtype=np.float32)),
    "a whole coarse channel of zeros": (np.s_[:, 2**13 : 2**14], 0.0),
    "the whole observation NaN": (np.s_[:], np.nan),
    "the whole observation zero": (np.s_[:], 0.0),
}


def observe(folder, snr, seed=1):
    tone = Emitter(frequency_mhz=HEADER.frequency(CHANNEL), drift_hz_s=0.02, width_hz=4.0, snr=snr)
    paths = write_cadence(folder, Sky(header=HEADER, emitters=(tone,)), seed)
    with open_cadence(paths) as observations:
        return [(each.header, each.read(0, HEADER.nchans)) for each in observations]


def search(observations, **settings):
    arrays = [ArrayObservation(header, power) for header, power in observations]
    return search_cadence(arrays, make_detector(), SearchSettings(**settings))


@pytest.mark.parametrize("mask", MASKS)
def test_interference_that_is_masked_in_the_offs_is_kept_and_not_announced(tmp_path, mask):
    where, value = MASKS[mask]
    observations = observe(tmp_path, (30.0,) * 6)
    for _, power in observations[1::2]:
        power[where] = value
    result = search(observations)
    assert all(NOT_MEASURED in candidate.note for candidate in result.candidates)
    assert result.counts["candidates_not_announced"] == len(result.candidates)
    (found,) = [each for each in result.candidates if abs(each.frequency_mhz - HEADER.frequency(CHANNEL)) < 1e-4]
    assert found.note == "OFF 2 4 6 not measured"
    assert max(found.valid[1::2]) < 0.5
    assert min(found.valid[::2]) == 1


def test_the_last_good_row_of_a_recorder_that_repeats_it_is_one_row():
    power = np.random.default_rng(1).chisquare(200, (16, 4096)).astype(np.float32)
    power[4:] = power[3]
    sigmas = np.empty_like(power)
    normalize_bandpass(power, 0, sigmas, 1024)
    assert (sigmas[5:] == 0).all()
    assert (sigmas[:3] != 0).all()


@pytest.mark.parametrize("position", [0, 1, 3, 4])
def test_one_masked_observation_is_named(tmp_path, position):
    observations = observe(tmp_path, (60.0, 0, 60.0, 0, 60.0, 0))
    observations[position][1][6:, NEAR[1]] = 0  # ten of 16 rows are lost
    (found,) = search(observations).candidates
    assert found.note == f"{'OFF' if position % 2 else 'ON'} {position + 1} not measured"
    assert found.valid[position] == pytest.approx(6 / 16, abs=0.03)
    assert search(observations, min_valid=0.3).candidates[0].note == ""
    arrays = [ArrayObservation(header, power) for header, power in observations]
    story = "\n".join(trace(arrays, make_detector(), SearchSettings(), HEADER.frequency(CHANNEL)))
    assert f"{found.note}: less than 0.5 of its pixels" in story
    assert f"({found.valid[position]:.0%} measured)" in story


def test_an_on_without_power_at_the_signal_is_counted_as_not_measured(tmp_path):
    observations = observe(tmp_path, (30.0, 0, 30.0, 0, 30.0, 0))
    observations[2][1][NEAR] = np.nan
    result = search(observations)
    assert result.candidates == ()
    assert result.counts["tracks_an_on_not_measured"] > 0


@pytest.mark.parametrize(
    ("pattern", "masked", "note"),
    [
        ("ABA.AD", (), "OFF 4 missing"),
        ("A.ACA.", (), "OFF 2 6 missing"),
        ("A.A.A.", (), "no OFF measured"),
        ("ABACAD", (1, 3, 5), ""),
        ("ABA.AD", (1,), ""),
    ],
)
def test_a_candidate_of_a_cadence_without_an_off_is_announced_with_a_note(tmp_path, pattern, masked, note):
    tone = Emitter(frequency_mhz=HEADER.frequency(CHANNEL), drift_hz_s=0.02, width_hz=4.0, snr=(30.0, 0) * 3)
    paths = write_cadence(tmp_path, Sky(header=HEADER, emitters=(tone,)), 1)
    for i in masked:
        with open_cadence([paths[i]]) as (observation,):
            header, power = observation.header, observation.read(0, HEADER.nchans)
        power[NEAR] = np.nan
        write_h5(paths[i], header, [power])
    paths = [path for path, letter in zip(paths, pattern, strict=True) if letter != "."]
    found = search_files(paths, pattern, lambda _: None, Config(state_dir=tmp_path), make_detector(), 1)
    if masked:
        assert NOT_MEASURED in found.candidates[0]["note"]
        assert found.message is None
    else:
        assert found.candidates[0]["note"] == note
        assert note in found.message(found.candidates)["text"]


@pytest.mark.parametrize("value", [np.nan, 0.0, 1.0])
def test_masks_elsewhere_leave_a_signal_its_snr_and_make_no_candidate(tmp_path, value):
    whole = observe(tmp_path, (30.0, 0, 30.0, 0, 30.0, 0))
    masked = [(header, power.copy()) for header, power in whole]
    for i, (_, power) in enumerate(masked):
        power[:, CHANNEL + 200 : CHANNEL + 500] = value
        power[:, :300] = value  # the edge of the band
        power[i, 20_000:] = value
    (before,), (after,) = search(whole).candidates, search(masked).candidates
    assert (after.note, set(after.valid)) == ("", {1.0})
    assert after.snr == pytest.approx(before.snr, abs=0.5)


@pytest.mark.parametrize("levels", [1.5, 3.0, 20.0, 2000.0])
def test_quantized_noise_is_measured_and_a_mask_in_it_is_not(levels):
    rng = np.random.default_rng(5)
    power = np.rint(rng.normal(6 * levels, levels, (16, 2**15))).clip(0).astype(np.float32)
    power[3, 500:700] = power[3, 500]
    power[5] = 0
    sigmas = np.empty_like(power)
    normalize_bandpass(power, 0, sigmas, 1024)
    measured = sigmas != 0
    assert not measured[3, 500:700].any()
    assert not measured[5].any()
    measured[3, 480:720] = measured[5] = True
    assert measured.all()


def test_every_pixel_of_continuous_noise_is_measured():
    power = np.random.default_rng(2).chisquare(2, (16, 2**18)).astype(np.float32)
    sigmas = np.empty_like(power)
    normalize_bandpass(power, 0, sigmas, 1024)
    assert (sigmas != 0).all()
