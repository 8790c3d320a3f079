"""The one normalization: what training, serving and evaluation all feed the encoder.

The papers take a logarithm and stretch each cadence between its own minimum and maximum. One hot pixel then decides the
contrast of everything else, and a broadband burst fills the range. We measure every row in units of its own noise
instead: (power - median) / scale, both robust, so that a gain step or a burst vanishes while the strength of a signal,
in sigma, is the same number in the ONs and in the OFFs and in every cadence. See decision 0004.
"""

from itertools import pairwise
from typing import no_type_check

import numpy as np
from jaxtyping import Float32
from numba import njit

MAD_TO_SIGMA = np.float32(1.4826)
"""Median absolute deviation to standard deviation, for a normal distribution."""
FLOOR, SPAN = np.float32(2.5), np.float32(8.0)
"""The encoder's 0 is 6 sigma below the median and its 1 is 122 sigma above: asinh(z) from -2.5 to 5.5."""


@njit(cache=True, nogil=True)
@no_type_check
def standardize(power: Float32[np.ndarray, "time freq"]) -> Float32[np.ndarray, "time freq"]:
    """Return `power` (time, freq) with each row in units of its own noise: zero median, unit robust sigma.

    NaN and infinite pixels become 0; so does a row without spread (a dead one).
    """
    rows, chans = power.shape
    out = np.zeros((rows, chans), dtype=np.float32)
    for t in range(rows):
        kept = power[t][np.isfinite(power[t])]
        if kept.size == 0:
            continue
        level = np.median(kept)
        scale = np.median(np.abs(kept - level)) * MAD_TO_SIGMA
        if scale <= 0:
            continue
        for f in range(chans):
            if np.isfinite(power[t, f]):
                out[t, f] = (power[t, f] - level) / scale
    return out


def flatten(sigmas: Float32[np.ndarray, "time freq"], block: int = 512) -> Float32[np.ndarray, "time freq"]:
    """Return standardized rows without what varies slowly along them: filter shape, slopes, a burst's own spectrum.

    The baseline is drawn through the medians of `block` channels; a line a tenth as wide loses 0.14 sigma a
    pixel. A box of 64 channels and 16 rows would otherwise see a slope of one per cent as 3 sigma.
    """
    channels = np.arange(sigmas.shape[1])
    edges = np.linspace(0, len(channels), max(1, len(channels) // block) + 1).astype(int)
    medians = np.stack([np.median(sigmas[:, a:b], axis=1) for a, b in pairwise(edges)], axis=1)
    centres = (edges[1:] + edges[:-1]) / 2
    return sigmas - np.stack([np.interp(channels, centres, row) for row in medians]).astype(np.float32)


@njit(cache=True, nogil=True)
@no_type_check
def bin_channels(power: Float32[np.ndarray, "time freq"], factor: int) -> Float32[np.ndarray, "time bins"]:
    """Return the mean of every `factor` neighbouring channels of `power` (time, freq); a remainder is left off."""
    rows, chans = power.shape[0], power.shape[1] // factor
    out = np.empty((rows, chans), dtype=np.float32)
    for t in range(rows):
        for f in range(chans):
            total = np.float32(0)
            for k in range(f * factor, (f + 1) * factor):
                total += power[t, k]
            out[t, f] = total / factor
    return out


def normalize(power: Float32[np.ndarray, "obs time freq"], binning: int = 1) -> Float32[np.ndarray, "obs time bins"]:
    """Return what the encoder sees of a snippet: every row in units of its noise, compressed into 0..1.

    Args:
        power: linear power of the six observations.
        binning: channels averaged into one before anything else (8 in the papers).
    """
    return np.stack([compress(standardize(bin_channels(observation, binning))) for observation in power])


def compress(sigmas: Float32[np.ndarray, "time freq"]) -> Float32[np.ndarray, "time freq"]:
    """Map sigmas to 0..1: linear through the noise, logarithmic above it (asinh)."""
    return np.clip((np.arcsinh(sigmas) + FLOOR) / SPAN, np.float32(0), np.float32(1))
