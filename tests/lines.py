"""Blocks of noise with straight or curved lines, and the tracks that pass the gates in them."""

from dataclasses import replace

import numpy as np

from aetherscan.cadence.geometry import geometry_of
from aetherscan.header import SECONDS_PER_DAY, gbt_header
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.search.follow import channels_at
from aetherscan.search.on_off import find_tracks
from aetherscan.search.row_weights import LEVELS, row_noise, row_weights
from aetherscan.simulate.injection import add_line

CHANS = 2**13
GATES = SearchSettings().gates


def block_of(lengths=(16,) * 6, on=(0, 2, 4), *, seed=1, lines=(), chans=CHANS):
    """Return noise with lines: channel and drift in the middle of the cadence, width, SNRs and any curvature."""
    starts = np.cumsum([0.0, *(length + 2.7 for length in lengths[:-1])])
    base = gbt_header(chans)
    headers = [
        replace(base, ntime=rows, tstart=base.tstart + float(start) * base.tsamp / SECONDS_PER_DAY)
        for rows, start in zip(lengths, starts, strict=True)
    ]
    cadence = geometry_of(headers, on)
    rng, rows = np.random.default_rng(seed), max(lengths)
    sigmas = np.zeros((len(lengths), rows, chans), np.float32)
    noise, weights = np.ones((2, len(lengths), LEVELS, rows), np.float32)
    weights[:] = 0
    middle = cadence.end / 2
    for i, length in enumerate(lengths):
        sigmas[i, :length] = rng.standard_normal((length, chans), dtype=np.float32)
        for channel, drift, width, snrs, *bend in lines:
            at = cadence.starts[i] + np.arange(length + 1) - middle
            edges = channel + drift * at + sum(bend) / 2 * at**2
            add_line(sigmas[i, :length], edges, width=width, snr=snrs[i], noise=np.ones(length))
        noise[i, :, :length] = row_noise(sigmas[i, :length])
        weights[i, :, :length] = row_weights(noise[i, :, :length], np.ones(length, np.float32))
    return NormalizedBlock(sigmas=sigmas, noise=noise, weights=weights, spikes=(), lengths=lengths), cadence


def passed(block, cadence):
    tracks, rejections, counts = find_tracks(block, cadence, GATES)
    return tracks[rejections == ""], counts


def steady(snr, on=(0, 2, 4), count=6):
    return tuple(snr if i in on else 0.0 for i in range(count))


def is_near(tracks, cadence, channel, reach=25.0):
    return np.abs(channels_at(tracks, cadence.end / 2)[:, 0] - channel) < reach
