"""Check that the numbers of an observation are linear power, by the law that the power of noise obeys.

A pixel is the sum of N squared amplitudes in each of one or two polarizations; N is the channel width times the length
of a row. The power of noise therefore follows a gamma distribution of shape k, N to 2 N: it is never negative,
(mean / scatter)^2 is k, and its skewness is 2 / sqrt(k). The skewness of its logarithm, as in decibels, is
-1 / sqrt(k); that of its square root, an amplitude, is 0.5 / sqrt(k). No unit of power changes any of these.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from aetherscan.errors import PowerError
from aetherscan.header import Header
from aetherscan.search.bandpass import SEGMENT

SEGMENTS = 4
"""Looked at in each block: the law is the same in all."""
NEGATIVE_SHARE = 1e-3
"""Share of negative pixels from which they are the unit and not damage; power has none."""
LOGARITHM_SKEW = -0.35
"""Skewness times sqrt(N) below which a value is a logarithm: half of that with two polarizations."""
MOST_AVERAGED = 256.0
"""Samples N up to which a logarithm is refused. With more, power and its logarithm are alike to a percent, the search
finds the same in both, and an instrument may change the skewness by as much: that is a warning."""
ERRORS = 4.0
"""Standard errors by which the skewness must be negative."""
FAR = 3.0
"""Factor beyond N to 2 N at which (mean / scatter)^2 is doubted. Windows and few bits change it by up to 2."""
BRIGHT = 4.0
"""Sigma above and below which a pixel is no noise."""
FEWEST_BITS = 8
"""With fewer bits, the steps of the values decide their skewness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerSample:
    """Statistics of a sample of segments: one row for each observation."""

    skew: Float64[np.ndarray, "obs segments"]  # NaN where less than half was measured, as in `shape`
    shape: Float64[np.ndarray, "obs segments"]  # (mean / scatter)^2, by the differences of neighboring channels
    negative: Int64[np.ndarray, " obs"]  # pixels; a constant, as a mask may be, is not counted
    pixels: Int64[np.ndarray, " obs"]  # that are finite and have both neighbors


def sample_power(
    power: Float32[np.ndarray, "obs _ freq"], sigmas: Float32[np.ndarray, "obs time freq"], lengths: Sequence[int]
) -> PowerSample:
    """Measure `SEGMENTS` segments of a block.

    Args:
        power: of the block's channels.
        sigmas: the same power, normalized.
        lengths: rows of each observation.
    """
    width = min(SEGMENT, power.shape[-1])
    starts = np.linspace(0, power.shape[-1] - width, min(SEGMENTS, power.shape[-1] // width), dtype=int)
    columns, rows = np.add.outer(starts, np.arange(width)).ravel(), sigmas.shape[1]
    shape = (len(power), rows, len(starts), width)
    raw, sigmas = power[:, :rows, columns].reshape(shape), sigmas[..., columns].reshape(shape)
    inside = np.arange(rows) < np.reshape(lengths, (-1, 1))
    raw = np.where(inside[..., None, None], raw, np.nan)
    noise = (sigmas != 0) & (np.abs(sigmas) < BRIGHT)
    counts = noise.sum(axis=(1, 3))
    sigmas = np.where(noise, sigmas, 0)
    squares = sigmas * sigmas
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        first, second, third = (each.sum(axis=(1, 3)) / counts for each in (sigmas, squares, squares * sigmas))
        skew = (third - 3 * first * second + 2 * first**3) / (second - first**2) ** 1.5
        level = np.where(noise, raw, 0).sum(axis=3, dtype=np.float64) / noise.sum(axis=3)
        steps = np.diff(raw / level[..., None].astype(np.float32), axis=3)
        pairs = noise[..., 1:] & noise[..., :-1]
        scatter = np.where(pairs, steps * steps, 0).sum(axis=3) / (2 * pairs.sum(axis=3))
        ratio = np.where(scatter > 0, 1 / scatter, 0).sum(axis=1) / (scatter > 0).sum(axis=1)
    below = np.zeros(len(raw), np.int64)
    if (raw < 0).any():
        varies = (raw[:, 1:, :, 1:] != raw[:, 1:, :, :-1]) & (raw[:, 1:, :, 1:] != raw[:, :-1, :, 1:])
        below = ((raw[:, 1:, :, 1:] < 0) & varies).sum(axis=(1, 2, 3))
    most = counts > inside.sum(axis=1)[:, None] * width / 2
    return PowerSample(
        skew=np.where(most, skew, np.nan).astype(np.float64),
        shape=np.where(most, ratio, np.nan).astype(np.float64),
        negative=below,
        pixels=np.isfinite(raw[:, 1:, :, 1:]).sum(axis=(1, 2, 3)),
    )


def check_power(headers: Sequence[Header], samples: Sequence[PowerSample]) -> list[str]:
    """Return warnings about the scatter of the power of each observation.

    Args:
        headers: of the observations.
        samples: of the blocks.

    Raises:
        PowerError: an observation is a logarithm, as decibels are, or has negative values.
    """
    warnings = []
    for i, header in enumerate(headers):
        name = f"scan {i + 1}, {header.source_name}"
        negative, pixels = (sum(int(getattr(each, kind)[i]) for each in samples) for kind in ("negative", "pixels"))
        if negative > NEGATIVE_SHARE * pixels:
            raise PowerError(f"{name}: expected linear power, 0 or more, found {negative / pixels:.1%} of it below 0")
        skews, shapes = (np.concatenate([getattr(each, kind)[i] for each in samples]) for kind in ("skew", "shape"))
        skews, averaged = skews[~np.isnan(skews)], max(1.0, abs(header.foff) * 1e6 * header.tsamp)
        if not skews.size:
            continue
        skew = float(np.median(skews))
        error = 1.25 * math.sqrt(6 / pixels)  # of a median of skewnesses
        if header.nbits >= FEWEST_BITS and skew + ERRORS * error < 0 and skew < LOGARITHM_SKEW / math.sqrt(averaged):
            found = f"{name}: expected linear power, whose noise has a skewness above 0, found {skew:.3f}"
            if averaged <= MOST_AVERAGED:
                raise PowerError(f"{found}: a logarithm, as decibels are")
            warnings.append(f"{found}: it may be a logarithm, as decibels are")
        shape = float(np.median(shapes[~np.isnan(shapes)]))
        if not averaged / FAR < shape < 2 * averaged * FAR:
            expected = f"{averaged:.3g} to {2 * averaged:.3g} by channel width and row length"
            warnings.append(f"{name}: (mean / scatter)^2 of the power: expected {expected}, found {shape:.3g}")
    return warnings
