"""Inject narrowband signals into power with exact width, drift, smear within a row and SNR.

A signal is a Gaussian line whose center moves along a track. During a row the center moves from one row edge to the
next. The power in a channel is the line convolved with that step and integrated over the channel, which has a closed
form. setigen (Brzycki et al. 2022, arXiv:2203.09668) samples the same line in frequency and time; a test compares the
two.

SNR is that of an ideal matched filter in one observation: sqrt(sum over rows and channels of (signal / sigma)^2).
"""

import math
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64

from aetherscan.kernels import njit

FWHM_TO_SIGMA = 1 / (2 * math.sqrt(2 * math.log(2)))
LAST, STEPS = 8, 64
"""Range of the tables below, in sigma to either side, and entries per sigma."""
_PLACES = np.arange(-LAST * STEPS, LAST * STEPS + 1) / STEPS
SLOPE = np.array([0.5 * math.erfc(-u / math.sqrt(2)) for u in _PLACES])
REACH = _PLACES * SLOPE + np.exp(-0.5 * _PLACES**2) / math.sqrt(2 * math.pi)
"""The normal distribution function, and its integral."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitter:
    """A narrowband source: a signal from the target or interference.

    `snr` has a value for each observation: a signal in the ONs alone is `(20, 0, 20, 0, 20, 0)`.
    """

    frequency_mhz: float  # at the start of the first observation
    drift_hz_s: float = 0.0
    width_hz: float = 3.0  # FWHM
    snr: tuple[float, ...]
    kind: str = "tone"
    curvature_hz_s2: float = 0.0
    wander_hz: float = 0.0  # amplitude of a sinusoidal wander with period `wander_s`
    wander_s: float = 1000.0
    period_s: float = 0.0  # on for half of each period; 0: steady
    phase_s: float = 0.0

    def track_mhz(self, at_s: Float64[np.ndarray, " times"]) -> Float64[np.ndarray, " times"]:
        """Return the frequency in MHz at times in seconds after the start of the first observation."""
        wander_hz = self.wander_hz * np.sin(2 * np.pi * (at_s + self.phase_s) / self.wander_s)
        return self.frequency_mhz + (self.drift_hz_s * at_s + 0.5 * self.curvature_hz_s2 * at_s**2 + wander_hz) * 1e-6

    def brightness(self, at_s: Float64[np.ndarray, " times"]) -> Float64[np.ndarray, " times"]:
        """Return the relative brightness at times in seconds: 1, or 0 in the second half of a pulse's period."""
        if not self.period_s:
            return np.ones(at_s.shape)
        return ((at_s + self.phase_s) % self.period_s < self.period_s / 2).astype(np.float64)


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _reach(x: float, sigma: float) -> float:
    """Integrate the normal distribution function from minus infinity to x, to 1e-10 sigma.

    Cubic Hermite interpolation of a table: the slopes at its entries are the distribution function.
    """
    u = x / sigma
    if u >= LAST:
        return x
    if u <= -LAST:
        return 0.0
    place = (u + LAST) * STEPS
    i = int(place)
    f = place - i
    rise = REACH[i + 1] - REACH[i]
    near, far = SLOPE[i] / STEPS - rise, SLOPE[i + 1] / STEPS - rise
    return sigma * (REACH[i] + f * (rise + (1 - f) * ((1 - f) * near - f * far)))


@njit(cache=True, nogil=True)
@no_type_check
def line_shares(
    edges: Float64[np.ndarray, " edges"],
    sigma: float,
    brightness: Float64[np.ndarray, " time"],
    shares: Float64[np.ndarray, "time reach"],
    spans: Int64[np.ndarray, "time 2"],
) -> float:
    """Compute the share of a line's power in each channel of each row, and return the sum of the squared shares.

    Args:
        edges: channel (with fraction) of the track at the row edges.
        sigma: of the line, in channels.
        brightness: relative strength in each row.
        shares: overwritten with the shares of a row's power, from the first channel that the line reaches.
        spans: overwritten with the channels that the line reaches in each row: first, and one past the last.
    """
    norm = 0.0
    for t in range(brightness.size):
        low = min(edges[t], edges[t + 1])
        high = max(edges[t], edges[t + 1], low + 1e-3)
        first, last = math.floor(low - 5 * sigma), math.ceil(high + 5 * sigma) + 1
        spans[t] = first, last
        left = _reach(first - 0.5 - low, sigma) - _reach(first - 0.5 - high, sigma)
        for k in range(first, last):
            right = _reach(k + 0.5 - low, sigma) - _reach(k + 0.5 - high, sigma)
            share = brightness[t] * (right - left) / (high - low)
            shares[t, k - first] = share
            norm += share * share
            left = right
    return norm


@njit(cache=True, nogil=True)
@no_type_check
def _add(
    power: Float32[np.ndarray, "time freq"],
    edges: Float64[np.ndarray, " edges"],
    sigma: float,
    brightness: Float64[np.ndarray, " time"],
    snr: float,
    noise: Float64[np.ndarray, " time"],
) -> None:
    rows, chans = power.shape
    reach = math.ceil(np.max(np.abs(np.diff(edges))) + 10 * sigma) + 4
    shares, spans = np.empty((rows, reach)), np.empty((rows, 2), dtype=np.int64)
    # The norm includes channels outside the array, so that a track that leaves it is not brighter inside.
    norm = line_shares(edges, sigma, brightness, shares, spans)
    if norm == 0:
        return
    amplitude = snr / math.sqrt(norm)
    for t in range(rows):
        for k in range(max(0, spans[t, 0]), min(chans, spans[t, 1])):
            power[t, k] += amplitude * shares[t, k - spans[t, 0]] * noise[t]


def add_line(
    power: Float32[np.ndarray, "time freq"],
    edges: Float64[np.ndarray, " edges"],
    *,
    width: float,
    snr: float,
    noise: Float64[np.ndarray, " time"],
    brightness: Float64[np.ndarray, " time"] | None = None,
) -> None:
    """Add a line to the power of one observation, in place.

    Args:
        power: linear power of one observation.
        edges: channel (with fraction) of the track at the row edges.
        width: full width at half maximum, in channels.
        snr: matched-filter SNR over all rows of `power`.
        noise: sigma of one channel in each row, in units of `power`.
        brightness: relative strength in each row; 1 by default.
    """
    if snr <= 0:
        return
    rows = power.shape[0]
    brightness = np.ones(rows) if brightness is None else brightness
    _add(power, edges, max(width * FWHM_TO_SIGMA, 1e-3), brightness, float(snr), noise)


def row_edges_s(start_s: float, rows: int, tsamp: float) -> Float64[np.ndarray, " edges"]:
    """Return the times of the rows + 1 row edges, in seconds."""
    return start_s + tsamp * np.arange(rows + 1, dtype=np.float64)


def add_emitter(
    power: Float32[np.ndarray, "time freq"],
    emitter: Emitter,
    *,
    position: int,
    start_s: float,
    tsamp: float,
    fch1: float,
    foff: float,
    noise: Float64[np.ndarray, " time"],
) -> None:
    """Add an emitter to the power of one observation of a cadence, in place.

    Args:
        power: linear power.
        emitter: the source.
        position: of the observation in the cadence, 0 to 5.
        start_s: start of the observation, in seconds after the start of the first.
        tsamp: length of a row, in seconds.
        fch1: center of the first channel, in MHz.
        foff: step to the next channel, in MHz.
        noise: sigma of one channel in each row, in units of `power`.
    """
    times = row_edges_s(start_s, power.shape[0], tsamp)
    add_line(
        power,
        (emitter.track_mhz(times) - fch1) / foff,
        width=emitter.width_hz / abs(foff * 1e6),
        snr=emitter.snr[position],
        noise=noise,
        brightness=emitter.brightness(times[:-1] + tsamp / 2),
    )
