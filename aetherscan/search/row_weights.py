"""Weigh the rows of an observation by their noise at each binning.

Sums are in units of the measured scatter of the rows. In a row dominated by a broadband burst, neighboring channels
rise and fall together, and a sum of n channels scatters by far more than sqrt(n). Each row therefore has a weight at
every binning, that of the matched filter for a steady line: its signal over its variance.
"""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float32

from aetherscan.header import MAD_TO_SIGMA
from aetherscan.kernels import njit

LEVELS = 7
"""Binnings 1, 2, 4 ... 64."""
PIECE, PIECES = 4096, 16
"""Sample from which a row's scatter is measured: channels in a piece, and pieces across a block."""
CLEARLY_MORE = 1.3
"""Smallest scatter that is corrected for; one measured from a few hundred sums is uncertain by several percent."""
FEWEST_SUMS = 8


@njit(cache=True, nogil=True)
@no_type_check
def _halve(bins: Float32[np.ndarray, " bins"], sums: Float32[np.ndarray, " half"]) -> None:
    """Fill `sums` with the sums of pairs of neighbors."""
    for f in range(sums.size):
        sums[f] = bins[2 * f] + bins[2 * f + 1]


@njit(cache=True, nogil=True)
@no_type_check
def _scatter(row: Float32[np.ndarray, " bins"], unit: float) -> float:
    """Return the scatter of `row` in units of `unit`: the median absolute value of at most 2,048 bins, as sigma."""
    counts = np.zeros(256, dtype=np.int64)
    step = max(1, row.size // 2048)
    count = 0
    for f in range(0, row.size, step):
        counts[min(255, int(abs(row[f]) / unit * np.float32(16)))] += 1
        count += 1
    below, at = 0, 0
    while below + counts[at] < count / 2:
        below += counts[at]
        at += 1
    return np.float32((at + (count / 2 - below) / counts[at]) / 16 * MAD_TO_SIGMA)


@njit(cache=True, nogil=True)
@no_type_check
def row_noise(sigmas: Float32[np.ndarray, "time freq"], levels: int = LEVELS) -> Float32[np.ndarray, "level time"]:
    """Return the scatter of each row's sums at every binning, over that of independent noise; 1 unless clearly more.

    Fewer than `FEWEST_SUMS` do not tell: the scatter of the binning before is taken.
    """
    rows, chans = sigmas.shape
    noise = np.ones((levels, rows), dtype=np.float32)
    pieces = min(PIECES, max(1, chans // PIECE))
    width = min(chans, pieces * PIECE)
    binned, spare = np.empty(width, np.float32), np.empty(width, np.float32)
    for t in range(rows):  # one by one: the sample of a row fits into the cache of a core
        for piece in range(pieces):
            first = piece * (chans // pieces)
            binned[piece * PIECE : (piece + 1) * PIECE] = sigmas[t, first : min(chans, first + PIECE)]
        bins = width
        for level in range(levels):
            if level:
                bins //= 2  # an odd last bin is dropped
                _halve(binned, spare[:bins])
                binned, spare = spare, binned
            if bins < FEWEST_SUMS:
                noise[level, t] = noise[level - 1, t] if level else np.float32(1)
                continue
            scatter = _scatter(binned[:bins], np.float32(math.sqrt(1 << level)))
            noise[level, t] = scatter if scatter > CLEARLY_MORE else 1.0
    return noise


def row_weights(
    noise: Float32[np.ndarray, "level time"], scatter: Float32[np.ndarray, " time"]
) -> Float32[np.ndarray, "level time"]:
    """Return the weight of each row's sum over a box at every binning; the weighted sum of all rows has unit scatter.

    Args:
        noise: of each row's sums at each binning (`row_noise`).
        scatter: relative scatter of each row (`normalize_bandpass`); a row with scatter 0 has weight 0.
    """
    alive = scatter > 0
    if not alive.any():
        return np.zeros_like(noise)
    signal = np.where(alive, np.minimum(1, np.median(scatter[alive]) / np.where(alive, scatter, 1)), 0)
    weights = signal / noise**2
    return (weights / np.sqrt(np.sum((weights * noise) ** 2, axis=1, keepdims=True))).astype(np.float32)
