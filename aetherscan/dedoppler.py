"""Find drifting lines in one observation: a Taylor tree at every binning by a power of two.

A line that drifts k channels a row smears its power over k channels anyway, so a fast drift loses nothing in channels k
wide, and a wide signal gains: each level need only follow drifts up to one bin a row. See Taylor (1974) for the tree.

Sums are in sigma: rows are standardized first, and a sum over n pixels is divided by sqrt(n). Where a broadband burst
carries a row, neighbouring channels rise and fall together, and a sum of n of them scatters by far more than sqrt(n):
each row's sums are therefore measured at every binning (`spread`) and brought back to unit scatter.
"""

import math
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float32
from numba import njit

from aetherscan.normalize import MAD_TO_SIGMA

LEVELS = 7
"""Binnings 1, 2, 4 ... 64."""
CLEARLY_MORE = np.float32(1.3)
"""A scatter taken from a hundred sums is uncertain by a tenth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A line in one observation, in channels of the array that was searched."""

    channel: float  # centre, half-way through the observation
    drift: float  # channels per row
    width: float  # channels
    snr: float


@njit(cache=True, nogil=True)
@no_type_check
def taylor_tree(power: Float32[np.ndarray, "time freq"]) -> Float32[np.ndarray, "drift freq"]:
    """Return sums along lines that start in each channel and end `drift` channels higher in the last row.

    The number of rows must be a power of two; sums that leave the array miss what lies outside.
    """
    rows, chans = power.shape
    tree = power.copy()
    done = np.empty_like(tree)
    half = 1
    while half < rows:
        for first in range(0, rows, 2 * half):
            for drift in range(2 * half):
                near = drift // 2
                shift = (drift + 1) // 2
                for f in range(chans):
                    total = tree[first + near, f]
                    if f + shift < chans:
                        total += tree[first + half + near, f + shift]
                    done[first + drift, f] = total
        tree, done = done, tree
        half *= 2
    return tree


def rebin(sigmas: Float32[np.ndarray, "time freq"], factor: int) -> Float32[np.ndarray, "time bins"]:
    """Return sums of `factor` channels over its square root: still in sigma where channels are independent."""
    rows, chans = sigmas.shape[0], sigmas.shape[1] // factor
    sums = sigmas[:, : chans * factor].reshape(rows, chans, factor).sum(axis=2)
    return sums / np.float32(math.sqrt(factor))


def spread(sigmas: Float32[np.ndarray, "time freq"], levels: int = LEVELS) -> Float32[np.ndarray, "level time"]:
    """Return the robust scatter of each row's sums at every binning by a power of two; 1 unless it is clearly more."""
    scatter = np.stack([MAD_TO_SIGMA * np.median(np.abs(rebin(sigmas, 1 << n)), axis=1) for n in range(levels)])
    return np.where(scatter > CLEARLY_MORE, scatter, np.float32(1))


def find_hits(
    sigmas: Float32[np.ndarray, "time freq"],
    scatters: Float32[np.ndarray, "level time"],
    *,
    max_drift: float,
    min_snr: float,
    most: int = 20,
) -> list[Hit]:
    """Return the brightest lines of one standardized observation, brightest first, one for each place.

    Args:
        sigmas: power in units of each row's noise.
        scatters: their `spread`; as many binnings are searched.
        max_drift: channels per row, either way.
        min_snr: of the line at its best binning.
        most: hits to return.
    """
    rows = sigmas.shape[0]
    found: list[Hit] = []
    for level, scatter in enumerate(scatters):
        factor = 1 << level
        binned = np.zeros((1 << (rows - 1).bit_length(), sigmas.shape[1] // factor), dtype=np.float32)
        binned[:rows] = rebin(sigmas, factor) / scatter[:, None]
        reach = binned.shape[0] - 1
        drifts = np.arange(binned.shape[0]) * factor / reach
        for sign in (1, -1):
            tree = taylor_tree(np.ascontiguousarray(binned[:, ::sign])) / np.float32(math.sqrt(rows))
            tree[drifts > max_drift] = 0
            best = tree.argmax(axis=0)
            snrs = tree[best, np.arange(tree.shape[1])]
            for f in np.flatnonzero(snrs >= min_snr):
                middle = f + 0.5 + best[f] * (rows - 1) / reach / 2
                channel = middle * factor - 0.5
                found.append(
                    Hit(
                        channel=float(channel if sign == 1 else binned.shape[1] * factor - 1 - channel),
                        drift=float(sign * drifts[best[f]]),
                        width=float(factor),
                        snr=float(snrs[f]),
                    )
                )
    return _brightest(found, rows, most)


def _brightest(hits: list[Hit], rows: int, most: int) -> list[Hit]:
    """Return the brightest of every group of hits that lie on one another."""
    kept: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: (-hit.snr, hit.channel, hit.drift)):
        if len(kept) == most:
            break
        if all(abs(hit.channel - other.channel) > _reach(hit, other, rows) for other in kept):
            kept.append(hit)
    return kept


def _reach(hit: Hit, other: Hit, rows: int) -> float:
    """Half the extent of both tracks: what lies nearer than this is the same power summed another way."""
    return hit.width + other.width + abs(hit.drift - other.drift) * rows / 2


@njit(cache=True, nogil=True)
@no_type_check
def line_sum(
    sigmas: Float32[np.ndarray, "time freq"],
    scatter: Float32[np.ndarray, "level time"],
    channel: float,
    drift: float,
    width: float,
) -> float:
    """Return the SNR of a box `width` channels wide along a line through `channel` half-way through the observation.

    The box's edges take fractions of channels. What lies outside the array counts as noise of value zero.
    """
    rows, chans = sigmas.shape
    level = min(len(scatter) - 1, max(0, math.ceil(math.log2(width))))
    total = 0.0
    for t in range(rows):
        low = channel + drift * (t - (rows - 1) / 2) - width / 2 + 0.5
        high = low + width
        for k in range(max(0, math.floor(low)), min(chans, math.ceil(high))):
            total += sigmas[t, k] * (min(high, k + 1.0) - max(low, float(k))) / scatter[level, t]
    return total / math.sqrt(rows * width)


@njit(cache=True, nogil=True)
@no_type_check
def best_line(
    sigmas: Float32[np.ndarray, "time freq"],
    scatter: Float32[np.ndarray, "level time"],
    channels: Float32[np.ndarray, " channels"],
    drifts: Float32[np.ndarray, " drifts"],
    widths: Float32[np.ndarray, " widths"],
) -> tuple[float, float, float, float]:
    """Return (snr, channel, drift, width) of the brightest line on a grid; its box holds line and smear."""
    best = (-np.inf, 0.0, 0.0, 0.0)
    for width in widths:
        for drift in drifts:
            box = math.sqrt(width * width + drift * drift)
            for channel in channels:
                snr = line_sum(sigmas, scatter, channel, drift, box)
                if snr > best[0]:
                    best = (snr, channel, drift, width)
    return best
