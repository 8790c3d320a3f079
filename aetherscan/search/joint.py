"""Measure joint hits: one straight line through all ONs, on which the signal has its SNR in each.

A joint hit says where a line is in the reference ON to a bin, and its drift to a few bins at the other ONs. Around it,
a grid of place, drift and width is searched for the highest SNR of the ONs together. No ON is measured at a place of
its own, because a maximum over places would raise the SNR that noise reaches. A row counts up to 4 sigma, and from 6
sigma on nothing, so that a carrier which crosses the line adds nothing to it.
"""

import math
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64

from aetherscan.kernels import njit
from aetherscan.search.follow import (
    CAPPED,
    CURVATURE,
    DRIFT,
    HIT_SNR,
    SNR,
    START,
    WIDTH,
    WIDTHS,
    Arrays,
    describe,
    explains,
    line_snrs,
    measure_valid,
)

STRAIGHT = (CAPPED[0], 4.0, 6.0)
"""Sigma at which pixels, and rows, are clipped, and from which a row does not count."""
MARGIN = 0.75
"""SNR by which the coarse grid may miss the best line; below the threshold by more, the finer ones are not searched."""
SHARE = 0.7
"""First box tried, as a share of the width of the hit: lines are found in sums of up to twice their width."""
STEP = 1 / 3
"""Coarse step of the place, and of the drift at the farthest ON, in boxes."""


@njit(cache=True, nogil=True)
@no_type_check
def _best_near(
    line: tuple[float, float, float, float],
    steps: tuple[float, float],
    counts: tuple[int, int],
    arrays: Arrays,
    home: int,
    snrs: Float64[np.ndarray, " ons"],
) -> tuple[float, float, float, float]:
    """Return (SNR, place, drift, width) of the brightest of the lines around one, and that one if none is brighter.

    Args:
        line: SNR of all ONs together, place in the ON `home`, drift, width.
        steps: of place and drift.
        counts: steps to either side.
        arrays: the cadence.
        home: the reference ON.
        snrs: receives the SNR in each ON if a brighter line is found.
    """
    ons, middles, n = arrays.ons, arrays.middles, 0
    there = np.empty((4, (2 * counts[0] + 1) * (2 * counts[1] + 1)))
    places, each, total = np.empty(there.shape[1]), np.empty((ons.size, there.shape[1])), np.zeros(there.shape[1])
    for v in range(-counts[1], counts[1] + 1):
        for p in range(-counts[0], counts[0] + 1):
            drift = line[2] + v * steps[1]
            places[n], there[1, n], there[3, n] = line[1] + p * steps[0], drift, math.hypot(line[3], drift)
            n += 1
    there[2] = 0.0
    for i in range(ons.size):
        gap = middles[ons[i]] - middles[ons[home]]
        for n in range(places.size):
            there[0, n] = places[n] + there[1, n] * gap
        line_snrs(arrays, ons[i], there, STRAIGHT, each[i])
        total += each[i]
    total /= math.sqrt(ons.size)
    n = np.argmax(total)
    if not total[n] > line[0]:
        return line
    snrs[:] = each[:, n]
    return total[n], places[n], there[1, n], line[3]


@njit(cache=True, nogil=True)
@no_type_check
def measure(hit: Any, home: int, arrays: Arrays, min_snr: float) -> Float64[np.ndarray, " fields"]:
    """Return the brightest straight line near a joint hit as a row of an array of tracks, in columns of the arrays.

    If the ONs together are fainter than `min_snr`, the OFFs are not measured and stay NaN.

    Args:
        hit: one record of `dedoppler.HIT`, its channel that of the ON `home`.
        home: the reference ON, counted from 0 among the ONs.
        arrays: the cadence.
        min_snr: SNR of the ONs together.
    """
    ons, at = arrays.ons, arrays.middles[arrays.ons]
    gaps = np.sort(np.abs(at - at[home]))  # the first is 0
    far, near = gaps[-1] + arrays.lengths[ons].max() / 2, gaps[1]
    # One box, all places and drifts that the bins of the hit allow.
    box = max(1.0, SHARE * hit["width"])
    step, slope = STEP * box, STEP * box / far
    width, snrs = math.sqrt(max(1.0, box**2 - hit["drift"] ** 2)), np.empty(ons.size)
    counts = (3, math.ceil(1.4 * box / near / slope))
    line = _best_near((-np.inf, hit["channel"], hit["drift"], width), (step, slope), counts, arrays, home, snrs)
    for _ in range(2 if line[0] >= min_snr - MARGIN else 0):
        # Widths whose boxes differ by a seventh at least, and half steps of place and drift.
        step, slope, last, center = step / 2, slope / 2, 0.0, line
        for wide in WIDTHS:
            own = math.hypot(wide, center[2])
            if own >= max(0.6 * box, 1.15 * last) and (own <= 2 * box or last == 0):
                last = own
                around = (line[0], center[1], center[2], wide)
                found = _best_near(around, (step, slope), (1, 1), arrays, home, snrs)
                line = found if found[0] > line[0] else line
    track = np.full(SNR + 2 * arrays.middles.size, np.nan)
    track[START], track[DRIFT], track[CURVATURE] = line[1] - line[2] * at[home], line[2], 0.0
    track[WIDTH], track[HIT_SNR] = line[3], hit["snr"]
    for i in range(ons.size):
        track[SNR + 2 * ons[i]] = snrs[i]
    measure_valid(track, arrays)
    if line[0] >= min_snr:
        describe(track, track[START] + track[DRIFT] * at, CAPPED, arrays)
    return track


@njit(cache=True, nogil=True)
@no_type_check
def measure_hits(
    hits: np.ndarray, home: int, arrays: Arrays, min_snr: float, known: Float64[np.ndarray, "tracks fields"]
) -> tuple[Float64[np.ndarray, "hits fields"], int]:
    """Measure every joint hit that no known track explains; return their tracks and the number of hits explained.

    Args:
        hits: records of `dedoppler.HIT` from all ONs together, in columns of the arrays.
        home: the reference ON, counted from 0 among the ONs.
        arrays: the cadence.
        min_snr: SNR of the ONs together.
        known: tracks found from single ONs, in columns of the arrays.
    """
    tracks = np.empty((hits.size, SNR + 2 * arrays.middles.size))
    count = 0
    for h in range(hits.size):
        if not explains(known, hits[h], hits[h]["snr"] / math.sqrt(arrays.ons.size), home, arrays):
            tracks[count] = measure(hits[h], home, arrays, min_snr)
            count += 1
    return tracks[:count], hits.size - count
