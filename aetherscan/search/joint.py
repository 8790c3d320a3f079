"""Measure joint hits: one straight line through all ONs, on which the signal has its SNR in each.

A joint hit says where a line is in the reference ON to a bin, and its drift to a few bins at the other ONs. Around it,
a grid of place, drift and width is searched for the highest SNR of the ONs together. No ON is measured at a place of
its own, because a maximum over places would raise the SNR that noise reaches. A row counts up to `ROW_CEILING` sigma,
and from `CROSSED_ROW` sigma on nothing, so that a carrier which crosses the line adds nothing to it.
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
    line_rows,
    measure_valid,
)

ROW_CEILING, CROSSED_ROW = 4.0, 6.0
MARGIN = 0.75
"""SNR by which the coarse grid may miss the best line; below the threshold by more, the finer ones are not searched."""
SHARE = 0.7
"""First box tried, as a share of the width of the hit: lines are found in sums of up to twice their width."""
STEP = 1 / 3
"""Coarse step of the place, and of the drift at the farthest ON, in boxes."""


@njit(cache=True, nogil=True)
@no_type_check
def _together(
    arrays: Arrays, home: int, place: float, drift: float, width: float, snrs: Float64[np.ndarray, " ons"]
) -> float:
    """Fill `snrs` with the SNR in each ON of the line through `place` in the ON `home`; return that of all together."""
    ons, middles, sums, total = arrays.ons, arrays.middles, arrays.sums, 0.0
    box = math.hypot(width, drift)
    for i in range(ons.size):
        position = ons[i]
        rows, weights = arrays.lengths[position], arrays.weights[position]
        level = min(weights.shape[0] - 1, max(0, math.ceil(math.log2(box) - 0.5)))
        channel = place + drift * (middles[position] - middles[ons[home]])
        line_rows(arrays.sigmas[position, :rows], channel, drift, 0.0, box, CAPPED[0], sums)
        snrs[i] = 0.0
        for t in range(rows):
            if sums[t] < CROSSED_ROW:
                snrs[i] += weights[level, t] * min(sums[t], ROW_CEILING)
        total += snrs[i]
    return total / math.sqrt(ons.size)


@njit(cache=True, nogil=True)
@no_type_check
def _best_near(
    line: tuple[float, float, float, float],
    steps: tuple[float, float],
    counts: tuple[int, int],
    arrays: Arrays,
    home: int,
    snrs: Float64[np.ndarray, "2 ons"],
) -> tuple[float, float, float, float]:
    """Return (SNR, place, drift, width) of the brightest of the lines around one, and that one if none is brighter.

    Args:
        line: SNR of all ONs together, place in the ON `home`, drift, width.
        steps: of place and drift.
        counts: steps to either side.
        arrays: the cadence.
        home: the reference ON.
        snrs: the first row receives the SNR in each ON if a brighter line is found; the second is scratch space.
    """
    best = line
    for v in range(-counts[1], counts[1] + 1):
        for p in range(-counts[0], counts[0] + 1):
            place, drift = line[1] + p * steps[0], line[2] + v * steps[1]
            snr = _together(arrays, home, place, drift, line[3], snrs[1])
            if snr > best[0]:
                best = (snr, place, drift, line[3])
                snrs[0] = snrs[1]
    return best


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
    width, snrs = math.sqrt(max(1.0, box**2 - hit["drift"] ** 2)), np.empty((2, ons.size))
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
        track[SNR + 2 * ons[i]] = snrs[0, i]
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
