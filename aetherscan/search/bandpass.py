"""Normalize the bandpass: turn power into units of its own noise, with mean zero and unit scatter.

Radiometer noise is proportional to power, so power is divided by its level and not merely shifted. A line then has the
same SNR at the edge of a coarse channel, where the filter passes half of the power, as in its middle. The level is
measured in every row in segments of `SEGMENT` channels; the gain, its inverse, is interpolated linearly between segment
centers. This removes the filter shape, gain steps, notches and the spectrum of a broadband burst alike, without any
knowledge of the recorder. The scatter is one number for each row of a block. Level and scatter are clipped moments
around a rough median, so that lines do not bias them. See decision 0004.

A pixel that was not measured becomes exactly 0, and a measured one never does, so that every later stage knows what its
sums rest on. Not measured are: NaN and infinity, power of zero or less, runs of one constant along channels or rows,
and a row that repeats the one before (see `_mark_unmeasured`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from aetherscan.cadence.geometry import Geometry, coarse_middles
from aetherscan.kernels import njit
from aetherscan.search.row_weights import LEVELS, row_noise, row_weights

SEGMENT, NARROWEST_SEGMENT = 1024, 128
"""Channels with one level in a row: 3 kHz, sixteen times the widest line searched for."""
SEGMENTS = 256
"""Fewest segments in a coarse channel, whose filter flanks are a twentieth of its width."""
SAMPLES = 31
CLIP = np.float32(3.5)
CLIPPED_SCATTER = np.float32(0.997)
"""Standard deviation of a unit normal distribution clipped at 3.5 sigma."""
MIN_INSIDE, MAX_SHIFT = np.float32(0.95), np.float32(0.3)
"""A segment is clipped around the level of the previous one if this fraction of it lies within the clip and its mean
is off by at most this many sigma."""
LIFTED = np.float32(1.0)
"""A segment this many sigma above its neighbors holds an emitter as wide as itself; it takes their level."""
BROKEN = np.float32(1e9)
"""Sigma that no emitter reaches: such a pixel is treated as missing."""
MEASURED = np.float32(np.finfo(np.float32).tiny)
"""Added to every measured pixel, of which it changes only an exact 0."""
LEAST_RUN, LONGEST_RUN, LOG_ODDS = 4, 64, 32.0
"""Equal neighbors that were not measured: so many that the odds of noise for such a run are exp(-32), 1e-14, per pixel,
and 4 to 64. Continuous noise has no equal neighbors; in quantized noise the share of equal pairs is measured."""
REPEATED = 0.9
"""Share of the pixels of a segment that equal those of the row before, from which the row is a copy of it."""
FAR_FROM_ZERO = np.float32(0.125)
"""Relative scatter of a row below which zero is 8 sigma from the level: no noise reaches it."""
SMALLEST_POWER, LARGEST_POWER = np.float32(1e-12), np.float32(1e12)
"""Power beyond these limits is scaled, because squares of smaller or larger numbers do not fit a float32."""
SPIKE_SNR, SPIKE_CEILING = 4.0, 3.0
"""SNR of a DC spike in every observation, of a sum over its rows in which pixels are clipped at so many sigma. A spike
that reaches it stands in at least a third of the rows; a fainter one is rejected by the ON/OFF rule like any line."""
LANES = 32
"""Partial sums of the moments. Their order is written out: a compiler that may reorder sums does so differently when it
compiles a kernel and when it loads one from the cache, and the last digits of a candidate then differ."""


def segment_channels(coarse_chans: int) -> int:
    """Return the number of channels with one level, for coarse channels of `coarse_chans` fine channels."""
    return min(SEGMENT, max(NARROWEST_SEGMENT, 1 << (coarse_chans // SEGMENTS).bit_length() >> 1))


@njit(cache=True, nogil=True)
@no_type_check
def _rough_level(row: Float32[np.ndarray, " freq"], samples: Float32[np.ndarray, " samples"]) -> tuple[float, float]:
    """Return the median and scatter of a few pixels of a segment; NaN where fewer than three are finite."""
    step = max(1, row.size // samples.size)
    count = 0
    for k in range(min(samples.size, row.size)):
        value = row[k * step]
        if np.isfinite(value):
            at = count
            while at > 0 and samples[at - 1] > value:
                samples[at] = samples[at - 1]
                at -= 1
            samples[at] = value
            count += 1
    if count < 3:
        return np.float32(np.nan), np.float32(np.nan)
    low, high = samples[count // 4], samples[count - 1 - count // 4]
    if high == low:  # coarsely quantized power
        low, high = samples[0], samples[count - 1]
    return samples[count // 2], (high - low) / np.float32(1.3)


@njit(cache=True, nogil=True)
@no_type_check
def _clipped_moments(row: Float32[np.ndarray, " freq"], level: float, reach: float) -> tuple[float, float, float]:
    """Return count, sum and sum of squares of the distances from `level` that are at most `reach`."""
    counts, totals, squares = np.zeros(LANES, np.float32), np.zeros(LANES, np.float32), np.zeros(LANES, np.float32)
    whole = row.size // LANES * LANES
    for first in range(0, whole, LANES):
        part = row[first : first + LANES]
        for k in range(LANES):
            distance = part[k] - level
            inside = abs(distance) <= reach
            clipped = distance if inside else np.float32(0)
            counts[k] += np.float32(1) if inside else np.float32(0)
            totals[k] += clipped
            squares[k] += clipped * clipped
    for f in range(whole, row.size):
        distance = row[f] - level
        if abs(distance) <= reach:
            counts[0] += np.float32(1)
            totals[0] += distance
            squares[0] += distance * distance
    count = total = square = np.float32(0)
    for k in range(LANES):
        count += counts[k]
        total += totals[k]
        square += squares[k]
    return count, total, square


@njit(cache=True, nogil=True)
@no_type_check
def _median(values: Float32[np.ndarray, " values"]) -> float:
    """Return the median of the finite values, NaN where there are none."""
    finite = np.sort(values[np.isfinite(values)])
    return finite[finite.size // 2] if finite.size else np.nan


@njit(cache=True, nogil=True)
@no_type_check
def _apply_gain(
    row: Float32[np.ndarray, " freq"], out: Float32[np.ndarray, " freq"], gain: float, slope: float, scatter: float
) -> None:
    """Write (power * gain - 1) / scatter, with a gain that changes by `slope` per channel.

    Where it is not finite the pixel was not measured and becomes 0.

    Args:
        row: power.
        out: sigma.
        gain: inverse of the level in the first channel.
        slope: change of the gain per channel.
        scatter: standard deviation of power * gain.
    """
    unit = np.float32(1) / scatter
    gain *= unit
    slope *= unit
    for f in range(row.size):
        sigmas = (row[f] * (gain + slope * np.float32(np.int32(f))) - unit) + MEASURED
        out[f] = sigmas if abs(sigmas) < BROKEN else np.float32(0)


@njit(cache=True, nogil=True, error_model="numpy")  # division by zero gives NaN, which means "no level"
@no_type_check
def _measure_levels(
    row: Float32[np.ndarray, " freq"],
    edges: Int64[np.ndarray, " edges"],
    levels: Float32[np.ndarray, " segments"],
    scatters: Float32[np.ndarray, " segments"],
) -> None:
    """Fill in the level and the relative scatter of every segment of a row; NaN where there is none.

    Args:
        row: power.
        edges: first channel of each segment, and the end of the last.
        levels: filled with the mean power of each segment.
        scatters: filled with the standard deviation over the level.
    """
    samples = np.empty(SAMPLES, dtype=np.float32)
    level = scatter = np.float32(np.nan)
    for s in range(levels.size):
        segment = row[edges[s] : edges[s + 1]]
        # The previous segment usually gives a good clip; otherwise sample the pixels.
        count, total, squares = _clipped_moments(segment, level, CLIP * scatter)
        if not (count > MIN_INSIDE * segment.size and abs(total) < MAX_SHIFT * scatter * count):
            level, scatter = _rough_level(segment, samples)
            count, total, squares = _clipped_moments(segment, level, CLIP * scatter)
        levels[s] = scatters[s] = np.nan
        if count > 0:
            mean = total / count
            level += mean
            scatter = np.sqrt(max(squares / count - mean * mean, np.float32(0))) / CLIPPED_SCATTER
            levels[s], scatters[s] = level, scatter / level


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _gain(levels: Float32[np.ndarray, " segments"], s: int, spread: float) -> float:
    """Return the inverse level of segment `s`, or the median of its neighbors' if it is lifted; NaN without a level."""
    level, neighbors = levels[s], levels[max(0, s - 2) : s + 3]
    if not level <= np.min(neighbors) * (1 + LIFTED * spread):
        median = _median(neighbors)
        if not level <= median * (1 + LIFTED * spread):
            level = median
    return np.float32(1 / level) if level > 0 else np.float32(np.nan)


@njit(cache=True, nogil=True)
@no_type_check
def _flag(
    row: Float32[np.ndarray, " freq"],
    before: Float32[np.ndarray, " freq"],
    after: Float32[np.ndarray, " freq"],
    flags: UInt8[np.ndarray, " padded"],
) -> None:
    """Flag pixels: 1 where the left neighbor is equal, plus 2 where the row before or after is, plus 4 if <= 0."""
    for f in range(1, row.size):
        left, same = np.uint8(row[f] == row[f - 1]), np.uint8(row[f] == before[f]) | np.uint8(row[f] == after[f])
        flags[f] = left | (same << np.uint8(1)) | (np.uint8(row[f] <= np.float32(0)) << np.uint8(2))
    flags[0] = np.uint8(row[0] == before[0] or row[0] == after[0]) << np.uint8(1) | np.uint8(row[0] <= 0) << np.uint8(2)


@njit(cache=True, nogil=True)
@no_type_check
def _count_flags(
    flags: UInt8[np.ndarray, " padded"], edges: Int64[np.ndarray, " edges"], counts: Int64[np.ndarray, "segments kinds"]
) -> None:
    """Count the flags of each kind in each segment. Eight pixels without any are passed over at once."""
    counts[:] = 0
    words = flags.view(np.uint64)
    for w in range(words.size):
        if words[w]:
            for f in range(8 * w, 8 * w + 8):
                if flags[f]:
                    s = min(f // edges[1], counts.shape[0] - 1)
                    counts[s, 0] += flags[f] & 1
                    counts[s, 1] += flags[f] >> 1 & 1
                    counts[s, 2] += flags[f] >> 2


@njit(cache=True, nogil=True)
@no_type_check
def _longest_noise(pairs: Int64[np.ndarray, " segments"], segment: int) -> int:
    """Return the shortest run of equal pixels that noise does not make, given the equal neighbors in each segment.

    The half of the segments with the fewest of them is taken for noise.
    """
    half = (pairs.size + 1) // 2
    share = (np.sum(np.sort(pairs)[:half]) + 1) / (half * segment)
    if share >= 1:
        return LONGEST_RUN
    return min(LONGEST_RUN, max(LEAST_RUN, 1 + math.ceil(LOG_ODDS / -math.log(share))))


@njit(cache=True, nogil=True)
@no_type_check
def _mark_along(row: Float32[np.ndarray, " freq"], least: int, marked: Float32[np.ndarray, " freq"]) -> None:
    """Set to NaN in `marked` every run of at least `least` equal pixels along a row."""
    first = 0
    for f in range(1, row.size + 1):
        if f == row.size or row[f] != row[first]:
            if f - first >= least:
                marked[first:f] = np.nan
            first = f


@njit(cache=True, nogil=True)
@no_type_check
def _in_run(column: Float32[np.ndarray, " time"], t: int, least: int) -> bool:
    """Return whether row `t` of a channel is in a run of at least `least` equal rows."""
    first = last = t
    while first > 0 and column[first - 1] == column[t]:
        first -= 1
    while last < column.size - 1 and column[last + 1] == column[t]:
        last += 1
    return last - first + 1 >= least


@njit(cache=True, nogil=True)
@no_type_check
def _runs_across(
    power: Float32[np.ndarray, "time _"], start: int, t: int, flags: UInt8[np.ndarray, " padded"], least: int
) -> bool:
    """Return whether any pixel of row `t` is in a run of at least `least` equal rows.

    Args:
        power: raw.
        start: first column.
        t: row.
        flags: of the row.
        least: rows in a run.
    """
    words = flags.view(np.uint64)
    for w in range(words.size):
        if words[w]:
            for f in range(8 * w, 8 * w + 8):
                if flags[f] & 2 and _in_run(power[:, start + f], t, least):
                    return True
    return False


@njit(cache=True, nogil=True)
@no_type_check
def _mark_across(
    power: Float32[np.ndarray, "time _"],
    start: int,
    t: int,
    flags: UInt8[np.ndarray, " padded"],
    least: int,
    marked: Float32[np.ndarray, " freq"],
) -> None:
    """Set to NaN in `marked` every pixel of row `t` in a run of at least `least` equal rows.

    Args:
        power: raw.
        start: first column.
        t: row.
        flags: of the row.
        least: rows in a run.
        marked: the row.
    """
    for f in range(marked.size):
        if flags[f] & 2 and _in_run(power[:, start + f], t, least):
            marked[f] = np.nan


@njit(cache=True, nogil=True)
@no_type_check
def _mark_unmeasured(
    power: Float32[np.ndarray, "time _"],
    start: int,
    t: int,
    edges: Int64[np.ndarray, " edges"],
    flags: UInt8[np.ndarray, " padded"],
    counts: Int64[np.ndarray, "segments kinds"],
    marked: Float32[np.ndarray, " freq"],
) -> bool:
    """Copy a row to `marked` with NaN where nothing was measured; return False, without a copy, if all was.

    Masks are written as zeros or as one constant, along channels (a notch) or along rows (a channel with its mean);
    dropped rows as zeros, a constant or a copy of the row before. Zero and less may be measured only where they are
    within the noise (few bits, a burst); there, too, a run of zeros is a mask.

    Args:
        power: raw.
        start: first column.
        t: row.
        edges: first channel of each segment, and the end of the last.
        flags: scratch space, as wide as the row and up to eight more.
        counts: scratch space for the flags of each segment.
        marked: receives the copy.
    """
    last, stop = power.shape[0] - 1, start + marked.size
    row = power[t, start:stop]
    before, after = power[t - 1 if t else min(1, last), start:stop], power[t + 1 if t < last else last - 1, start:stop]
    _flag(row, before, after, flags)
    _count_flags(flags, edges, counts)
    least = _longest_noise(counts[:, 0], edges[1])
    # In continuous noise, too, a pixel of some rows equals its neighbor: a copy is made only where one will be marked.
    most_across = np.max(counts[:, 1])
    across = most_across > 0 and (most_across > REPEATED * edges[1] or _runs_across(power, start, t, flags, least))
    if 2 * np.max(counts[:, 0]) < least - 1 and not across and np.max(counts[:, 2]) == 0:
        return False
    marked[:] = row
    _mark_along(row, least, marked)
    if least <= power.shape[0]:
        _mark_across(power, start, t, flags, least, marked)
    for s in range(counts.shape[0]):
        part, often = slice(edges[s], edges[s + 1]), REPEATED * (edges[s + 1] - edges[s])
        if t > 0 and counts[s, 1] > often and np.sum(row[part] == before[part]) > often:
            marked[part] = np.nan
    level, scatter = _rough_level(marked, np.empty(SAMPLES, np.float32))
    if scatter < FAR_FROM_ZERO * level:
        for f in range(row.size):
            if row[f] <= 0:
                marked[f] = np.nan
    return True


@njit(cache=True, nogil=True)
@no_type_check
def _scaled(row: Float32[np.ndarray, " freq"], copy: Float32[np.ndarray, " freq"]) -> Float32[np.ndarray, " freq"]:
    """Return the row, or a copy scaled by a power of two if its power is very small or large; that changes no digit."""
    level = np.float32(0)
    for f in range(0, row.size, max(1, row.size // SAMPLES)):
        level = max(level, row[f]) if row[f] < np.inf else level
    if level == 0 or SMALLEST_POWER < level < LARGEST_POWER:
        return row
    factor = np.float32(2.0 ** -math.floor(math.log2(level)))
    for f in range(row.size):
        copy[f] = row[f] * factor
    return copy


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def normalize_bandpass(
    power: Float32[np.ndarray, "time freq"],
    start: int,
    out: Float32[np.ndarray, "time block"],
    segment: int = SEGMENT,
    coarse: tuple[int, int] = (0, 0),
) -> Float32[np.ndarray, " time"]:
    """Fill `out` with `power` from column `start` on, in units of its noise; return the relative scatter of each row.

    Pixels that were not measured become 0, and no others. A row without power or without scatter has scatter 0.

    Args:
        power: linear, with at least as many columns as `start` and the width of `out` together.
        start: column of `power` that goes to the first column of `out`.
        out: receives sigma.
        segment: channels with one level (`segment_channels`).
        coarse: width of a coarse channel in channels, and a column of `out` in which one begins; (0, 0) if there are
            none.
    """
    rows, chans = out.shape
    segments = max(1, chans // segment)
    edges = np.arange(segments + 1) * segment
    edges[segments] = chans
    levels, scatters, gains = np.empty((3, segments), dtype=np.float32)
    row_scatter = np.zeros(rows, dtype=np.float32)
    copy, counts = np.empty(chans, np.float32), np.empty((segments, 3), np.int64)
    flags = np.zeros(-(-chans // 8) * 8, np.uint8)
    for t in range(rows):
        masked = _mark_unmeasured(power, start, t, edges, flags, counts, copy)
        row = _scaled(copy if masked else power[t, start : start + chans], copy)
        _measure_levels(row, edges, levels, scatters)
        spread = _median(scatters)
        if not spread > 0 or not _median(levels) > 0:
            out[t] = 0
            continue
        row_scatter[t] = spread
        for s in range(segments):
            gains[s] = _gain(levels, s, spread)
        for s in range(segments):
            # Two halves: from the center of the previous segment to this center, and on to the next one. The level has
            # a kink where a coarse channel begins or ends, so each side is extrapolated to such an edge.
            first, last = edges[s], edges[s + 1]
            center = (first + last) // 2
            rise = (gains[s] - gains[max(0, s - 1)]) / np.float32(segment)
            fall = (gains[min(segments - 1, s + 1)] - gains[s]) / np.float32(segment)
            # Beside a segment without a level there is nothing to interpolate to.
            rise = np.float32(0) if np.isnan(rise) else rise
            fall = np.float32(0) if np.isnan(fall) else fall
            if s == 0 or (coarse[0] and (first - coarse[1]) % coarse[0] == 0):
                rise = fall
            if s == segments - 1 or (coarse[0] and (last - coarse[1]) % coarse[0] == 0):
                fall = rise
            entry = gains[s] - rise * np.float32(center - first)
            _apply_gain(row[first:center], out[t, first:center], entry, rise, spread)
            _apply_gain(row[center:last], out[t, center:last], gains[s], fall, spread)
    return row_scatter


@njit(cache=True, nogil=True)
@no_type_check
def count_unmeasured(sigmas: Float32[np.ndarray, "time freq"]) -> Int64[np.ndarray, " freq"]:
    """Return in how many rows each channel was not measured."""
    counts = np.zeros(sigmas.shape[1], np.int64)
    for t in range(sigmas.shape[0]):
        row = sigmas[t]
        for f in range(counts.size):
            counts[f] += row[f] == 0
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizedBlock:
    """Part of the band of a cadence in units of its noise, with the noise and the weight of every row.

    Functions that take a block take and return file channels; `first` is subtracted inside them.
    """

    sigmas: Float32[np.ndarray, "obs time freq"]
    noise: Float32[np.ndarray, "obs level time"]  # of the row's sums at each binning (`row_noise`)
    weights: Float32[np.ndarray, "obs level time"]  # of the row's sums at each binning (`row_weights`)
    first: int = 0  # file channel of column 0
    overlap: tuple[int, int] = (0, 0)  # columns at either end whose hits belong to the neighboring blocks
    spikes: tuple[int, ...] = ()  # columns of DC spikes, which are set to zero
    lengths: tuple[int, ...]  # rows of each observation; those that follow are zero, with weight zero

    def observation(self, position: int) -> tuple[Float32[np.ndarray, "time freq"], Float32[np.ndarray, "level time"]]:
        """Return the rows of one observation, and their weights."""
        rows = self.lengths[position]
        return self.sigmas[position, :rows], np.ascontiguousarray(self.weights[position, :, :rows])


def normalize_block(
    power: Float32[np.ndarray, "obs _ freq"],
    cadence: Geometry,
    column: int = 0,
    out: Float32[np.ndarray, "obs time block"] | None = None,
    channel: int = 0,
    *,
    dc_spikes: bool = True,
) -> NormalizedBlock:
    """Return observations in units of their noise, with the DC spikes of coarse channels set to zero.

    A coarse channel whose middle holds no spike is left as it is.

    Args:
        power: linear.
        cadence: of the observations.
        column: of `power`, in which the result begins.
        out: receives sigma; its width is that of the result. None: as wide as `power`.
        channel: number of that column's channel in the band, from which the places of DC spikes follow.
        dc_spikes: look for DC spikes.
    """
    lengths = cadence.lengths
    sigmas = np.empty_like(power[:, : cadence.rows]) if out is None else out
    header = cadence.headers[0]
    noise, weights = np.ones((2, len(lengths), LEVELS, cadence.rows), np.float32)
    weights[:] = 0
    segment = segment_channels(header.nfpc or header.coarse_chans)
    coarse = (header.coarse_chans, -channel % header.coarse_chans)
    scatters = [
        normalize_bandpass(observed[:rows], column, normalized[:rows], segment, coarse)
        for observed, normalized, rows in zip(power, sigmas, lengths, strict=True)
    ]
    middles = coarse_middles(header, channel, channel + sigmas.shape[-1]) if dc_spikes else []
    for normalized, rows in zip(sigmas, lengths, strict=True):
        normalized[rows:] = 0
    spikes = find_spikes(sigmas, cadence, middles)
    sigmas[..., spikes] = 0
    for i, rows in enumerate(lengths):
        noise[i, :, :rows] = row_noise(sigmas[i, :rows])
        weights[i, :, :rows] = row_weights(noise[i, :, :rows], scatters[i])
    return NormalizedBlock(sigmas=sigmas, noise=noise, weights=weights, spikes=tuple(spikes), lengths=lengths)


def find_spikes(sigmas: Float32[np.ndarray, "obs time freq"], cadence: Geometry, middles: Sequence[int]) -> list[int]:
    """Return the columns of the DC spikes at `middles`: each middle where one stands, and its two neighbors.

    A spike does not drift, and it is alike in ONs and OFFs: one of the three columns is bright in every observation
    in which it was measured, an OFF among them. A tone from the target is not in the OFFs.

    Args:
        sigmas: normalized observations.
        cadence: their geometry.
        middles: columns of the middles of coarse channels; they may lie one column outside.
    """
    columns = np.add.outer(middles, (-1, 0, 1)).reshape(-1, 3).astype(int)
    inside = (columns >= 0) & (columns < sigmas.shape[-1])
    pixels = sigmas[..., np.where(inside, columns, 0)]
    measured = pixels != 0
    snr = np.minimum(pixels, SPIKE_CEILING).sum(axis=1) / np.sqrt(np.maximum(measured.sum(axis=1), 1))
    known = measured.any(axis=1)
    bright = ((snr > SPIKE_SNR) | ~known).all(axis=0) & known[list(cadence.on)].any(axis=0)
    stands = (bright & known[list(cadence.off)].any(axis=0) & inside).any(axis=-1)
    return [int(column) for column in columns[stands][inside[stands]]]
