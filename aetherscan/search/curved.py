"""Find curved tracks: a parabola through all ONs, for hits that no straight line explains.

The drift rate of a transmitter in orbit changes, so that its line bends. With curvature c, it lies c/2 gap^2 channels
beside the straight line in an ON that is `gap` rows away, and drifts faster there by c gap. One number decides both, so
a bend in place without the change of drift is not a curved line, but one that wanders.

Each other ON is measured at every place that the curvature allows, along the drift that belongs to the place. The sums
of these profiles over all drifts and curvatures give the parabola, which is then fitted in finer steps.
"""

import math
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Bool, Float64

from aetherscan.kernels import njit
from aetherscan.search.follow import (
    BRIGHT,
    CAPPED,
    CURVATURE,
    DRIFT,
    HIT_SNR,
    OPEN,
    SNR,
    START,
    WIDTH,
    WIDTHS,
    Arrays,
    describe,
    explains,
    line_snr,
    line_snrs,
    locate,
    measure_valid,
    place_in,
)

FEWEST_ONS = 3
"""Through the places of fewer ONs, there is always a parabola."""
MOST_BEND = 128
"""Largest distance of an ON from the straight line, channels; the overlap of blocks has room for twice as many."""
LOOSE = 0.3
"""Distance of an ON from the straight line, in boxes, from which the track may be a curved one."""
BETTER = 9.0
"""Least gain in the squared SNR of the ONs together by which a curved track replaces a straight one."""
MARGIN = 1.0
"""SNR by which the profiles may miss the best parabola."""
FITS = 12
"""Most steps of the fit at each of its two resolutions."""


@njit(cache=True, nogil=True)
@no_type_check
def _together(
    arrays: Arrays,
    home: int,
    line: Float64[np.ndarray, "4"],
    ceilings: tuple[float, float, float],
    snrs: Float64[np.ndarray, " ons"],
) -> float:
    """Fill `snrs` with the SNR of a line in each ON; return that of all together.

    Args:
        arrays: the cadence.
        home: the ON to which the line refers, counted from 0 among the ONs.
        line: its place in the middle of that ON, drift there, curvature, width.
        ceilings: sigma at which pixels, and rows, are clipped, and from which a row does not count.
        snrs: receives the SNR in each ON.
    """
    total, ons = 0.0, arrays.ons
    for i in range(ons.size):
        gap = arrays.middles[ons[i]] - arrays.middles[ons[home]]
        place, drift = line[0] + (line[1] + line[2] / 2 * gap) * gap, line[1] + line[2] * gap
        snrs[i] = line_snr(arrays, ons[i], place, drift, line[2], math.hypot(line[3], drift), ceilings)
        total += snrs[i]
    return total / math.sqrt(ons.size)


@njit(cache=True, nogil=True)
@no_type_check
def _coarsely(hit: Any, home: int, arrays: Arrays, min_on_snr: float, line: Float64[np.ndarray, "4"]) -> float:
    """Fill `line` with the brightest parabola through a hit; return the SNR of the ONs together, -inf without one."""
    ons, at = arrays.ons, arrays.middles[arrays.ons] - arrays.middles[arrays.ons[home]]
    box, rows = max(1.0, hit["width"]), arrays.lengths[ons[home]]
    far, near, step = np.max(np.abs(at)), np.min(np.abs(at[at != 0])), max(0.5, box / 2)
    width = math.sqrt(max(1.0, box**2 - hit["drift"] ** 2))
    most, turns = math.ceil(MOST_BEND / step), math.ceil(1.5 * box / rows * far / step)
    reach = most + math.ceil(turns * far / near) + 1
    profiles, lines = np.full((ons.size, 2 * reach + 1), -np.inf), np.empty((4, 2 * reach + 1))
    for i in range(ons.size):
        if i == home:
            continue
        for k in range(-reach, reach + 1):
            curvature = 2 * k * step / far**2  # about; of the drift that the place means
            drift = hit["drift"] + curvature * at[i]
            lines[0, k + reach] = hit["channel"] + hit["drift"] * at[i] + k * step * (at[i] / far) ** 2
            lines[1, k + reach], lines[2, k + reach], lines[3, k + reach] = drift, curvature, math.hypot(width, drift)
        line_snrs(arrays, ons[i], lines, CAPPED, profiles[i])
        profiles[i] = np.where(profiles[i] >= min_on_snr - MARGIN, profiles[i], -np.inf)
    best = -np.inf
    for c in range(-most, most + 1):
        for v in range(-turns, turns + 1):
            total = hit["snr"]
            for i in range(ons.size):
                if i != home:
                    # A change of the drift moves the place by v at the farthest ON; counted in its steps there.
                    total += profiles[i, c + round(v * far / at[i]) + reach]
            if total > best:
                best = total
                line[0], line[1], line[2] = hit["channel"], hit["drift"] + v * step / far, 2 * c * step / far**2
    line[3] = width
    return best / math.sqrt(ons.size)


@njit(cache=True, nogil=True)
@no_type_check
def _fit(
    arrays: Arrays, home: int, line: Float64[np.ndarray, "4"], snrs: Float64[np.ndarray, "2 ons"]
) -> tuple[float, float]:
    """Move `line` to the nearest maximum of the SNR, in ever finer steps; return the ceilings used.

    The first row of `snrs` receives the SNR in each ON; the second is scratch space.
    """
    far = np.max(np.abs(arrays.middles[arrays.ons] - arrays.middles[arrays.ons[home]]))
    ceilings, trial, steps = CAPPED, line.copy(), np.empty(3)
    best = _together(arrays, home, line, ceilings, snrs[0])
    for fineness in (2.0, 4.0):
        own = math.hypot(line[3], line[1]) / fineness
        steps[0], steps[1], steps[2] = own, own / far, 2 * own / far**2
        for _ in range(FITS):
            start, moved = line.copy(), False
            for number in range(27):
                for j in range(3):
                    trial[j] = start[j] + (number // 3**j % 3 - 1) * steps[j]
                trial[3] = start[3]
                snr = _together(arrays, home, trial, ceilings, snrs[1])
                if snr > best:
                    best, moved = snr, True
                    line[:], snrs[0] = trial, snrs[1]
            if not moved:
                break
        if np.min(snrs[0]) > BRIGHT:
            ceilings = OPEN
            best = _together(arrays, home, line, ceilings, snrs[0])
        trial[:] = line
        for wide in WIDTHS:
            trial[3] = wide
            snr = _together(arrays, home, trial, ceilings, snrs[1])
            if snr > best:
                best = snr
                line[3], snrs[0] = wide, snrs[1]
    return ceilings


@njit(cache=True, nogil=True)
@no_type_check
def _measure(
    hit: Any, home: int, arrays: Arrays, min_snrs: tuple[float, float], track: Float64[np.ndarray, " fields"]
) -> None:
    """Fill `track` with the curved track through a hit; the SNR stays NaN if there is none.

    Args:
        hit: one record of `dedoppler.HIT`.
        home: the ON that holds it, counted from 0 among the ONs.
        arrays: the cadence.
        min_snrs: SNR that each ON must have, and all together.
        track: a row of NaN.
    """
    ons = arrays.ons
    line, snrs, places = np.empty(4), np.empty((2, ons.size)), np.empty(ons.size)
    if not _coarsely(hit, home, arrays, min_snrs[0], line) >= min_snrs[1] - MARGIN:
        return
    ceilings = _fit(arrays, home, line, snrs)
    at = arrays.middles[ons[home]]
    track[CURVATURE], track[DRIFT] = line[2], line[1] - line[2] * at
    track[START] = line[0] - (line[1] - line[2] / 2 * at) * at
    track[WIDTH], track[HIT_SNR] = line[3], hit["snr"]
    for i in range(ons.size):
        place, drift, box = place_in(track, arrays.middles[ons[i]])
        track[SNR + 2 * ons[i]], places[i], _ = locate(
            arrays, ons[i], place, box / 2, (drift, 0.0, 0), line[2], box, ceilings
        )
    measure_valid(track, arrays)
    if np.min(snrs[0]) >= min_snrs[0] - MARGIN:
        describe(track, places, ceilings, arrays)


@njit(cache=True, nogil=True)
@no_type_check
def follow_curves(
    hits: np.ndarray,
    tried: Bool[np.ndarray, " hits"],
    home: int,
    arrays: Arrays,
    min_snrs: tuple[float, float],
    known: Float64[np.ndarray, "tracks fields"],
) -> Float64[np.ndarray, "hits fields"]:
    """Return for each hit the curved track through it: NaN if it has none, is not to be tried, or is explained.

    Args:
        hits: records of `dedoppler.HIT` from one ON, in columns of the arrays.
        tried: the hits that no straight line explains.
        home: that ON, counted from 0 among the ONs.
        arrays: the cadence.
        min_snrs: SNR that each ON must have, and all together.
        known: tracks that explain hits, in columns of the arrays.
    """
    tracks = np.full((hits.size, SNR + 2 * arrays.middles.size), np.nan)
    for h in range(hits.size if arrays.ons.size >= FEWEST_ONS else 0):
        if tried[h] and not explains(known, hits[h], hits[h]["snr"], home, arrays):
            _measure(hits[h], home, arrays, min_snrs, tracks[h])
    return tracks
