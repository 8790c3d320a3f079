"""The one normalization: what training, serving and evaluation all feed the encoder.

The papers take a logarithm and stretch each cadence between its own minimum and maximum. One hot pixel then decides
the contrast of everything else, and a broadband burst fills the range. Here every row is in units of its own noise
already (`equalize`), so that a gain step or a burst has vanished while the strength of a signal, in sigma, is the same
number in the ONs and in the OFFs and in every cadence. Bins stay in sigma; asinh makes 0..1 of them. Decision 0004.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from numba import njit

from aetherscan.cadence.geometry import Geometry
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.search.follow import (
    DRIFT,
    START,
    WIDTH,
)

FLOOR, SPAN = np.float32(2.5), np.float32(8.0)
"""The encoder's 0 is 6 sigma below the noise and its 1 is 122 sigma above: asinh(z) from -2.5 to 5.5."""


UINT8_MAX = 255
"""Examples to learn from are kept as bytes: 0.03 of a row's noise is one shade."""
CELLS_FROM, CELLS_TO, CELL_BITS = np.float32(1), np.float32(255), 14
"""Bins, 8 sigmas added, between which `shade` tells shades apart, in cells of a 512th part of an octave."""
FIRST_CELL = int(CELLS_FROM.view(np.int32)) >> CELL_BITS


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def seen(sigmas: float) -> float:
    """Return what the encoder sees of a bin that stands so many sigmas above the noise, in 0..1."""
    value = (np.float32(np.arcsinh(sigmas)) + FLOOR) / SPAN
    return min(max(value, np.float32(0)), np.float32(1))


@njit(cache=True, nogil=True)
@no_type_check
def snippet(
    sigmas: Float32[np.ndarray, "obs time freq"],
    noise: Float32[np.ndarray, "obs level time"],
    centres: Float64[np.ndarray, " obs"],
    level: int,
    rows: int,
    bins: int,
) -> Float32[np.ndarray, "obs rows bins"]:
    """Return what the encoder sees: `bins` bins of 2**level channels around a centre in each observation, in 0..1.

    Linear through the noise, logarithmic above it. What lies outside the array is noise of value zero; rows beyond
    `rows` are left off, missing ones repeat the last.

    Args:
        sigmas: equalized observations of a cadence.
        noise: of each row's sums at each binning (`dedoppler.row_noise`).
        centres: channel in the middle of the snippet.
        level: binning, as a power of two.
        rows: what the encoder takes.
        bins: what the encoder takes.
    """
    found, chans = sigmas.shape[1], sigmas.shape[2]
    width = 1 << level
    out = np.empty((len(centres), rows, bins), dtype=np.float32)
    for i in range(len(centres)):
        first = math.floor(centres[i] + 0.5) - bins * width // 2
        for t in range(rows):
            row = sigmas[i, min(t, found - 1)]
            unit = np.float32(1 / (math.sqrt(width) * noise[i, level, min(t, found - 1)]))
            for b in range(bins):
                total = np.float32(0)
                low = first + b * width
                for k in range(max(0, low), min(chans, low + width)):
                    total += row[k]
                out[i, t, b] = seen(total * unit)
    return out


def to_uint8(
    snippets: Sequence[Float32[np.ndarray, "obs rows bins"]], shape: tuple[int, int]
) -> UInt8[np.ndarray, "batch obs rows bins"]:
    """Return snippets of `shape`, rows and bins, as the bytes that examples are kept as; there may be none."""
    return np.rint(np.reshape(snippets, (-1, 6, *shape)) * np.float32(UINT8_MAX)).astype(np.uint8)


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _cell(sigmas: float) -> int:
    place = min(max(np.float32(sigmas) + np.float32(8), CELLS_FROM), CELLS_TO)
    return (np.float32(place).view(np.int32) >> CELL_BITS) - FIRST_CELL


@njit(cache=True, nogil=True)
@no_type_check
def _shades(sigmas: Float32[np.ndarray, " bins"]) -> tuple[Int64[np.ndarray, " bins"], Int64[np.ndarray, " bins"]]:
    """Return the shade of each bin, the slow way, and its cell."""
    shades, cells = np.empty(sigmas.size, dtype=np.int64), np.empty(sigmas.size, dtype=np.int64)
    for b in range(sigmas.size):
        shades[b] = np.int64(np.rint(seen(sigmas[b]) * np.float32(UINT8_MAX)))
        cells[b] = _cell(sigmas[b])
    return shades, cells


@lru_cache(maxsize=1)
def shade_table() -> tuple[UInt8[np.ndarray, " cells"], Float32[np.ndarray, " shades"]]:
    """Return what `shade` looks up: the shade in which each cell begins, and the sigmas at which each shade ends.

    Found by halving from what the encoder is served, so that the table gives the same byte for every float.
    """
    wanted = np.arange(1, UINT8_MAX + 1)
    low, high = np.full(UINT8_MAX, -100, np.float32), np.full(UINT8_MAX, 1000, np.float32)
    for _ in range(80):
        middle = (low + high) / np.float32(2)
        reached = _shades(middle)[0] >= wanted
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    cells = _shades(high)[1]
    last = _shades(np.array([CELLS_TO]))[1][0]
    assert (np.diff(cells) > 0).all(), "two shades end in one cell"
    return np.searchsorted(cells, np.arange(last + 1)).astype(np.uint8), np.append(high, np.float32(np.inf))


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def shade(sigmas: float, begins: UInt8[np.ndarray, " cells"], ends: Float32[np.ndarray, " shades"]) -> int:
    """Return `seen` as a byte, from `shade_table`, ten times as fast."""
    at = begins[_cell(sigmas)]
    return at + np.uint8(sigmas >= ends[at])


COARSEST = 4
"""Snippets are binned by 16 at most: their 512 bins are then 8,192 channels, 23 kHz."""
BOX_BINS = 1.5
"""Bins that a signal's width and smear should take, at least, in a snippet."""
WINDOW_LEVEL = 3
"""Windows are binned by eight, as in the papers: 512 bins of 22 Hz."""


@njit(cache=True, nogil=True)
@no_type_check
def snippet_level(box: float) -> int:
    """Return the binning, as a power of two, at which a box of so many channels takes a bin and a half in each row."""
    return max(0, min(COARSEST, math.floor(math.log2(box / BOX_BINS))))


def track_snippet(
    equalized: NormalizedBlock, track: Float64[np.ndarray, " fields"], cadence: Geometry, shape: tuple[int, int]
) -> Float32[np.ndarray, "obs rows bins"]:
    """Return what the encoder sees of a track, centred on it in each observation."""
    centres = track[START] + track[DRIFT] * cadence.middles
    return _shown(equalized, centres, snippet_level(math.hypot(track[WIDTH], track[DRIFT])), cadence, shape)


def window_snippet(
    equalized: NormalizedBlock, start: float, cadence: Geometry, shape: tuple[int, int], level: int = WINDOW_LEVEL
) -> Float32[np.ndarray, "obs rows bins"]:
    """Return what the encoder sees of the window that begins at channel `start`, binned by eight, or by 2**level."""
    return _shown(equalized, np.full(6, start + shape[1] * 2**level / 2), level, cadence, shape)


def _shown(
    equalized: NormalizedBlock,
    centres: Float64[np.ndarray, " obs"],
    level: int,
    cadence: Geometry,
    shape: tuple[int, int],
) -> Float32[np.ndarray, "obs rows bins"]:
    return snippet(equalized.sigmas, equalized.noise, centres, level, *shape)[cadence.order]
