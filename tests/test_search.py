"""A signal from the target comes out once, with its numbers; what is elsewhere too does not."""

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from factories import make_detector

from aetherscan.candidates import COLUMNS, write_csv
from aetherscan.errors import CadenceError
from aetherscan.inject import Emitter, add_emitter
from aetherscan.io import open_observation, write_h5
from aetherscan.plots import waterfall_png
from aetherscan.search import SearchSettings, blocks, check_cadence, search_cadence
from aetherscan.simulate import SCAN_S, Sky, gbt_header, random_interference, write_cadence

HEADER = gbt_header(2**15)


def tone(channel: float = 9000.0, drift: float = 1.2, width: float = 6.0, snr: float = 25.0) -> Emitter:
    return Emitter(
        frequency_mhz=HEADER.frequency(channel), drift_hz_s=drift, width_hz=width, snr=(snr, 0, snr, 0, snr, 0)
    )


def search(folder, *emitters, settings=None, seed=1, suffix=".h5", on=(0, 2, 4), **sky):
    paths = write_cadence(folder, Sky(header=HEADER, emitters=emitters, **sky), seed, suffix=suffix)
    with opened(paths) as observations:
        return search_cadence(observations, make_detector(), settings, on=on)


@contextmanager
def opened(paths):
    with ExitStack() as stack:
        yield [stack.enter_context(open_observation(path)) for path in paths]


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
@pytest.mark.parametrize(("drift", "width"), [(0.0, 2.0), (1.2, 6.0), (-3.9, 3.0), (0.4, 40.0)])
def test_a_tone_in_the_ons_is_one_candidate_with_its_own_numbers(tmp_path, drift, width, suffix):
    (found,) = search(tmp_path, tone(16000, drift, width), suffix=suffix).candidates
    assert abs(found.frequency_mhz - HEADER.frequency(16000)) < 12e-6
    assert found.drift_rate_hz_s == pytest.approx(drift, abs=0.02)
    assert min(found.snr[::2]) > 20
    assert max(found.snr[1::2]) < 5
    assert (found.target, found.tstart_mjd, found.mode) == ("HIP99427", HEADER.tstart, "windows")


@pytest.mark.parametrize("kind", ["persistent", "drifting", "off_only", "intermittent", "pulsed", "wide"])
def test_interference_is_no_candidate(tmp_path, kind):
    rng = np.random.default_rng(3)
    emitters = [random_interference(rng, HEADER.frequency(4000 + 5000 * i), 60.0, kind) for i in range(4)]
    result = search(tmp_path, *emitters)
    assert result.candidates == ()
    assert kind in {"wide", "off_only"} or result.counts["hits"] > 0


def test_a_side_lobe_that_no_off_shows_alone_is_shown_by_all_of_them(tmp_path):
    leaking = replace(tone(), snr=(30.0, 4.2, 30.0, 4.2, 30.0, 4.2))
    assert search(tmp_path, leaking).counts["hits_in_an_off"] > 0
    assert search(tmp_path, leaking).candidates == ()


def test_a_cadence_with_on_and_off_swapped_is_no_candidate(tmp_path):
    swapped = replace(tone(), snr=(0, 25.0, 0, 25.0, 0, 25.0))
    assert search(tmp_path, swapped).candidates == ()


def test_when_the_target_comes_second_its_tone_is_timed_from_its_own_first_scan(tmp_path):
    swapped = replace(tone(), snr=(0, 25.0, 0, 25.0, 0, 25.0))
    (found,) = search(tmp_path, swapped, on=(1, 3, 5)).candidates
    expected = swapped.track_mhz(np.array([SCAN_S]))[0]
    assert abs(found.frequency_mhz - expected) < 12e-6
    assert found.target == "HIP1_OFF"


def test_bursts_gains_and_the_dc_spike_are_no_candidates_and_hide_nothing(tmp_path):
    result = search(
        tmp_path,
        tone(),
        gains=(1, 1.4, 0.9, 1, 1.1, 0.7),
        bursts=((0, 3, 6.0), (0, 4, 6.0), (3, 9, 4.0)),
        spike=1e4,
    )
    (found,) = result.candidates
    assert abs(found.frequency_mhz - tone().frequency_mhz) < 12e-6


def test_the_answer_does_not_depend_on_the_block_size(tmp_path):
    paths = write_cadence(tmp_path, Sky(header=gbt_header(2**16), emitters=(tone(), tone(2**15 - 50, 3.0))), 1)
    lists = []
    for block in (2**15, 40_000, 2**20):
        with opened(paths) as observations:
            lists.append(search_cadence(observations, make_detector(), SearchSettings(block_channels=block)))
    frequencies = [[c.frequency_mhz for c in result.candidates] for result in lists]
    assert frequencies[0] == pytest.approx(frequencies[2], abs=3e-6)
    assert frequencies[1] == pytest.approx(frequencies[2], abs=3e-6)
    assert len(frequencies[2]) == 2


def test_every_hit_is_accounted_for(tmp_path):
    counts = search(tmp_path, tone(), tone(20000, 0.1, 3), replace(tone(27000), snr=(30.0,) * 6)).counts
    ends = ("hits_weak_in_an_on", "hits_in_an_off", "hits_too_fast", "merged_into_another", "candidates")
    assert counts["hits"] == sum(counts.get(end, 0) for end in ends)
    assert counts["candidates"] == 2


def test_blocks_cover_the_band_and_overlap_by_two_windows():
    found = list(blocks(10_000, 4_000, 500))
    assert found == [(0, 4_000), (3_000, 8_000), (7_000, 10_000)]


def test_observations_that_are_no_cadence_are_named():
    six = list(Sky(header=HEADER).headers())
    with pytest.raises(CadenceError, match="expected six observations, found 5"):
        check_cadence(six[:5])
    with pytest.raises(CadenceError, match="HIP2_OFF: expected 32768 channels from 1500"):
        check_cadence([*six[:3], replace(six[3], fch1=1400.0), *six[4:]])
    with pytest.raises(CadenceError, match="expected a start after MJD"):
        check_cadence([six[1], six[0], *six[2:]])


@pytest.mark.parametrize("lit", [False, True])
def test_a_real_slice_with_its_burst_and_spike_raises_nothing_but_the_tone_put_into_it(tmp_path, lit):
    real = np.load(Path(__file__).parent / "data" / "ddo210_coarse469_slice.npz")["data"]
    header = gbt_header(real.shape[1], source_name="DDO210")
    one = Emitter(frequency_mhz=header.frequency(5000), drift_hz_s=0.8, width_hz=5.0, snr=(25.0, 0, 25.0, 0, 25.0, 0))
    paths = []
    for position, each in enumerate(Sky(header=header).headers()):
        power = real.copy()
        if lit:
            add_emitter(
                power, one, position=position, start_s=position * SCAN_S, tsamp=header.tsamp, fch1=header.fch1,
                foff=header.foff, noise=1.4826 * np.median(np.abs(real - np.median(real, 1)[:, None]), 1).astype(float),
            )  # fmt: skip
        paths.append(tmp_path / f"{position}.h5")
        write_h5(paths[-1], each, [power])
    with opened(paths) as observations:
        found = search_cadence(observations, make_detector()).candidates
    assert [abs(c.frequency_mhz - one.frequency_mhz) < 12e-6 for c in found] == [True] * lit


@pytest.mark.parametrize(
    "wrong", [{"mode": "guess"}, {"threshold": 2.0}, {"max_drift_hz_s": 0.0}, {"block_channels": 100}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}: expected"):
        SearchSettings(**wrong)


def test_the_table_keeps_every_digit_of_a_frequency(tmp_path):
    (found,) = search(tmp_path, tone()).candidates
    write_csv(tmp_path / "candidates.csv", [found])
    head, row = (tmp_path / "candidates.csv").read_text().splitlines()
    assert head == ",".join(COLUMNS)
    assert float(row.split(",")[0]) == found.frequency_mhz


def test_the_picture_is_a_png_whatever_the_target_is_called(tmp_path):
    paths = write_cadence(tmp_path, Sky(header=HEADER, emitters=(tone(),)), 1)
    with opened(paths) as observations:
        (found,) = search_cadence(observations, make_detector()).candidates
        png = waterfall_png(observations, replace(found, target="$\\frac{x}\n<!channel>"))
    assert png.startswith(b"\x89PNG")
