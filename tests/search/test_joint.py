"""All ONs together show a line that is too faint for one of them, on one straight line through the cadence."""

import math
from dataclasses import replace

import numpy as np
import pytest
from lines import GATES, block_of, is_near, passed, steady
from scipy.integrate import quad
from scipy.stats import norm

from aetherscan.search.dedoppler import find_hits
from aetherscan.search.features import SIDE_LOBE, side_lobe_odds
from aetherscan.search.follow import DRIFT, SNR, VALID, track_columns
from aetherscan.search.on_off import rejection_reasons
from aetherscan.simulate.injection import add_line

DRIFTS = (0.0, -0.4, 1.3, -3.7, 8.3, -12.0, 16.6, -21.0, 24.0)


def test_lines_too_faint_for_one_on_are_found_in_three():
    found, alone = 0, 0
    for seed, drift in enumerate(DRIFTS * 2):
        block, cadence = block_of(seed=seed, lines=[(4000.3, drift, 1.5, steady(6.0))])
        tracks, _ = passed(block, cadence)
        found += is_near(tracks, cadence, 4000.3).any()
        hits, _, _ = find_hits(
            block.sigmas, block.weights, np.array([2]), np.array(block.lengths), cadence.starts,
            max_drift=26, min_snrs=(6.5, np.inf),
        )  # fmt: skip
        alone += (np.abs(hits["channel"] - 4000.3) < 40).any()
    assert found >= 16  # of 18; all ONs together have SNR 10.4
    assert alone <= 6


def test_noise_alone_passes_nothing():
    for seed in range(3):
        block, cadence = block_of(seed=100 + seed, chans=2**17)
        tracks, counts = passed(block, cadence)
        assert len(tracks) == 0
        assert counts["joint_hits"] > 0


def test_the_snr_and_drift_on_the_straight_line_are_those_of_the_signal():
    snrs, drifts = [], []
    for seed in range(12):
        block, cadence = block_of(seed=200 + seed, lines=[(4000.0, 3.1, 2, steady(6.5))])
        tracks, _ = passed(block, cadence)
        (track,) = tracks[is_near(tracks, cadence, 4000.0)]
        snrs.append(track[SNR::2][[0, 2, 4]].mean())
        drifts.append(track[DRIFT])
    assert np.mean(snrs) == pytest.approx(6.5, abs=0.5)
    assert np.abs(np.array(drifts) - 3.1).max() < 0.1


def test_a_faint_line_in_the_offs_too_is_no_candidate():
    for seed in range(4):
        snrs = (6.0,) * 6
        block, cadence = block_of(seed=300 + seed, lines=[(4000.0, 1.1, 2, snrs)])
        tracks, _ = passed(block, cadence)
        assert not is_near(tracks, cadence, 4000.0).any()


def test_a_line_in_two_of_three_ons_is_no_candidate():
    for seed in range(4):
        block, cadence = block_of(seed=400 + seed, lines=[(4000.0, 1.1, 2, (8.0, 0, 8.0, 0, 0, 0))])
        tracks, _ = passed(block, cadence)
        assert not is_near(tracks, cadence, 4000.0).any()


def test_carriers_that_cross_add_nothing_to_a_straight_line():
    for seed in range(4):
        # Three bright carriers cross one channel, each in one ON.
        block, cadence = block_of(seed=500 + seed)
        for i in (0, 2, 4):
            add_line(block.sigmas[i], np.linspace(3900, 4100, 17), width=2, snr=200, noise=np.ones(16))
        tracks, _ = passed(block, cadence)
        flat = np.abs(tracks[:, DRIFT]) < 1
        assert not (is_near(tracks, cadence, 4000.0, 120) & flat).any()


@pytest.mark.parametrize(
    ("lengths", "on"),
    [
        ((16, 16, 16, 16), (0, 2)),
        ((16,) * 8, (0, 2, 4, 6)),
        ((16,) * 12, (0, 2, 4, 6, 8, 10)),
        ((4,) * 6, (0, 2, 4)),
        ((100,) * 6, (0, 2, 4)),
        ((15, 16, 14, 16, 15, 16), (0, 2, 4)),
        ((96, 16, 96, 16), (0, 2)),
    ],
)
def test_any_number_and_length_of_ons_is_searched_together(lengths, on):
    together, found = 10.0, 0
    snr = together / math.sqrt(len(on))
    for seed, drift in enumerate((0.3, -2.0, 1.02, 4.0)):
        lines = [(4000.0, drift, 2, steady(snr, on, len(lengths)))]
        block, cadence = block_of(lengths, on, seed=600 + seed, lines=lines)
        tracks, _ = passed(block, cadence)
        found += is_near(tracks, cadence, 4000.0).any()
    assert found >= 3


def test_one_on_has_no_joint_hits():
    block, cadence = block_of(lines=[(4000.0, 1.0, 2, steady(20.0))])
    hits, joint, _ = find_hits(
        block.sigmas, block.weights, np.array([2]), np.array(block.lengths), cadence.starts,
        max_drift=26, min_snrs=(6.5, 5.0),
    )  # fmt: skip
    assert len(hits) == 1
    assert len(joint) == 0


def test_a_block_that_begins_elsewhere_gives_the_same_tracks():
    block, cadence = block_of(seed=7, lines=[(4000.0, 2.2, 2, steady(7.0))])
    cut = replace(block, sigmas=np.ascontiguousarray(block.sigmas[..., 1024:]), first=1024, noise=block.noise)
    whole, part = passed(block, cadence)[0], passed(cut, cadence)[0]
    expected = whole[is_near(whole, cadence, 4000.0)]
    assert len(expected) == 1
    np.testing.assert_allclose(part[is_near(part, cadence, 4000.0)], expected, rtol=1e-9)


def test_the_odds_of_a_side_lobe_are_those_of_the_integral():
    on, off = np.array([8.0, 20.0]), np.array([[0.3, -1.0, 2.0], [4.0, 5.0, 3.0]])
    low, high = SIDE_LOBE
    expected = [
        sum(
            math.log(quad(lambda r: norm.pdf(x, r * mean), low, high)[0] / (high - low) / norm.pdf(x))  # noqa: B023
            for x in row
        )
        for mean, row in zip(on, off, strict=True)
    ]
    assert side_lobe_odds(on, off) == pytest.approx(expected, rel=0.03)
    assert side_lobe_odds(on, off)[1] > 0 > side_lobe_odds(on[:1], np.zeros((1, 3)))[0]


def test_uneven_ons_are_rejected_only_if_the_track_is_faint():
    _, cadence = block_of()
    tracks = np.zeros((3, track_columns(6)))
    tracks[:, VALID::2] = 1
    tracks[:, SNR::2][:, [0, 2, 4]] = [[5, 5, 5], [9.5, 3, 3], [30, 10, 20]]
    assert list(rejection_reasons(tracks, cadence, GATES, straight=True)) == ["", "uneven", ""]
    assert list(rejection_reasons(tracks, cadence, GATES)) == ["weak_together", "weak_in_an_on", ""]
