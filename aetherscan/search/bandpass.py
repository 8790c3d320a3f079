"""Flatten a stretch of band: what is left is noise of unit scatter around zero, and whatever stands above it.

Noise is multiplicative, so power is divided by its level, never only shifted: at the edge of a coarse channel, where
the filter passes half, a line of the same SNR then looks as in the middle. The level is measured in each row in blocks
of `BLOCK` channels, and its inverse drawn straight between their centres; so filter shape, gain steps, notches and a
burst's own spectrum all go the same way, and nothing needs to be known about the recorder. The scatter is one number
for each row of the stretch. Both come from clipped moments around a rough median, so that lines do not move them.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Int64
from numba import njit

from aetherscan.cadence.geometry import Geometry, spikes
from aetherscan.search.dedoppler import row_noise, row_weights

BLOCK, NARROWEST_BLOCK = 1024, 128
"""Channels with one level in a row: 3 kHz, sixteen times the widest line that is looked for."""
BLOCKS = 256
"""To a coarse channel at least: its filter's flanks are a twentieth of it wide."""
SAMPLES = 31
CLIP = np.float32(3.5)
CLIPPED_SCATTER = np.float32(0.997)
"""Standard deviation of a normal distribution that is cut at 3.5 sigmas."""
MOSTLY, AT_HOME = np.float32(0.95), np.float32(0.3)
"""Share of a block that must lie within the clip, and sigmas that its mean may be off, to trust the block before."""
LIFTED = np.float32(1.0)
"""A block that stands so many sigmas above its neighbours holds an emitter as wide as itself: theirs counts."""
BROKEN = np.float32(1e9)
"""Sigmas that no emitter reaches: such a pixel is as good as missing."""
REASSOCIATED = {"reassoc", "contract", "nsz", "arcp"}  # lets sums run in vectors; NaN keeps its meaning


def block_of(coarse_chans: int) -> int:
    """Return how many channels to give one level, in a band of coarse channels of so many."""
    return min(BLOCK, max(NARROWEST_BLOCK, 1 << (coarse_chans // BLOCKS).bit_length() >> 1))


@njit(cache=True, nogil=True)
@no_type_check
def _rough(row: Float32[np.ndarray, " freq"], samples: Float32[np.ndarray, " samples"]) -> tuple[float, float]:
    """Return median and scatter of a few pixels of a block; NaN where none is finite."""
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


@njit(cache=True, nogil=True, fastmath=REASSOCIATED)
@no_type_check
def _moments(row: Float32[np.ndarray, " freq"], level: float, reach: float) -> tuple[float, float, float]:
    """Return count, sum and sum of squares of what lies within `reach` of `level`, counted from there."""
    count = np.float32(0)
    total = np.float32(0)
    squares = np.float32(0)
    for f in range(row.size):
        above = row[f] - level
        inside = np.float32(1) if abs(above) <= reach else np.float32(0)
        kept = above if abs(above) <= reach else np.float32(0)
        count += inside
        total += kept
        squares += kept * kept
    return count, total, squares


@njit(cache=True, nogil=True)
@no_type_check
def _middle(values: Float32[np.ndarray, " values"]) -> float:
    """Return the median of the finite values, NaN where there is none."""
    finite = np.sort(values[np.isfinite(values)])
    return finite[finite.size // 2] if finite.size else np.nan


@njit(cache=True, nogil=True, fastmath=REASSOCIATED)
@no_type_check
def _scale(
    row: Float32[np.ndarray, " freq"], out: Float32[np.ndarray, " freq"], gain: float, slope: float, scatter: float
) -> None:
    """Write (power * gain - 1) / scatter, with a gain that changes by `slope` a channel; 0 where it is not finite."""
    unit = np.float32(1) / scatter
    gain *= unit
    slope *= unit
    for f in range(row.size):
        sigmas = row[f] * (gain + slope * np.float32(np.int32(f))) - unit
        out[f] = sigmas if abs(sigmas) < BROKEN else np.float32(0)


@njit(cache=True, nogil=True, error_model="numpy")  # dividing by zero is NaN, which means nothing found
@no_type_check
def _measure(
    row: Float32[np.ndarray, " freq"],
    edges: Int64[np.ndarray, " edges"],
    levels: Float32[np.ndarray, " blocks"],
    scatters: Float32[np.ndarray, " blocks"],
) -> None:
    """Fill in the level and the relative scatter of every block of a row; NaN where there is none."""
    samples = np.empty(SAMPLES, dtype=np.float32)
    level = scatter = np.float32(np.nan)
    for b in range(levels.size):
        block = row[edges[b] : edges[b + 1]]
        # The block before mostly says well enough where to clip; where it does not, a look at the pixels does.
        count, total, squares = _moments(block, level, CLIP * scatter)
        if not (count > MOSTLY * block.size and abs(total) < AT_HOME * scatter * count):
            level, scatter = _rough(block, samples)
            count, total, squares = _moments(block, level, CLIP * scatter)
        levels[b] = scatters[b] = np.nan
        if count > 0:
            mean = total / count
            level += mean
            scatter = np.sqrt(max(squares / count - mean * mean, np.float32(0))) / CLIPPED_SCATTER
            levels[b], scatters[b] = level, scatter / level


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def _gain(levels: Float32[np.ndarray, " blocks"], b: int, spread: float) -> float:
    """Return one over the level of a block, or of those around it if that one is lifted; NaN without a level."""
    level, around = levels[b], levels[max(0, b - 2) : b + 3]
    if not level <= np.min(around) * (1 + LIFTED * spread):
        middle = _middle(around)
        if not level <= middle * (1 + LIFTED * spread):
            level = middle
    return np.float32(1 / level) if level > 0 else np.float32(np.nan)


@njit(cache=True, nogil=True, error_model="numpy")
@no_type_check
def normalize_bandpass(
    power: Float32[np.ndarray, "time freq"],
    start: int,
    out: Float32[np.ndarray, "time stretch"],
    block: int = BLOCK,
    coarse: tuple[int, int] = (0, 0),
) -> Float32[np.ndarray, " time"]:
    """Fill `out` with `power` from channel `start`, in units of its noise; return each row's relative scatter.

    Pixels that are not finite become 0, and so does a row without power or without spread: its scatter is 0.

    Args:
        power: linear, at least as wide as `start` and `out` together.
        start: channel of `power` in the first column of `out`.
        out: where to write.
        block: channels with one level (`block_of`).
        coarse: width of a coarse channel, and a column of `out` in which one begins; (0, 0) where there are none.
    """
    rows, chans = out.shape
    blocks = max(1, chans // block)
    edges = np.arange(blocks + 1) * block
    edges[blocks] = chans
    levels, scatters, gains = np.empty((3, blocks), dtype=np.float32)
    found = np.zeros(rows, dtype=np.float32)
    for t in range(rows):
        row = power[t, start : start + chans]
        _measure(row, edges, levels, scatters)
        spread = _middle(scatters)
        if not spread > 0 or not _middle(levels) > 0:
            out[t] = 0
            continue
        found[t] = spread
        for b in range(blocks):
            gains[b] = _gain(levels, b, spread)
        for b in range(blocks):
            # Two halves: from the centre of the block before to this one's, and on to the next one's. Where a coarse
            # channel begins or ends the level has a kink: each side goes on as it came.
            first, last = edges[b], edges[b + 1]
            centre = (first + last) // 2
            rise = (gains[b] - gains[max(0, b - 1)]) / np.float32(block)
            fall = (gains[min(blocks - 1, b + 1)] - gains[b]) / np.float32(block)
            if b == 0 or (coarse[0] and (first - coarse[1]) % coarse[0] == 0):
                rise = fall
            if b == blocks - 1 or (coarse[0] and (last - coarse[1]) % coarse[0] == 0):
                fall = rise
            entry = gains[b] - rise * np.float32(centre - first)
            _scale(row[first:centre], out[t, first:centre], entry, rise, spread)
            _scale(row[centre:last], out[t, centre:last], gains[b], fall, spread)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalizedBlock:
    """A stretch in units of its noise, and what its rows count."""

    sigmas: Float32[np.ndarray, "obs time freq"]
    noise: Float32[np.ndarray, "obs level time"]
    weights: Float32[np.ndarray, "obs level time"]


def normalize_block(
    power: Float32[np.ndarray, "obs _ freq"],
    cadence: Geometry,
    first: int = 0,
    out: Float32[np.ndarray, "obs time stretch"] | None = None,
    channel: int = 0,
) -> NormalizedBlock:
    """Return six observations in units of their noise, as wide as `out`, the DC spikes of coarse channels set to zero.

    Column `first` of `power` is the band's channel number `channel`.
    """
    sigmas = np.empty_like(power) if out is None else out
    header, noise, weights = cadence.headers[0], [], []
    block, coarse = block_of(header.nfpc or header.coarse_chans), (header.coarse_chans, -channel % header.coarse_chans)
    dead = spikes(header, channel, channel + sigmas.shape[-1])
    for one, equal in zip(power, sigmas, strict=True):
        scatter = normalize_bandpass(one[: cadence.rows], first, equal, block, coarse)
        equal[:, dead] = 0
        noise.append(row_noise(equal))
        weights.append(row_weights(noise[-1], scatter))
    return NormalizedBlock(sigmas=sigmas, noise=np.stack(noise), weights=np.stack(weights))
