"""Density of interference around a line, and the odds of a signal that follow from it."""

from dataclasses import replace

import numpy as np
import pytest
from factories import make_detector

from aetherscan.cadence.geometry import geometry_of
from aetherscan.header import ABSENT, gbt_header
from aetherscan.io import open_cadence
from aetherscan.options.search import SearchSettings
from aetherscan.search.density import (
    BESIDE_HZ,
    BESIDE_PER_MHZ,
    PRIOR_LINES,
    REFERENCE_PER_MHZ,
    WITHIN_MHZ,
    beside,
    density_at,
    odds_factor,
)
from aetherscan.search.explain import trace
from aetherscan.search.follow import START, track_columns
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.sky import Sky, write_cadence

HEADER = gbt_header(2**15)
WIDE = gbt_header(2**21)


def tracks_at(*channels):
    tracks = np.zeros((len(channels), track_columns(6)))
    tracks[:, START] = channels
    return tracks


def density(header, at, lines):
    vetoed = np.repeat(np.array(lines, float)[:, None], 3, axis=1)
    return density_at(tracks_at(at), vetoed, geometry_of(Sky(header=header).headers()))[0]


def test_density_counts_the_distinct_lines_within_reach_and_a_narrow_band_says_little():
    reach = WITHIN_MHZ / abs(WIDE.foff)
    empty = PRIOR_LINES / (2 * WITHIN_MHZ + PRIOR_LINES / REFERENCE_PER_MHZ)
    assert density(WIDE, 2**20, []) == pytest.approx(empty)
    inside, beyond = [2**20 - reach + 500, 2**20 + reach - 500], [2**20 - reach - 500, 2**20 + reach + 500]
    assert density(WIDE, 2**20, inside + beyond) == pytest.approx(3 * empty)
    assert density(WIDE, 2**20, [5e5 * i for i in range(4)] + [10**6 + 100 * i for i in range(9)]) < 4 * empty
    assert density(WIDE, 2**20, [2**20 + 170]) == pytest.approx(2 * empty + BESIDE_PER_MHZ)
    # At the edge of the band, only what was searched counts.
    assert density(WIDE, 0, []) == pytest.approx(PRIOR_LINES / (WITHIN_MHZ + PRIOR_LINES / REFERENCE_PER_MHZ), rel=1e-3)
    assert density(gbt_header(16), 8, []) == pytest.approx(REFERENCE_PER_MHZ, rel=0.01)
    np.testing.assert_allclose(odds_factor(np.array([REFERENCE_PER_MHZ, REFERENCE_PER_MHZ / 10])), [1, 10])


def test_a_track_that_crosses_a_line_in_any_on_is_beside_it():
    cadence = geometry_of(Sky(header=WIDE).headers())
    places = np.array([[1000.0, 2000, 3000], [1500, 1500, 1500]])
    reach = BESIDE_HZ / cadence.hz
    for ons, expected in (
        ([1000 + 0.9 * reach, 9e5, 9e5], [True, False]),
        ([9e5, 9e5, 3000 - 0.9 * reach], [True, False]),
        ([1500, 2000 + 1.1 * reach, 3500], [False, True]),
        ([3000, 1000, 2000 - 1.1 * reach], [False, False]),
    ):
        assert list(beside(places, np.array([ons, [8e5] * 3], float), cadence)) == expected, ons
    assert not beside(places, np.empty((0, 3)), cadence).any()


@pytest.mark.parametrize(
    ("missing", "least", "most"), [((1,), 0.1, 1.0), ((1, 3, 5), REFERENCE_PER_MHZ, REFERENCE_PER_MHZ)]
)
def test_a_band_whose_offs_are_all_missing_is_not_taken_for_an_empty_one(missing, least, most):
    headers = Sky(header=WIDE).headers()
    cadence = geometry_of([replace(h, source_name=ABSENT) if i in missing else h for i, h in enumerate(headers)])
    assert least <= density_at(tracks_at(2**20), np.empty((0, 3)), cadence)[0] <= most


class Undecided:
    """A forest that votes 3 of 10 for a signal."""

    def predict_proba(self, features):
        return np.tile([0.7, 0.3], (len(features), 1))

    @property
    def estimators_(self):
        return [self]


def undecided():
    detector = make_detector()
    points = {"score": [0.0, 1.0], "probability": [0.0, 1.0]}
    modes = {mode: replace(each, calibration=points) for mode, each in detector.release.modes.items()}
    release = replace(detector.release, modes=modes)
    return replace(detector, release=release, forests=dict.fromkeys(modes, Undecided()))


def emitter(channel, *, off):
    return Emitter(
        frequency_mhz=HEADER.frequency(channel), drift_hz_s=0.1, width_hz=6.0, snr=(25.0, off, 25.0, off, 25.0, off)
    )


@pytest.mark.parametrize(("lines", "most", "least"), [(0, 0.5, 0.45), (12, 0.08, 0.04)])
def test_a_crowded_band_lowers_the_probability_and_a_trace_in_other_blocks_says_the_same(
    tmp_path, monkeypatch, lines, most, least
):
    monkeypatch.setattr("aetherscan.search.blocks.BLOCK_CHANNELS", 2**13)
    rfi = [emitter(1500 + 2500 * i, off=25.0) for i in range(lines)]
    paths = write_cadence(tmp_path, Sky(header=HEADER, emitters=(emitter(10_250, off=0.0), *rfi)), 1)
    settings = SearchSettings(threshold=0.0)
    with open_cadence(paths) as observations:
        (found,) = search_cadence(observations, undecided(), settings).candidates
        story = "\n".join(trace(observations, undecided(), settings, HEADER.frequency(10_250)))
    assert least < found.probability < most
    factor = REFERENCE_PER_MHZ / found.rfi_density
    assert found.probability == pytest.approx(0.3 * factor / (0.7 + 0.3 * factor))
    assert f"around: {found.rfi_density:.3g} interfering lines per MHz" in story
    assert f"score: {found.probability:.3f}" in story
