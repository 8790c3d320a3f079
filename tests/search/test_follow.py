"""A track has the drift, width and SNR of its signal in every observation, whatever crosses or lies beside it."""

import numpy as np
import pytest

from aetherscan.search.dedoppler import HIT
from aetherscan.search.follow import (
    CAPPED,
    CROSSED,
    OPEN,
    Arrays,
    as_track,
    follow,
    follow_hits,
    line_snr,
    line_snrs,
    track_columns,
)
from aetherscan.search.joint import STRAIGHT
from aetherscan.search.row_weights import row_weights
from aetherscan.simulate.injection import add_line

ROWS, CHANS, ON = 16, 2**13, (0, 2, 4)
MIDDLES = np.arange(6) * 18.7 + ROWS / 2
WEIGHTS = np.stack([row_weights(np.ones((7, ROWS), np.float32), np.ones(ROWS, np.float32))] * 6)


def sky(*lines, seed=1):
    """Noise with lines (channel at the start, channels per row, width, SNR in each of the six)."""
    sigmas = np.random.default_rng(seed).standard_normal((6, ROWS, CHANS), dtype=np.float32)
    for start, drift, width, snrs in lines:
        for i, snr in enumerate(snrs):
            edges = start + drift * (MIDDLES[i] - ROWS / 2 + np.arange(ROWS + 1))
            add_line(sigmas[i], edges, width=width, snr=snr, noise=np.ones(ROWS))
    return sigmas


def hit(channel, drift, width, snr=10.0):
    return np.array([(channel, drift, width, snr)], dtype=HIT)


def arrays(sigmas):
    on, off = np.array(ON), np.array([1, 3, 5])
    return Arrays(sigmas, WEIGHTS, np.full(6, ROWS), MIDDLES, on, off, np.empty(ROWS))


def tracked(sigmas, hits, position=2, least=4.0):
    return as_track(follow(hits[0], ON.index(position), arrays(sigmas), least))


@pytest.mark.parametrize("position", ON)
@pytest.mark.parametrize(("drift", "width", "box"), [(0.0, 1.5, 2), (-2.3, 3, 4), (11.0, 2, 16), (0.5, 30, 32)])
def test_a_tone_is_measured_in_all_six(drift, width, box, position):
    start = 4000 - 40 * drift
    track = tracked(
        sky((start, drift, width, (20, 0, 20, 0, 20, 0))),
        hit(start + drift * MIDDLES[position] + 0.3 * box, drift + 0.03 * box, box),
        position,
    )
    assert track.channel(0) == pytest.approx(start, abs=0.5 + 0.1 * box)
    assert track.drift == pytest.approx(drift, abs=0.02 + box / 1000)
    assert min(track.snr[i] for i in ON) > 16
    assert max(track.snr[i] for i in (1, 3, 5)) < 3.5
    assert track.width < 3 * max(width, 2)


def test_a_side_lobe_is_measured_in_the_offs_at_its_own_snr():
    track = tracked(sky((4000, 0.4, 2, (30, 6, 30, 6, 30, 6))), hit(4000 + 0.4 * MIDDLES[2], 0.4, 2))
    assert np.mean([track.snr[i] for i in (1, 3, 5)]) == pytest.approx(6, abs=1.5)


def test_a_line_that_crosses_an_off_is_not_on_the_track_and_a_parallel_line_is_close():
    tone = (4000, 0.4, 2, (20, 0, 20, 0, 20, 0))
    crossing = (4000 + 0.4 * MIDDLES[3] + 9 * MIDDLES[3], -9, 2, (0, 0, 0, 500, 0, 0))
    assert tracked(sky(tone, crossing), hit(4000 + 0.4 * MIDDLES[2], 0.4, 2)).snr[3] < 4
    beside = (4003.5, 0.4, 2, (0, 0, 0, 30, 0, 0))
    track = tracked(sky(tone, beside), hit(4000 + 0.4 * MIDDLES[2], 0.4, 2))
    assert track.snr[3] < 5 < track.off_close


def test_an_emitter_that_wanders_is_in_the_wide_neighborhood_in_every_off():
    tone = (4000, 0.4, 2, (20, 0, 20, 0, 20, 0))
    strayed = [
        (4000 + away, 0.4, 2, tuple(30 * (i == off) for i in range(6))) for off, away in ((1, 25), (3, -40), (5, 18))
    ]
    start = hit(4000 + 0.4 * MIDDLES[2], 0.4, 2)
    everywhere, in_two = tracked(sky(tone, *strayed), start), tracked(sky(tone, *strayed[:2]), start)
    assert everywhere.off_close < 5
    assert everywhere.off_wide > 15
    assert in_two.off_wide < 5


def test_the_offs_are_not_measured_when_an_on_is_empty():
    track = tracked(sky((4000, 0.4, 2, (0, 0, 20, 0, 0, 0))), hit(4000 + 0.4 * MIDDLES[2], 0.4, 2), least=6.0)
    assert track.snr[2] > 15
    assert np.isnan(track.snr[1])


def test_a_signal_that_is_on_half_of_the_time_is_less_steady():
    whole = sky((4000, 0.0, 2, (30, 0, 30, 0, 30, 0)))
    half = sky()
    half[:, ::2] = whole[:, ::2]
    steady, pulsed = (tracked(sigmas, hit(4000, 0, 2)).steady for sigmas in (whole, half))
    assert steady > 0.95
    assert pulsed < 0.6


def test_a_hit_that_a_known_track_explains_is_not_followed_again():
    sigmas = sky((4000, 0.4, 2, (20, 0, 20, 0, 20, 0)))
    none = np.empty((0, track_columns(6)))
    hits = np.concatenate([hit(4000 + 0.4 * MIDDLES[0], 0.4, 2), hit(2000, 0, 2)])
    known, explained = follow_hits(hits[:1], 0, arrays(sigmas), 4.0, none)
    assert (len(known), explained) == (1, 0)
    again = np.concatenate([hit(4000 + 0.4 * MIDDLES[2], 0.4, 2), hit(2000, 0, 2)])
    followed, explained = follow_hits(again, 1, arrays(sigmas), 4.0, known)
    assert (len(followed), explained) == (1, 1)


@pytest.mark.parametrize("ceilings", [CAPPED, OPEN, CROSSED, STRAIGHT])
@pytest.mark.parametrize("channel", [4000.3, 2.0, CHANS - 3.5, -100.0, CHANS + 100.0])
@pytest.mark.parametrize("count", [3, 41])
def test_lines_measured_together_have_the_snr_of_each_alone_to_the_last_bit(channel, ceilings, count):
    sigmas = sky((4000, 0.4, 2, (90,) * 6), (20, -0.2, 3, (30,) * 6), (CHANS - 9, 0.1, 3, (30,) * 6))
    some = np.arange(count) - count // 2
    snrs = np.empty(count)
    for box in (1.0, 2.3, 40.0):
        lines = np.stack([channel + 0.37 * some, 0.4 + 0.05 * some, 0.001 * some, box + 0.1 * np.abs(some)])
        line_snrs(arrays(sigmas), 1, lines, ceilings, snrs)
        assert snrs.tolist() == [line_snr(arrays(sigmas), 1, *line, ceilings) for line in lines.T]
