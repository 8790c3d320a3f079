"""Files of any shape are searched in bounded memory: few rows, many rows, few channels, unequal scans."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from factories import make_detector, make_header, make_power, observe, write_observation

from aetherscan.errors import CadenceError
from aetherscan.io import ArrayObservation, open_cadence, open_observation
from aetherscan.io.binning import MOST_ROWS, PIECE_BYTES, BinnedObservation, bin_rows
from aetherscan.io.observation import Observation
from aetherscan.options.search import SearchSettings
from aetherscan.search.blocks import read_blocks
from aetherscan.search.explain import trace
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter

PATTERN = "ABABAB"


def tone(header, channel, snr=30.0, drift_hz_s=0.02):
    brightness = tuple(snr if letter == "A" else 0.0 for letter in PATTERN)
    return Emitter(frequency_mhz=header.frequency(channel), drift_hz_s=drift_hz_s, width_hz=3.0, snr=brightness)


def scans_of(rows, nchans=2048, **changes):
    """Return a header of five-minute scans with so many rows."""
    return make_header(ntime=rows, tsamp=292.0 / rows, nchans=nchans, nfpc=nchans, **changes)


def search(observations, **settings):
    return search_cadence(observations, make_detector(), SearchSettings(**settings))


@pytest.mark.parametrize("rows", [4, 5, 7, 15, 17, 33, 64, 255, 257, 512, 1000])
def test_a_tone_is_found_in_any_number_of_rows(rows):
    header = scans_of(rows)
    (candidate,) = search(observe(PATTERN, tone(header, 700), header=header)).candidates
    assert abs(candidate.frequency_mhz - header.frequency(700)) < 6e-6
    assert candidate.drift_rate_hz_s == pytest.approx(0.02, abs=0.01)
    assert (18 if rows < 5 else 24) < np.mean(candidate.snr[::2]) < 32  # a pixel counts up to 8 sigma
    assert max(candidate.snr[1::2]) < 5
    assert candidate.scored_by == ("forest" if 8 <= rows <= 32 else "gates")


@pytest.mark.parametrize("nchans", [16, 17, 60, 100, 513])
def test_a_tone_is_found_in_few_channels(nchans):
    header = make_header(nchans=nchans, nfpc=nchans)
    (candidate,) = search(observe(PATTERN, tone(header, nchans // 2 + 3, drift_hz_s=0.0), header=header)).candidates
    assert abs(candidate.frequency_mhz - header.frequency(nchans // 2 + 3)) < 6e-6


@pytest.mark.parametrize("nchans", [16, 100])
@pytest.mark.parametrize("rows", [4, 16])
def test_few_pixels_of_noise_make_no_candidate(rows, nchans):
    header = scans_of(rows, nchans)
    for seed in range(10):
        assert search(observe(PATTERN, header=header, seed=seed)).candidates == ()


def test_a_scan_that_lost_rows_keeps_the_rest_and_the_others_keep_theirs():
    header = make_header(nchans=2048, nfpc=2048)
    whole = search(observe(PATTERN, tone(header, 700), header=header)).candidates[0]
    (cut,) = search(observe(PATTERN, tone(header, 700), header=header, rows=[16, 16, 9, 16, 16, 13])).candidates
    assert cut.valid == (1.0,) * 6
    assert cut.drift_rate_hz_s == pytest.approx(whole.drift_rate_hz_s, abs=0.005)
    assert min(cut.snr[::2]) > 25


def test_a_coarse_channel_of_the_header_that_is_0_or_wider_than_the_band_is_searched(tmp_path):
    header = make_header(nchans=2048, nfpc=2048)
    for nfpc in (None, 300, 2**20):
        observations = observe(PATTERN, tone(header, 700), header=replace(header, nfpc=nfpc))
        assert len(search(observations).candidates) == 1


class Endless(Observation):
    """An observation of many rows that is drawn where it is read."""

    chunk_channels = 1

    def __init__(self, header):
        self.header, self.largest = header, 0

    def _fill(self, power, rows, chans):
        self.largest = max(self.largest, power.nbytes)
        power[:] = 1 + np.random.default_rng(rows.start).normal(0, 0.1, (len(power), 1)).astype(np.float32)
        power += np.random.default_rng(chans.start).normal(0, 0.1, power.shape[1]).astype(np.float32)


def test_a_hundred_thousand_rows_are_read_in_pieces():
    header = make_header(ntime=100_000, tsamp=0.003, nchans=2**14, nfpc=2**14)
    long = [Endless(replace(header, tstart=header.tstart + i)) for i in range(6)]
    tracemalloc.start()
    binned = bin_rows(long)
    power = binned[0].read(0, 512)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert power.shape == (100_000 // 391, 512)
    assert long[0].largest <= PIECE_BYTES
    assert peak < 4 * PIECE_BYTES
    assert {observation.header.ntime for observation in binned} == {255}


def test_a_binned_row_is_the_mean_of_its_rows_without_those_that_were_not_measured():
    header = make_header(ntime=12, nchans=64, nfpc=64)
    power = make_power(header)
    power[1, 5], power[3:6, 7] = np.nan, np.inf
    binned = BinnedObservation(ArrayObservation(header, power), 3).read(2, 60)
    assert binned.shape == (4, 58)
    np.testing.assert_allclose(binned[2], power[6:9, 2:60].mean(axis=0), rtol=1e-6)
    assert binned[0, 3] == pytest.approx(power[[0, 2], 5].mean())
    assert np.isnan(binned[1, 5])


@pytest.mark.parametrize("suffix", [".h5", ".fil"])
def test_part_of_the_rows_of_a_file_is_the_part_of_all(tmp_path, suffix):
    header = make_header(ntime=40, nifs=1)
    path = tmp_path / f"a{suffix}"
    write_observation(path, header, make_power(header))
    with open_observation(path) as observation:
        whole = observation.read(100, 900)
        for rows in ((0, 7), (13, 14), (16, 40)):
            np.testing.assert_array_equal(observation.read(100, 900, rows=rows), whole[slice(*rows)])
        with pytest.raises(ValueError, match="rows: expected 0 <= first < last <= 40, found 7 to 41"):
            observation.read(0, 10, rows=(7, 41))


def test_long_files_are_searched_traced_and_give_the_same_tone_as_short_ones(tmp_path):
    header = scans_of(2 * MOST_ROWS + 3)
    paths = []
    for i, observation in enumerate(observe(PATTERN, tone(header, 700), header=header)):
        paths.append(tmp_path / f"{i}.h5")
        write_observation(paths[-1], observation.header, observation.read(0, header.nchans))
    with open_cadence(paths) as observations:
        (candidate,) = search(observations, threads=2).candidates
        story = "\n".join(trace(observations, make_detector(), SearchSettings(), header.frequency(700)))
    assert abs(candidate.frequency_mhz - header.frequency(700)) < 6e-6
    assert "a candidate by the gates" in story


def test_a_chunk_larger_than_the_buffer_is_read_in_parts(monkeypatch):
    monkeypatch.setattr("aetherscan.search.blocks.READ_BYTES", 2**23)
    header = make_header(nchans=2**16, nfpc=2**16)
    observations = observe("ABA", header=header)
    for observation in observations:
        monkeypatch.setattr(type(observation), "chunk_channels", 2**16)
    whole = np.stack([observation.read(0, header.nchans) for observation in observations])
    blocks = [block for batch in read_blocks(observations, 1024, read_channels=2**20) for block in [*batch]]
    assert [(block.start, block.stop) for block in blocks] == [(0, 2**16)]
    np.testing.assert_array_equal(blocks[0].power[..., blocks[0].column :][..., : 2**16], whole)


def test_lines_faster_than_a_block_can_hold_are_refused_with_the_rate_that_is_possible():
    header = make_header(nchans=2**17, nfpc=2**17, foff=-1e-7)
    observations = [
        ArrayObservation(replace(header, tstart=header.tstart + i / 24), np.ones((16, 2**17), np.float32))
        for i in range(6)
    ]
    with pytest.raises(CadenceError, match=r"max_drift_hz_s: expected at most 0\.\d+ for channels of 0.1 Hz"):
        search(observations)
