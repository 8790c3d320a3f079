"""Follow one signal through the six observations of a cadence, and measure it in each.

The ONs are searched where the brightest hit says the signal should be; a straight line through what they found says,
far better than any one of them, how fast the signal drifts. The OFFs are then measured on that line, where a signal
from the target must be absent and a side lobe shows faintly in all three; and a second time nearby, where an emitter
that wanders may be. A row of an OFF counts up to 3 sigmas: what merely crosses the line is not on it.
"""

import math
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float32, Float64
from numba import njit

from aetherscan.search.dedoppler import CEILING

WIDTHS = np.array([1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64], dtype=np.float64)
LONGEST_SLACK = 24.0
"""Channels a signal may stray from the straight line between two ONs before it is another signal."""
REFINEMENTS = 2
NEAREST = 8.0
"""Channels to either side of a track, or two boxes, in which an OFF must not hold a line of the same drift either."""
AROUND = 64.0
"""Channels to either side, or four boxes, in which an emitter that wanders is, between one ON and the next."""
CAPPED, OPEN, CROSSED = (float(CEILING), 1e9), (1e9, 1e9), (float(CEILING), 3.0)
"""What a pixel and a row of a box count up to: in ONs, in ONs that all are `BRIGHT`, in OFFs."""
BRIGHT = 20.0
"""SNR from which the pixels of a narrow line come near the ceiling: cut there, it would seem wider than it is."""
OBSERVATIONS = 6
FIELDS = (
    "start",
    "drift",
    "width",
    "hit_snr",
    "residual",
    "steady",
    "off_near",
    "off_around",
    *(f"snr_{i}" for i in range(OBSERVATIONS)),
)
"""A track as a row of numbers, while there are many of them; see `Track`."""
START, DRIFT, WIDTH, HIT_SNR, RESIDUAL, STEADY, OFF_NEAR, OFF_AROUND, SNR = range(9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One signal through a cadence, in channels of the searched array and seconds after the first row."""

    start: float  # channel of its centre at the start of the first observation
    drift: float  # channels per row
    width: float  # channels, without the smear of the drift inside a row
    hit_snr: float  # of the hit it began with
    residual: float  # furthest an ON lies from the straight line, in boxes
    steady: float  # share of the ONs' rows that show at least half of the mean
    off_near: float  # SNR of the brightest line near the track in an OFF
    off_around: float  # SNR of the brightest line around the track, in the OFF where it is faintest
    snr: tuple[float, ...]  # one per observation, on the track

    @property
    def box(self) -> float:
        """Channels that its power takes in one row: width and smear."""
        return math.hypot(self.width, self.drift)

    def channel(self, at_rows: float) -> float:
        """Return the channel, so many rows after the start of the first observation."""
        return self.start + self.drift * at_rows


def as_track(row: Float64[np.ndarray, " fields"], first_channel: float = 0.0) -> Track:
    """Return a row of `follow` as a `Track`, counted in channels of a band in which the array starts there."""
    values = [float(value) for value in row]
    names = dict(zip(FIELDS[:SNR], values[:SNR], strict=True))
    return Track(**{**names, "start": names["start"] + first_channel}, snr=tuple(values[SNR:]))


@njit(cache=True, nogil=True)
@no_type_check
def line_rows(
    sigmas: Float32[np.ndarray, "time freq"],
    channel: float,
    drift: float,
    box: float,
    pixel_ceiling: float,
    out: Float64[np.ndarray, " time"],
) -> None:
    """Fill `out` with each row's sum over a box along a line through `channel` half-way through, in sigmas.

    The box's edges take fractions of channels. What lies outside the array counts as noise of value zero.
    """
    rows, chans = sigmas.shape
    norm = 1 / math.sqrt(box)
    for t in range(rows):
        low = channel + drift * (t - (rows - 1) / 2) - box / 2 + 0.5
        high = low + box
        total = 0.0
        first, last = max(0, math.floor(low)), min(chans, math.ceil(high))
        for k in range(first, last):
            total += min(pixel_ceiling, sigmas[t, k])
        # The pixels at the two edges count by the share of them that is inside.
        if first < last:
            if first < low:
                total -= min(pixel_ceiling, sigmas[t, first]) * (low - first)
            if last > high:
                total -= min(pixel_ceiling, sigmas[t, last - 1]) * (last - high)
        out[t] = total * norm


@njit(cache=True, nogil=True)
@no_type_check
def line_snr(
    sigmas: Float32[np.ndarray, "time freq"],
    weights: Float32[np.ndarray, "level time"],
    channel: float,
    drift: float,
    box: float,
    ceilings: tuple[float, float],
    sums: Float64[np.ndarray, " time"],
) -> float:
    """Return the SNR of a box along a line, pixels and rows counted up to a ceiling each; `sums` is room for them."""
    level = min(weights.shape[0] - 1, max(0, math.ceil(math.log2(box) - 0.5)))
    line_rows(sigmas, channel, drift, box, ceilings[0], sums)
    total = 0.0
    for t in range(sums.size):
        total += weights[level, t] * min(sums[t], ceilings[1])
    return total


@njit(cache=True, nogil=True)
@no_type_check
def _locate(
    sigmas: Float32[np.ndarray, "time freq"],
    weights: Float32[np.ndarray, "level time"],
    around: float,
    reach: float,
    drift: float,
    drift_step: float,
    drift_steps: int,
    box: float,
    ceilings: tuple[float, float],
    sums: Float64[np.ndarray, " time"],
) -> tuple[float, float, float]:
    """Return (snr, channel, drift) of the brightest line within `reach` channels: coarsely, then finely."""
    best, place, slope = -np.inf, around, drift
    step = max(0.5, box / 4)
    count = math.ceil(reach / step)
    for d in range(-drift_steps, drift_steps + 1):
        for k in range(-count, count + 1):
            snr = line_snr(sigmas, weights, around + k * step, drift + d * drift_step, box, ceilings, sums)
            if snr > best:
                best, place, slope = snr, around + k * step, drift + d * drift_step
    coarse = place
    for k in range(-2, 3):
        snr = line_snr(sigmas, weights, coarse + k * step / 4, slope, box, ceilings, sums)
        if snr > best:
            best, place = snr, coarse + k * step / 4
    return best, place, slope


@njit(cache=True, nogil=True)
@no_type_check
def _line(
    middles: Float64[np.ndarray, " ons"], places: Float64[np.ndarray, " ons"], snrs: Float64[np.ndarray, " ons"]
) -> tuple[float, float]:
    """Return channel at row zero, and drift, of the straight line through the ONs, weighed by their SNR squared."""
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
    sigmas: Float32[np.ndarray, "obs time freq"],
    weights: Float32[np.ndarray, "obs level time"],
    ons: tuple[int, int, int],
    places: Float64[np.ndarray, " ons"],
    drift: float,
    box: float,
    ceilings: tuple[float, float],
    sums: Float64[np.ndarray, " time"],
) -> float:
    """Return the width whose median SNR in the ONs is highest, and move `places` to where that is, half a box at most.

    The median: a line that crosses one of the ONs must not decide.
    """
    best, width = -np.inf, 1.0
    snrs, at, centres = np.empty(len(ons)), np.empty(len(ons)), places.copy()
    for w in WIDTHS:
        own = math.hypot(w, drift)
        step = max(0.25, own / 4)
        count = max(1, math.ceil(box / 2 / step))
        for i in range(len(ons)):
            snrs[i] = -np.inf
            for k in range(-count, count + 1):
                place = centres[i] + k * step
                snr = line_snr(sigmas[ons[i]], weights[ons[i]], place, drift, own, ceilings, sums)
                if snr > snrs[i]:
                    snrs[i], at[i] = snr, place
        if np.median(snrs) > best:
            best, width = np.median(snrs), w
            places[:] = at
    return width


@njit(cache=True, nogil=True)
@no_type_check
def _find_in_ons(
    hit: Any,
    home: int,
    sigmas: Float32[np.ndarray, "obs time freq"],
    weights: Float32[np.ndarray, "obs level time"],
    ons: tuple[int, int, int],
    at: Float64[np.ndarray, " ons"],
    snrs: Float64[np.ndarray, " ons"],
    places: Float64[np.ndarray, " ons"],
    min_on_snr: float,
    sums: Float64[np.ndarray, " time"],
) -> tuple[float, float]:
    """Fill `snrs` and `places` with where a hit of the ON `home` is in each of them; return its drift and box.

    The nearer of the other two first: what it says of the drift leads to the third. Where it is not, the search ends.
    """
    rows, box = sums.size, max(1.0, hit["width"])
    snrs[home], places[home], drift = _locate(
        sigmas[ons[home]], weights[ons[home]], hit["channel"], box, hit["drift"], box / (2 * rows), 2, box, CAPPED,
        sums,
    )  # fmt: skip
    nearer, third = (home + 1) % 3, (home + 2) % 3
    if abs(at[third] - at[home]) < abs(at[nearer] - at[home]):
        nearer, third = third, nearer
    for i in (nearer, third):
        base = nearer if i == third and abs(at[nearer] - at[i]) < abs(at[home] - at[i]) else home
        gap = at[i] - at[base]
        # One observation knows the drift to about a box over its length; two of them far better.
        slack = min(box * abs(gap) / rows, LONGEST_SLACK) + box if i == nearer else 1.5 * box + 4
        snrs[i], places[i], _ = _locate(
            sigmas[ons[i]], weights[ons[i]], places[base] + drift * gap, slack, drift, box / rows, 1, box, CAPPED,
            sums,
        )  # fmt: skip
        if not snrs[i] >= min_on_snr - 1:  # its own box may still bring it up by one
            break
        if i == nearer:
            drift = (places[i] - places[base]) / gap
    return drift, box


@njit(cache=True, nogil=True)
@no_type_check
def _look_in_offs(
    track: Float64[np.ndarray, " fields"],
    box: float,
    ceilings: tuple[float, float],
    sigmas: Float32[np.ndarray, "obs time freq"],
    weights: Float32[np.ndarray, "obs level time"],
    middles: Float64[np.ndarray, " obs"],
    ons: tuple[int, int, int],
    sums: Float64[np.ndarray, " time"],
) -> None:
    """Fill in what the OFFs hold on a track, near it, and, unless that says enough, around it."""
    track[OFF_NEAR], track[OFF_AROUND] = -np.inf, np.inf
    drift, step = track[DRIFT], box / sums.size
    for i in range(len(middles)):
        if i not in ons:
            place = track[START] + drift * middles[i]
            track[SNR + i] = line_snr(sigmas[i], weights[i], place, drift, box, CROSSED, sums)
            reach = max(NEAREST, 2 * box)
            snr, _, _ = _locate(sigmas[i], weights[i], place, reach, drift, step, 1, box, CROSSED, sums)
            track[OFF_NEAR] = max(track[OFF_NEAR], snr)
            track[OFF_AROUND] = min(track[OFF_AROUND], snr)
    if track[OFF_NEAR] > BRIGHT:  # so is most of what is not from the target
        return
    track[OFF_AROUND] = np.inf
    for i in range(len(middles)):
        if i not in ons:
            place, reach = track[START] + drift * middles[i], max(AROUND, 4 * box)
            snr, _, _ = _locate(sigmas[i], weights[i], place, reach, drift, step, 2, box, ceilings, sums)
            track[OFF_AROUND] = min(track[OFF_AROUND], snr)


@njit(cache=True, nogil=True)
@no_type_check
def follow(
    hit: Any,
    position: int,
    sigmas: Float32[np.ndarray, "obs time freq"],
    weights: Float32[np.ndarray, "obs level time"],
    middles: Float64[np.ndarray, " obs"],
    ons: tuple[int, int, int],
    min_on_snr: float,
) -> Float64[np.ndarray, " fields"]:
    """Return the track through a hit of observation `position` as a row of `FIELDS`.

    Where an ON turns out fainter than `min_on_snr` the rest is not looked for, and stays NaN.

    Args:
        hit: one record of `dedoppler.HIT`.
        position: of the observation that holds it; one of the ONs.
        sigmas: six equalized observations of the same channels.
        weights: of their rows (`row_weights`).
        middles: middle of each observation, in rows after the start of the first.
        ons: positions of the ONs, in time order.
        min_on_snr: what each ON must show.
    """
    count, rows = len(ons), sigmas.shape[1]
    sums, track = np.empty(rows), np.full(len(FIELDS), np.nan)
    snrs, places, at = np.full(count, np.nan), np.zeros(count), np.empty(count)
    for i in range(count):
        at[i] = middles[ons[i]]
    home = ons.index(position)
    drift, box = _find_in_ons(hit, home, sigmas, weights, ons, at, snrs, places, min_on_snr, sums)
    start, width, ceilings = places[home] - drift * at[home], box, CAPPED
    present = np.min(snrs) >= min_on_snr - 1  # NaN where the search ended early
    for _ in range(REFINEMENTS if present else 0):
        start, drift = _line(at, places, snrs)
        ceilings = OPEN if np.min(snrs) > BRIGHT else CAPPED
        width = _fit_width(sigmas, weights, ons, places, drift, box, ceilings, sums)
        box = math.hypot(width, drift)
        for i in range(count):
            snrs[i], places[i], _ = _locate(
                sigmas[ons[i]], weights[ons[i]], places[i], box / 4, drift, 0.0, 0, box, ceilings, sums
            )
    if present:
        start, drift = _line(at, places, snrs)
    track[START], track[DRIFT], track[WIDTH], track[HIT_SNR] = start, drift, width, hit["snr"]
    for i in range(count):
        track[SNR + ons[i]] = snrs[i]
    if not present:
        return track
    lit, track[RESIDUAL] = 0, 0.0
    for i in range(count):
        track[RESIDUAL] = max(track[RESIDUAL], abs(places[i] - start - drift * at[i]) / box)
        line_rows(sigmas[ons[i]], places[i], drift, box, ceilings[0], sums)
        lit += np.sum(sums > 0.5 * snrs[i] / math.sqrt(rows))
    track[STEADY] = lit / (rows * count)
    _look_in_offs(track, box, ceilings, sigmas, weights, middles, ons, sums)
    return track


@njit(cache=True, nogil=True)
@no_type_check
def follow_hits(
    hits: np.ndarray,
    position: int,
    sigmas: Float32[np.ndarray, "obs time freq"],
    weights: Float32[np.ndarray, "obs level time"],
    middles: Float64[np.ndarray, " obs"],
    ons: tuple[int, int, int],
    min_on_snr: float,
    known: Float64[np.ndarray, "tracks fields"],
) -> tuple[Float64[np.ndarray, "hits fields"], int]:
    """Follow every hit that no `known` track explains; return their tracks and how many hits were explained."""
    found = np.empty((hits.size, len(FIELDS)))
    count = 0
    for h in range(hits.size):
        hit = hits[h]
        explained = False
        for k in range(known.shape[0]):
            there = known[k, START] + known[k, DRIFT] * middles[position]
            box = math.hypot(known[k, WIDTH], known[k, DRIFT]) + hit["width"]
            near = abs(there - hit["channel"]) < box
            along = abs(known[k, DRIFT] - hit["drift"]) * sigmas.shape[1] < 2 * box
            if near and along and hit["snr"] < 1.5 * known[k, SNR + position]:
                explained = True
                break
        if not explained:
            found[count] = follow(hit, position, sigmas, weights, middles, ons, min_on_snr)
            count += 1
    return found[:count], hits.size - count
