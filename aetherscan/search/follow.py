"""Follow one signal through the observations of a cadence, and measure it in each.

A hit in one ON predicts where the signal is in the other ONs, the nearest first. A straight line through the positions
then gives the drift far more precisely than one observation can; a single ON has only that. The OFFs are measured on
that line, where a signal from the target must be absent and a side lobe appears faintly in all. They are measured again
beside the line, where an emitter whose frequency wanders may be. In an OFF each row is clipped at 3 sigma, so that a
line that merely crosses the track does not count as a signal on it.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64

from aetherscan.kernels import njit

WIDTHS = np.array([1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64], dtype=np.float64)
LONGEST_SLACK = 24.0
"""Channels that a signal may stray from the straight line between two ONs; farther away it is another signal."""
REFINEMENTS = 2
CLOSE_CHANNELS = 8.0
"""Channels on either side of a track, or two boxes, in which an OFF must not hold a line of the same drift either."""
WIDE_CHANNELS = 64.0
"""Channels on either side, or four boxes, within which an emitter wanders between one ON and the next."""
CAPPED, OPEN, CROSSED = (8.0, 1e9, math.inf), (1e9, 1e9, math.inf), (8.0, 3.0, math.inf)
"""Sigma at which pixels, and sums of a row over a box, are clipped, and from which a row does not count: in ONs, in ONs
brighter than `BRIGHT`, in OFFs."""
FEWEST_TOGETHER = 16
"""Lines from which measuring them together is faster than one by one."""
BRIGHT = 20.0
"""SNR from which the pixels of a narrow line approach the ceiling; clipped there, it would seem wider than it is."""
FIELDS = ("start", "drift", "curvature", "width", "hit_snr", "residual", "steady", "off_close", "off_wide")
"""First columns of an array of tracks; `Track` defines them. SNR and valid share of each observation follow in turn."""
START, DRIFT, CURVATURE, WIDTH, HIT_SNR, RESIDUAL, STEADY, OFF_CLOSE, OFF_WIDE, SNR, VALID = range(11)


def track_columns(scans: int) -> int:
    """Return the number of columns of an array of tracks through so many observations."""
    return SNR + 2 * scans


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One signal through a cadence, in channels, and in rows after the start of the first observation."""

    start: float  # channel of its center at the start of the first observation
    drift: float  # channels per row, there
    curvature: float  # change of the drift, channels per row squared
    width: float  # channels, without the smear of the drift within a row
    hit_snr: float  # SNR of the hit that was followed
    residual: float  # largest distance of an ON from the line, in boxes
    steady: float  # fraction of the ONs' rows with at least half of the mean brightness
    off_close: float  # SNR of the brightest line within `CLOSE_CHANNELS` in any OFF
    off_wide: float  # SNR of the brightest line within `WIDE_CHANNELS`, in the OFF where that is faintest
    snr: tuple[float, ...]  # on the track, in each observation
    valid: tuple[float, ...]  # share of the pixels on the track that were measured, in each observation

    @property
    def box(self) -> float:
        """Channels that its power covers in one row: width and smear of the drift at the start."""
        return math.hypot(self.width, self.drift)

    def channel(self, at_rows: float) -> float:
        """Return the channel of the center, `at_rows` rows after the start of the first observation."""
        return self.start + self.drift * at_rows + self.curvature / 2 * at_rows**2

    def drift_at(self, at_rows: float) -> float:
        """Return the drift at that time, channels per row."""
        return self.drift + self.curvature * at_rows


def as_track(row: Float64[np.ndarray, " fields"]) -> Track:
    """Return a row of an array of tracks as a `Track`."""
    values = [float(value) for value in row]
    return Track(
        **dict(zip(FIELDS, values[:SNR], strict=True)), snr=tuple(values[SNR::2]), valid=tuple(values[VALID::2])
    )


def channels_at(tracks: Float64[np.ndarray, "tracks fields"], at_rows: Any) -> Float64[np.ndarray, "tracks times"]:
    """Return the channel of each track at each time, in rows after the start of the first observation."""
    at = np.atleast_1d(at_rows)
    return tracks[:, [START]] + tracks[:, [DRIFT]] * at + tracks[:, [CURVATURE]] / 2 * at**2


def boxes(tracks: Float64[np.ndarray, "tracks fields"]) -> Float64[np.ndarray, " tracks"]:
    """Return the channels that each track covers in one row: width and smear of the drift at the start."""
    return np.asarray(np.hypot(tracks[:, WIDTH], tracks[:, DRIFT]))


class Arrays(NamedTuple):
    """What the compiled functions below read of a cadence; they accept no other kind of class."""

    sigmas: Float32[np.ndarray, "obs time freq"]
    weights: Float32[np.ndarray, "obs level time"]  # of the rows (`row_weights`)
    lengths: Int64[np.ndarray, " obs"]  # rows of each observation
    middles: Float64[np.ndarray, " obs"]  # middle of each observation, in rows after the start of the first
    ons: Int64[np.ndarray, " ons"]  # positions of the ONs, in time order
    offs: Int64[np.ndarray, " offs"]
    sums: Float64[np.ndarray, " time"]  # scratch space for the sums of one line's rows


@njit(cache=True, nogil=True)
@no_type_check
def line_rows(
    sigmas: Float32[np.ndarray, "time freq"],
    channel: float,
    drift: float,
    curvature: float,
    box: float,
    pixel_ceiling: float,
    out: Float64[np.ndarray, " time"],
) -> None:
    """Fill `out` with each row's sum over a box along a line, in sigma.

    The box's edges take fractions of channels. Pixels outside the array count as noise of value zero.

    Args:
        sigmas: one observation.
        channel: of the line's center at mid-observation.
        drift: channels per row, there.
        curvature: change of the drift, channels per row squared.
        box: width of the sum, in channels.
        pixel_ceiling: sigma at which pixels are clipped.
        out: receives one sum per row; may be longer.
    """
    rows, chans = sigmas.shape
    norm = 1 / math.sqrt(box)
    for t in range(rows):
        at = t - (rows - 1) / 2
        low = channel + (drift + curvature / 2 * at) * at - box / 2 + 0.5
        high = low + box
        total = 0.0
        first, last = max(0, math.floor(low)), min(chans, math.ceil(high))
        for k in range(first, last):
            total += min(pixel_ceiling, sigmas[t, k])
        # Subtract the part of the two edge pixels that lies outside the box.
        if first < last:
            if first < low:
                total -= min(pixel_ceiling, sigmas[t, first]) * (low - first)
            if last > high:
                total -= min(pixel_ceiling, sigmas[t, last - 1]) * (last - high)
        out[t] = total * norm


@njit(cache=True, nogil=True)
@no_type_check
def line_snr(
    arrays: Arrays,
    position: int,
    channel: float,
    drift: float,
    curvature: float,
    box: float,
    ceilings: tuple[float, float, float],
) -> float:
    """Return the SNR of a box along a line in one observation.

    Args:
        arrays: the cadence.
        position: of the observation.
        channel: of the line's center at mid-observation.
        drift: channels per row, there.
        curvature: change of the drift, channels per row squared.
        box: width of the sum, in channels.
        ceilings: sigma at which pixels, and rows, are clipped, and from which a row does not count.
    """
    sums, weights, rows = arrays.sums, arrays.weights[position], arrays.lengths[position]
    level = min(weights.shape[0] - 1, max(0, math.ceil(math.log2(box) - 0.5)))
    line_rows(arrays.sigmas[position, :rows], channel, drift, curvature, box, ceilings[0], sums)
    total = 0.0
    for t in range(rows):
        if sums[t] < ceilings[2]:
            total += weights[level, t] * min(sums[t], ceilings[1])
    return total


# LLVM vectorizes a loop only if it uses few arrays, and none of them at an index from another: `_take` alone does.


@njit(cache=True, nogil=True)
@no_type_check
def _clip_row(row: Float32[np.ndarray, " freq"], first: int, ceiling: float, out: Float64[np.ndarray, " n"]) -> None:
    """Fill `out` with pixels from channel `first` on, clipped; those outside the array are zero."""
    low, high = min(max(-first, 0), out.size), min(max(row.size - first, 0), out.size)
    out[:low] = 0.0
    out[high:] = 0.0
    for f in range(low, high):
        out[f] = min(ceiling, row[first + f])


@njit(cache=True, nogil=True)
@no_type_check
def _lows(lines: Float64[np.ndarray, "4 lines"], at: float, out: Float64[np.ndarray, " lines"]) -> None:
    """Fill `out` with the lower edge of each line's box in the row that is `at` rows after mid-observation."""
    channel, drift, curvature, box = lines[0], lines[1], lines[2], lines[3]
    for i in range(out.size):
        out[i] = channel[i] + (drift[i] + curvature[i] / 2 * at) * at - box[i] / 2 + 0.5


@njit(cache=True, nogil=True)
@no_type_check
def _edge_pixels(
    lows: Float64[np.ndarray, " lines"], box: Float64[np.ndarray, " lines"], edges: Int64[np.ndarray, "2 lines"]
) -> None:
    """Fill `edges` with the first and the last channel that each box covers."""
    first, last = edges[0], edges[1]
    for i in range(lows.size):
        first[i] = math.floor(lows[i])
    for i in range(lows.size):
        last[i] = math.ceil(lows[i] + box[i]) - 1


@njit(cache=True, nogil=True)
@no_type_check
def _take(
    pixels: Float64[np.ndarray, " n"], at: Int64[np.ndarray, " lines"], first: int, out: Float64[np.ndarray, " lines"]
) -> None:
    """Fill `out` with the pixels of some channels; `first` is the channel of the first pixel."""
    for i in range(out.size):
        out[i] = pixels[np.uint64(at[i] - first)]


@njit(cache=True, nogil=True)
@no_type_check
def _add_pixels(
    pixels: Float64[np.ndarray, " lines"],
    j: float,
    lows: Float64[np.ndarray, " lines"],
    box: Float64[np.ndarray, " lines"],
    sums: Float64[np.ndarray, " lines"],
) -> None:
    """Add to `sums` pixel `j` of each box, counted from 0, where the box covers it."""
    for i in range(sums.size):
        sums[i] += pixels[i] if np.floor(lows[i]) + j < lows[i] + box[i] else 0.0


@njit(cache=True, nogil=True)
@no_type_check
def _cut_low(
    pixels: Float64[np.ndarray, " lines"], lows: Float64[np.ndarray, " lines"], sums: Float64[np.ndarray, " lines"]
) -> None:
    """Subtract the part of the first pixel that lies below the box."""
    for i in range(sums.size):
        sums[i] -= pixels[i] * (lows[i] - np.floor(lows[i]))


@njit(cache=True, nogil=True)
@no_type_check
def _cut_high(
    pixels: Float64[np.ndarray, " lines"],
    lows: Float64[np.ndarray, " lines"],
    box: Float64[np.ndarray, " lines"],
    sums: Float64[np.ndarray, " lines"],
) -> None:
    """Subtract the part of the last pixel that lies above the box."""
    for i in range(sums.size):
        high = lows[i] + box[i]
        sums[i] -= pixels[i] * (np.ceil(high) - high)


@njit(cache=True, nogil=True)
@no_type_check
def _add_row(
    sums: Float64[np.ndarray, " lines"],
    norms: Float64[np.ndarray, " lines"],
    weights: Float64[np.ndarray, " lines"],
    ceilings: tuple[float, float, float],
    snrs: Float64[np.ndarray, " lines"],
) -> None:
    """Add to the SNR of each line what it has in one row."""
    for i in range(snrs.size):
        sigmas = sums[i] * norms[i]
        snrs[i] += weights[i] * min(sigmas, ceilings[1]) if sigmas < ceilings[2] else 0.0


@njit(cache=True, nogil=True)
@no_type_check
def line_snrs(
    arrays: Arrays,
    position: int,
    lines: Float64[np.ndarray, "4 lines"],
    ceilings: tuple[float, float, float],
    snrs: Float64[np.ndarray, " lines"],
) -> None:
    """Fill `snrs` with what `line_snr` returns for each of several lines close to one another, to the last bit.

    All lines are taken a step further together, so that one instruction serves several of them.

    Args:
        arrays: the cadence.
        position: of the observation.
        lines: channel at mid-observation, drift there, curvature and box of each.
        ceilings: sigma at which pixels, and rows, are clipped, and from which a row does not count.
        snrs: receives the SNR.
    """
    count, box = snrs.size, lines[3]
    if count < FEWEST_TOGETHER:
        for i in range(count):
            snrs[i] = line_snr(arrays, position, lines[0, i], lines[1, i], lines[2, i], box[i], ceilings)
        return
    rows, most = arrays.lengths[position], math.ceil(np.max(box)) + 1
    lows, sums, norms, weights = np.empty(count), np.empty(count), np.empty(count), np.empty(count)
    pixels, row = np.empty(count), np.empty(0)
    edges, levels = np.empty((2, count), np.int64), np.empty(count, np.int64)
    for i in range(count):
        norms[i] = 1 / math.sqrt(box[i])
        levels[i] = min(arrays.weights.shape[1] - 1, max(0, math.ceil(math.log2(box[i]) - 0.5)))
    snrs[:] = 0.0
    for t in range(rows):
        _lows(lines, t - (rows - 1) / 2, lows)
        _edge_pixels(lows, box, edges)
        first = np.min(edges[0])
        needed = np.max(edges[1]) - first + most + 1
        if row.size < needed:
            row = np.empty(needed)
        _clip_row(arrays.sigmas[position, t], first, ceilings[0], row)
        sums[:] = 0.0
        for j in range(most):
            _take(row, edges[0], first - j, pixels)
            _add_pixels(pixels, float(j), lows, box, sums)
        _take(row, edges[0], first, pixels)
        _cut_low(pixels, lows, sums)
        _take(row, edges[1], first, pixels)
        _cut_high(pixels, lows, box, sums)
        for i in range(count):
            weights[i] = arrays.weights[position, levels[i], t]
        _add_row(sums, norms, weights, ceilings, snrs)


@njit(cache=True, nogil=True)
@no_type_check
def line_valid(
    sigmas: Float32[np.ndarray, "time freq"], channel: float, drift: float, curvature: float, box: float
) -> float:
    """Return the share of the pixels of a box along a line that were measured: in the array, and not exactly 0.

    Args:
        sigmas: one observation.
        channel: of the line's center at mid-observation.
        drift: channels per row, there.
        curvature: change of the drift, channels per row squared.
        box: width in channels.
    """
    rows, chans = sigmas.shape
    valid = total = 0
    for t in range(rows):
        at = t - (rows - 1) / 2
        low = channel + (drift + curvature / 2 * at) * at - box / 2 + 0.5
        first = math.floor(low + 0.25)  # without an edge pixel of which the box covers less than a quarter
        last = max(first + 1, math.ceil(low + box - 0.25))
        total += last - first
        for k in range(max(0, first), min(chans, last)):
            valid += sigmas[t, k] != 0
    return valid / total


@njit(cache=True, nogil=True)
@no_type_check
def locate(
    arrays: Arrays,
    position: int,
    middle: float,
    reach: float,
    drift: tuple[float, float, int],
    curvature: float,
    box: float,
    ceilings: tuple[float, float, float],
) -> tuple[float, float, float]:
    """Return (snr, channel, drift) of the brightest line near a place: searched coarsely, then finely.

    Args:
        arrays: the cadence.
        position: of the observation.
        middle: channel around which to search.
        reach: largest distance from it, channels.
        drift: drifts to try: the central one, the step, and the number of steps to either side.
        curvature: change of the drift, channels per row squared.
        box: width of the sums, in channels.
        ceilings: sigma at which pixels, and rows, are clipped, and from which a row does not count.
    """
    step = max(0.5, box / 4)
    count = math.ceil(reach / step)
    lines, i = np.empty((4, (2 * drift[2] + 1) * (2 * count + 1))), 0
    lines[2], lines[3] = curvature, box
    for d in range(-drift[2], drift[2] + 1):
        for k in range(-count, count + 1):
            lines[0, i], lines[1, i] = middle + k * step, drift[0] + d * drift[1]
            i += 1
    snrs = np.empty(i)
    line_snrs(arrays, position, lines, ceilings, snrs)
    i = np.argmax(snrs)
    best, channel, slope = snrs[i], lines[0, i], lines[1, i]
    coarse = channel
    for k in range(-2, 3):
        snr = line_snr(arrays, position, coarse + k * step / 4, slope, curvature, box, ceilings)
        if snr > best:
            best, channel = snr, coarse + k * step / 4
    return best, channel, slope


@njit(cache=True, nogil=True)
@no_type_check
def _line(
    middles: Float64[np.ndarray, " ons"],
    places: Float64[np.ndarray, " ons"],
    snrs: Float64[np.ndarray, " ons"],
    drift: float,
) -> tuple[float, float]:
    """Return the channel at row zero and the drift of the line through the ONs, fitted with weights SNR squared.

    Through a single ON the line has the given drift.
    """
    if middles.size == 1:
        return places[0] - drift * middles[0], drift
    total = along = across = 0.0
    for i in range(middles.size):
        total += max(snrs[i], 0.1) ** 2
        along += max(snrs[i], 0.1) ** 2 * middles[i]
        across += max(snrs[i], 0.1) ** 2 * places[i]
    along /= total
    across /= total
    up = over = 0.0
    for i in range(middles.size):
        up += max(snrs[i], 0.1) ** 2 * (middles[i] - along) * (places[i] - across)
        over += max(snrs[i], 0.1) ** 2 * (middles[i] - along) ** 2
    drift = up / over
    return across - drift * along, drift


@njit(cache=True, nogil=True)
@no_type_check
def _fit_width(
    arrays: Arrays, places: Float64[np.ndarray, " ons"], drift: float, box: float, ceilings: tuple[float, float, float]
) -> float:
    """Return the width with the highest median SNR in the ONs; move `places` to the maxima, half a box at most.

    The median is used so that a line crossing one of the ONs does not decide.
    """
    ons = arrays.ons
    best, width = -np.inf, 1.0
    snrs, at, centers = np.empty(len(ons)), np.empty(len(ons)), places.copy()
    for w in WIDTHS:
        own = math.hypot(w, drift)
        step = max(0.25, own / 4)
        count = max(1, math.ceil(box / 2 / step))
        lines, found = np.empty((4, 2 * count + 1)), np.empty(2 * count + 1)
        lines[1], lines[2], lines[3] = drift, 0.0, own
        for i in range(len(ons)):
            for k in range(-count, count + 1):
                lines[0, k + count] = centers[i] + k * step
            line_snrs(arrays, ons[i], lines, ceilings, found)
            k = np.argmax(found)
            snrs[i], at[i] = found[k], lines[0, k]
        if np.median(snrs) > best:
            best, width = np.median(snrs), w
            places[:] = at
    return width


@njit(cache=True, nogil=True)
@no_type_check
def _find_in_ons(
    hit: Any,
    home: int,
    arrays: Arrays,
    at: Float64[np.ndarray, " ons"],
    snrs: Float64[np.ndarray, " ons"],
    places: Float64[np.ndarray, " ons"],
    min_on_snr: float,
) -> tuple[float, float]:
    """Fill `snrs` and `places` with the signal in each ON, given a hit in the ON `home`; return its drift and box.

    The other ONs are searched by their distance from this one. The nearest gives the drift that predicts the next. If
    an ON is too faint, the search ends and the rest of `snrs` is left as it is.
    """
    ons, box = arrays.ons, max(1.0, hit["width"])
    rows, found = arrays.lengths[ons[home]], np.zeros(at.size, dtype=np.bool_)
    snrs[home], places[home], drift = locate(
        arrays, ons[home], hit["channel"], box, (hit["drift"], box / (2 * rows), 2), 0.0, box, CAPPED
    )
    found[home] = True
    for count in range(1, at.size):
        i, base = -1, home
        for k in range(1, at.size):
            other = (home + k) % at.size
            if not found[other] and (i < 0 or abs(at[other] - at[home]) < abs(at[i] - at[home])):
                i = other
        for other in range(at.size):
            if found[other] and abs(at[other] - at[i]) < abs(at[base] - at[i]):
                base = other
        gap = at[i] - at[base]
        # One observation gives the drift to about a box over its length; two give it far more precisely.
        slack = min(box * abs(gap) / rows, LONGEST_SLACK) + box if count == 1 else 1.5 * box + 4
        snrs[i], places[i], _ = locate(
            arrays,
            ons[i],
            places[base] + drift * gap,
            slack,
            (drift, box / arrays.lengths[ons[i]], 1),
            0.0,
            box,
            CAPPED,
        )
        found[i] = True
        if not snrs[i] >= min_on_snr - 1:  # fitting the box later may raise the SNR by one
            break
        if count < at.size - 1:
            drift = (places[i] - places[home]) / (at[i] - at[home])
    return drift, box


@njit(cache=True, nogil=True)
@no_type_check
def place_in(track: Float64[np.ndarray, " fields"], at_rows: float) -> tuple[float, float, float]:
    """Return channel, drift and box of a track at a time, in rows after the start of the first observation."""
    drift = track[DRIFT] + track[CURVATURE] * at_rows
    channel = track[START] + (track[DRIFT] + track[CURVATURE] / 2 * at_rows) * at_rows
    return channel, drift, math.hypot(track[WIDTH], drift)


@njit(cache=True, nogil=True)
@no_type_check
def _measure_offs(track: Float64[np.ndarray, " fields"], ceilings: tuple[float, float, float], arrays: Arrays) -> None:
    """Fill in the OFFs' SNR on a track, close to it and, unless that is bright already, in the wider neighborhood."""
    track[OFF_CLOSE], track[OFF_WIDE] = -np.inf, np.inf
    curvature = track[CURVATURE]
    for i in arrays.offs:
        place, drift, box = place_in(track, arrays.middles[i])
        step = box / arrays.lengths[i]
        track[SNR + 2 * i] = line_snr(arrays, i, place, drift, curvature, box, CROSSED)
        reach = max(CLOSE_CHANNELS, 2 * box)
        snr, _, _ = locate(arrays, i, place, reach, (drift, step, 1), curvature, box, CROSSED)
        track[OFF_CLOSE] = max(track[OFF_CLOSE], snr)
        track[OFF_WIDE] = min(track[OFF_WIDE], snr)
    if track[OFF_CLOSE] > BRIGHT:  # most interference ends here
        return
    track[OFF_WIDE] = np.inf
    for i in arrays.offs:
        place, drift, box = place_in(track, arrays.middles[i])
        step = box / arrays.lengths[i]
        reach = max(WIDE_CHANNELS, 4 * box)
        snr, _, _ = locate(arrays, i, place, reach, (drift, step, 2), curvature, box, ceilings)
        track[OFF_WIDE] = min(track[OFF_WIDE], snr)


@njit(cache=True, nogil=True)
@no_type_check
def follow(hit: Any, home: int, arrays: Arrays, min_on_snr: float) -> Float64[np.ndarray, " fields"]:
    """Return the track through a hit as a row of an array of tracks, in columns of the arrays.

    If an ON is fainter than `min_on_snr` the other observations are not measured and stay NaN.

    Args:
        hit: one record of `dedoppler.HIT`.
        home: the ON that holds it, counted from 0 among the ONs.
        arrays: the cadence.
        min_on_snr: SNR that each ON must have.
    """
    ons, middles = arrays.ons, arrays.middles
    count, at = ons.size, middles[ons]
    track = np.full(SNR + 2 * middles.size, np.nan)
    snrs, places = np.full(count, np.nan), np.zeros(count)
    drift, box = _find_in_ons(hit, home, arrays, at, snrs, places, min_on_snr)
    start, width, ceilings = places[home] - drift * at[home], box, CAPPED
    present = np.min(snrs) >= min_on_snr - 1  # NaN where the search ended early
    for _ in range(REFINEMENTS if present else 0):
        start, drift = _line(at, places, snrs, drift)
        ceilings = OPEN if np.min(snrs) > BRIGHT else CAPPED
        width = _fit_width(arrays, places, drift, box, ceilings)
        box = math.hypot(width, drift)
        for i in range(count):
            finer = (drift, box / (4 * arrays.lengths[ons[i]]), 2) if count == 1 else (drift, 0.0, 0)
            snrs[i], places[i], slope = locate(arrays, ons[i], places[i], box / 4, finer, 0.0, box, ceilings)
            drift = slope if count == 1 else drift
    if present:
        start, drift = _line(at, places, snrs, drift)
    track[START], track[DRIFT], track[CURVATURE], track[WIDTH], track[HIT_SNR] = start, drift, 0.0, width, hit["snr"]
    for i in range(count):
        track[SNR + 2 * ons[i]] = snrs[i]
    measure_valid(track, arrays)
    if present:
        describe(track, places, ceilings, arrays)
    return track


@njit(cache=True, nogil=True)
@no_type_check
def measure_valid(track: Float64[np.ndarray, " fields"], arrays: Arrays) -> None:
    """Fill in the share of the pixels on a track that were measured, in each observation."""
    for i in range(arrays.middles.size):
        place, drift, box = place_in(track, arrays.middles[i])
        track[VALID + 2 * i] = line_valid(arrays.sigmas[i, : arrays.lengths[i]], place, drift, track[CURVATURE], box)


@njit(cache=True, nogil=True)
@no_type_check
def describe(
    track: Float64[np.ndarray, " fields"],
    places: Float64[np.ndarray, " ons"],
    ceilings: tuple[float, float, float],
    arrays: Arrays,
) -> None:
    """Fill in how close to its line and how steady a track is in the ONs, and the OFFs' SNR.

    Args:
        track: with start, drift, curvature, width and the SNR in the ONs.
        places: channel at which the signal is in the middle of each ON.
        ceilings: sigma at which pixels, and rows, are clipped, and from which a row does not count.
        arrays: the cadence.
    """
    ons, sums = arrays.ons, arrays.sums
    bright_rows, track[RESIDUAL] = 0, 0.0
    for i in range(ons.size):
        rows = arrays.lengths[ons[i]]
        place, drift, box = place_in(track, arrays.middles[ons[i]])
        track[RESIDUAL] = max(track[RESIDUAL], abs(places[i] - place) / box)
        line_rows(arrays.sigmas[ons[i], :rows], places[i], drift, track[CURVATURE], box, ceilings[0], sums)
        bright_rows += np.sum(sums[:rows] > 0.5 * track[SNR + 2 * ons[i]] / math.sqrt(rows))
    track[STEADY] = bright_rows / np.sum(arrays.lengths[ons])
    _measure_offs(track, ceilings, arrays)


@njit(cache=True, nogil=True)
@no_type_check
def explains(known: Float64[np.ndarray, "tracks fields"], hit: Any, snr: float, home: int, arrays: Arrays) -> bool:
    """Return whether one of the tracks is the line of a hit.

    Args:
        known: tracks, in columns of the arrays.
        hit: one record of `dedoppler.HIT`.
        snr: of the hit in the ON `home`.
        home: the ON that holds it, counted from 0 among the ONs.
        arrays: the cadence.
    """
    position = arrays.ons[home]
    for k in range(known.shape[0]):
        there, drift, box = place_in(known[k], arrays.middles[position])
        box += hit["width"]
        near = abs(there - hit["channel"]) < box
        along = abs(drift - hit["drift"]) * arrays.lengths[position] < 2 * box
        if near and along and snr < 1.5 * known[k, SNR + 2 * position]:
            return True
    return False


@njit(cache=True, nogil=True)
@no_type_check
def follow_hits(
    hits: np.ndarray, home: int, arrays: Arrays, min_on_snr: float, known: Float64[np.ndarray, "tracks fields"]
) -> tuple[Float64[np.ndarray, "hits fields"], int]:
    """Follow every hit that no known track explains; return their tracks and the number of hits explained.

    Args:
        hits: records of `dedoppler.HIT` from one ON, in columns of the arrays.
        home: that ON, counted from 0 among the ONs.
        arrays: the cadence.
        min_on_snr: SNR that each ON must have.
        known: tracks found from earlier ONs, in columns of the arrays.
    """
    tracks = np.empty((hits.size, SNR + 2 * arrays.middles.size))
    count = 0
    for h in range(hits.size):
        if not explains(known, hits[h], hits[h]["snr"], home, arrays):
            tracks[count] = follow(hits[h], home, arrays, min_on_snr)
            count += 1
    return tracks[:count], hits.size - count
