"""Cut a snippet around a track and normalize it: the one input of the encoder in training, search and evaluation.

The papers take the logarithm of each cadence and scale it between its own minimum and maximum (Ma et al. 2023,
arXiv:2301.12670). One hot pixel then decides the contrast of everything else, and a broadband burst fills the range.
Here every row is already in units of its own noise (`bandpass`): gain steps and bursts are gone, and the strength of a
signal in sigma is the same number in ONs and OFFs and in every cadence. The sums in each bin stay in sigma, and asinh
maps them to 0..1. See decision 0004.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from aetherscan.cadence.geometry import Geometry
from aetherscan.detector.release import OBSERVATIONS
from aetherscan.kernels import njit
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.search.follow import as_track, channels_at

FLOOR, SPAN = np.float32(2.5), np.float32(8.0)
"""The encoder's 0 is 6 sigma below the noise and its 1 is 122 sigma above: asinh(z) from -2.5 to 5.5."""
COARSEST = 4
"""Snippets are binned by 16 at most: 512 bins are then 8,192 channels, 23 kHz."""
BOX_BINS = 1.5
"""Smallest number of bins that a signal's width and smear cover in a snippet."""
WINDOW_LEVEL = 3
"""Windows are binned by eight, as in the papers: 512 bins of 22 Hz."""
UINT8_MAX = 255
"""Training examples are stored as uint8; near zero one step is 0.03 sigma."""
CELLS_FROM, CELLS_TO, CELL_BITS = np.float32(1), np.float32(255), 14
"""`quantize` looks up a bin's sigma + 8 between these limits, in cells of 1/512 of an octave."""
FIRST_CELL = int(CELLS_FROM.view(np.int32)) >> CELL_BITS


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def encoder_value(sigmas: float) -> float:
    """Return the encoder's input, in 0..1, for a bin of so many sigma."""
    value = (np.float32(np.arcsinh(sigmas)) + FLOOR) / SPAN
    return min(max(value, np.float32(0)), np.float32(1))


@njit(cache=True, nogil=True)
@no_type_check
def snippet(
    sigmas: Float32[np.ndarray, "obs time freq"],
    noise: Float32[np.ndarray, "obs level time"],
    lengths: Int64[np.ndarray, " obs"],
    centers: Float64[np.ndarray, " obs"],
    level: int,
    rows: int,
    bins: int,
) -> Float32[np.ndarray, "obs rows bins"]:
    """Return `bins` bins of 2**level channels around a center in each observation, as input of the encoder in 0..1.

    The scale is linear through the noise and logarithmic above it. Pixels outside the array are noise of value zero.
    Rows beyond `rows` are dropped; missing rows repeat the last one.

    Args:
        sigmas: normalized observations of a cadence.
        noise: of each row's sums at each binning (`row_noise`).
        lengths: rows of each observation.
        centers: column in the middle of the snippet, for each observation.
        level: binning, as a power of two.
        rows: of the encoder's input.
        bins: of the encoder's input.
    """
    chans = sigmas.shape[2]
    width = 1 << level
    out = np.empty((len(centers), rows, bins), dtype=np.float32)
    for i in range(len(centers)):
        first = math.floor(centers[i] + 0.5) - bins * width // 2
        for t in range(rows):
            at = min(t, lengths[i] - 1)
            row = sigmas[i, at]
            unit = np.float32(1 / (math.sqrt(width) * noise[i, level, at]))
            for b in range(bins):
                total = np.float32(0)
                low = first + b * width
                for k in range(max(0, low), min(chans, low + width)):
                    total += row[k]
                out[i, t, b] = encoder_value(total * unit)
    return out


def to_uint8(
    snippets: Sequence[Float32[np.ndarray, "obs rows bins"]], shape: tuple[int, int]
) -> UInt8[np.ndarray, "batch obs rows bins"]:
    """Return any number of snippets of `shape` (rows, bins) as the uint8 bins in which examples are stored."""
    return np.rint(np.reshape(snippets, (-1, OBSERVATIONS, *shape)) * np.float32(UINT8_MAX)).astype(np.uint8)


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _cell(sigmas: float) -> int:
    place = min(max(np.float32(sigmas) + np.float32(8), CELLS_FROM), CELLS_TO)
    return (np.float32(place).view(np.int32) >> CELL_BITS) - FIRST_CELL


@njit(cache=True, nogil=True)
@no_type_check
def _quantize_exactly(
    sigmas: Float32[np.ndarray, " bins"],
) -> tuple[Int64[np.ndarray, " bins"], Int64[np.ndarray, " bins"]]:
    """Return the uint8 value of each bin, computed without a table, and its cell."""
    values, cells = np.empty(sigmas.size, dtype=np.int64), np.empty(sigmas.size, dtype=np.int64)
    for b in range(sigmas.size):
        values[b] = np.int64(np.rint(encoder_value(sigmas[b]) * np.float32(UINT8_MAX)))
        cells[b] = _cell(sigmas[b])
    return values, cells


@lru_cache(maxsize=1)
def quantization_table() -> tuple[UInt8[np.ndarray, " cells"], Float32[np.ndarray, " values"]]:
    """Return the table that `quantize` reads: the uint8 value at which each cell begins, and where each value ends.

    The ends, in sigma, are found by bisection of `encoder_value`, so that the table gives the same byte for every
    float32.
    """
    targets = np.arange(1, UINT8_MAX + 1)
    low, high = np.full(UINT8_MAX, -100, np.float32), np.full(UINT8_MAX, 1000, np.float32)
    for _ in range(80):
        middle = (low + high) / np.float32(2)
        reached = _quantize_exactly(middle)[0] >= targets
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    cells = _quantize_exactly(high)[1]
    last = _quantize_exactly(np.array([CELLS_TO]))[1][0]
    assert (np.diff(cells) > 0).all(), "two values end in one cell"
    return np.searchsorted(cells, np.arange(last + 1)).astype(np.uint8), np.append(high, np.float32(np.inf))


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def quantize(sigmas: float, begins: UInt8[np.ndarray, " cells"], ends: Float32[np.ndarray, " values"]) -> int:
    """Return `encoder_value` as uint8, looked up in `quantization_table`: ten times as fast as computing it."""
    value = begins[_cell(sigmas)]
    return value + np.uint8(sigmas >= ends[value])


@njit(cache=True, nogil=True)
@no_type_check
def snippet_level(box: float) -> int:
    """Return the binning, as a power of two, at which a box of so many channels covers `BOX_BINS` bins in each row."""
    return max(0, min(COARSEST, math.floor(math.log2(box / BOX_BINS))))


def track_snippet(
    block: NormalizedBlock, track: Float64[np.ndarray, " fields"], cadence: Geometry, shape: tuple[int, int]
) -> Float32[np.ndarray, "obs rows bins"]:
    """Return the encoder's input for a track, centered on it in each observation, ONs and OFFs in turn.

    Args:
        block: that holds the track.
        track: a row of `follow.FIELDS`, in file channels.
        cadence: its geometry.
        shape: rows and bins of the encoder's input.
    """
    centers = channels_at(track[None], cadence.middles)[0] - block.first
    level = snippet_level(as_track(track).box)
    return snippet(block.sigmas, block.noise, np.array(block.lengths), centers, level, *shape)[cadence.order]


def window_snippet(
    block: NormalizedBlock, start: float, cadence: Geometry, shape: tuple[int, int], level: int = WINDOW_LEVEL
) -> Float32[np.ndarray, "obs rows bins"]:
    """Return the encoder's input for a window of the band, the same channels in each observation.

    Args:
        block: that holds the window.
        start: first file channel of the window.
        cadence: its geometry.
        shape: rows and bins of the encoder's input.
        level: binning, as a power of two.
    """
    centers = np.full(len(block.sigmas), start - block.first + shape[1] * 2**level / 2)
    return snippet(block.sigmas, block.noise, np.array(block.lengths), centers, level, *shape)[cadence.order]
