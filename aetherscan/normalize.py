"""The one normalization: what training, serving and evaluation all feed the encoder.

The papers take a logarithm and stretch each cadence between its own minimum and maximum. One hot pixel then decides
the contrast of everything else, and a broadband burst fills the range. Here every row is in units of its own noise
already (`equalize`), so that a gain step or a burst has vanished while the strength of a signal, in sigma, is the same
number in the ONs and in the OFFs and in every cadence. Bins stay in sigma; asinh makes 0..1 of them. Decision 0004.
"""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64
from numba import njit

FLOOR, SPAN = np.float32(2.5), np.float32(8.0)
"""The encoder's 0 is 6 sigma below the noise and its 1 is 122 sigma above: asinh(z) from -2.5 to 5.5."""


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
                value = (np.float32(np.arcsinh(total * unit)) + FLOOR) / SPAN
                out[i, t, b] = min(max(value, np.float32(0)), np.float32(1))
    return out
