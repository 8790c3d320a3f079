"""A line that bends is followed along a parabola; a straight one, or one that wanders, is not called curved."""

import numpy as np
import pytest
from lines import block_of, is_near, passed, steady

from aetherscan.search.curved import MOST_BEND
from aetherscan.search.follow import CURVATURE, RESIDUAL, SNR, as_track, channels_at

HZ_S2 = 18.253611008**2 / 2.7939677238464355
"""Channels per row squared of 1 Hz/s^2."""


@pytest.mark.parametrize("hz_s2", [1e-4, -3e-4, 6e-4, -1e-3, 1.2e-3])
@pytest.mark.parametrize("drift", [0.2, -5.0])
def test_a_curved_line_is_found_with_its_curvature_and_full_snr(hz_s2, drift):
    bend = hz_s2 * HZ_S2
    block, cadence = block_of(seed=1, lines=[(4000.3, drift, 1.5, steady(12.0), bend)])
    tracks, counts = passed(block, cadence)
    (track,) = tracks[is_near(tracks, cadence, 4000.3)]
    assert counts["curved_tracks"] == 1
    assert track[CURVATURE] == pytest.approx(bend, abs=5e-3)
    assert as_track(track).drift_at(cadence.end / 2) == pytest.approx(drift, abs=0.1)
    expected = 4000.3 + (drift + bend / 2 * (cadence.middles - cadence.end / 2)) * (cadence.middles - cadence.end / 2)
    assert np.abs(channels_at(track[None], cadence.middles)[0] - expected)[[0, 2, 4]].max() < 2
    assert track[SNR::2][[0, 2, 4]].mean() == pytest.approx(12.0, abs=1.8)  # a box has 0.9 of the matched filter
    assert track[RESIDUAL] < 1


@pytest.mark.parametrize("snr", [12.0, 100.0])
def test_a_curved_line_in_the_offs_too_is_no_candidate(snr):
    for seed, hz_s2 in enumerate((2e-4, -6e-4, 1e-3)):
        block, cadence = block_of(seed=10 + seed, lines=[(4000.0, 1.1, 2, (snr,) * 6, hz_s2 * HZ_S2)])
        tracks, _ = passed(block, cadence)
        assert not is_near(tracks, cadence, 4000.0).any()


def test_straight_lines_are_not_called_curved():
    for seed, drift in enumerate((0.0, 1.3, -3.7, 8.3, -16.6, 24.0)):
        block, cadence = block_of(seed=20 + seed, lines=[(4000.3, drift, 1.5, steady(9.0 + seed))])
        tracks, counts = passed(block, cadence)
        assert is_near(tracks, cadence, 4000.3).sum() == 1
        assert (counts["curved_tracks"], tracks[:, CURVATURE].any()) == (0, False)


def test_noise_alone_has_no_curved_tracks():
    for seed in range(3):
        block, cadence = block_of(seed=30 + seed, chans=2**17)
        tracks, counts = passed(block, cadence)
        assert (len(tracks), counts["curved_tracks"]) == (0, 0)


def test_a_bend_in_place_without_the_change_of_drift_is_not_curved():
    """Each ON has the drift of a straight line, and the middle one lies beside it."""
    block, cadence = block_of(seed=40)
    shifted, _ = block_of(
        seed=40, lines=[(4000.0, 0.0, 1.5, (12.0, 0, 0, 0, 12.0, 0)), (4070.0, 0.0, 1.5, steady(12.0, (2,)))]
    )
    tracks, _ = passed(shifted, cadence)
    assert not is_near(tracks, cadence, 4000.0, 100).any()
    assert block.lengths == shifted.lengths


def test_a_line_that_bends_too_far_is_not_followed_as_a_curved_one():
    gap = 37.4
    bend = 2.5 * 2 * MOST_BEND / gap**2
    block, cadence = block_of(seed=50, lines=[(4000.0, 0.0, 2, steady(30.0), bend)])
    tracks, _ = passed(block, cadence)
    assert not tracks[:, CURVATURE].any()


@pytest.mark.parametrize(
    ("lengths", "on"), [((16,) * 8, (0, 2, 4, 6)), ((32,) * 6, (0, 2, 4)), ((15, 16, 14, 16, 15, 16), (0, 2, 4))]
)
def test_other_numbers_and_lengths_of_ons_are_followed_along_a_parabola(lengths, on):
    block, cadence = block_of(lengths, on, seed=60, lines=[(4000.0, 0.5, 2, steady(14.0, on, len(lengths)), 0.03)])
    tracks, counts = passed(block, cadence)
    assert is_near(tracks, cadence, 4000.0).sum() == 1
    assert counts["curved_tracks"] == 1


def test_two_ons_have_no_curved_tracks():
    block, cadence = block_of((16,) * 4, (0, 2), seed=70, lines=[(4000.0, 0.5, 2, steady(14.0, (0, 2), 4), 0.05)])
    _, counts = passed(block, cadence)
    assert counts["curved_tracks"] == 0
