"""Put narrowband signals into power, exactly: true width, drift, the smear of the drift inside a row, true SNR.

A signal is a Gaussian line whose centre moves along a track. While a row integrates, the centre moves from one row edge
to the next, so the power a channel gets is the line convolved with that step, integrated over the channel; that
integral has a closed form, in channels; binned arrays get the mean of what their channels got.

SNR is the ideal matched filter's, per observation: sqrt(sum over rows and channels of (signal / sigma)^2).
"""

import math
from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numba import njit

FWHM_TO_SIGMA = 1 / (2 * math.sqrt(2 * math.log(2)))
LAST, STEPS = 8, 64
"""Of the table below: sigmas to either side, and entries to one of them."""
_PLACES = np.arange(-LAST * STEPS, LAST * STEPS + 1) / STEPS
SLOPE = np.array([0.5 * math.erfc(-u / math.sqrt(2)) for u in _PLACES])
REACH = _PLACES * SLOPE + np.exp(-0.5 * _PLACES**2) / math.sqrt(2 * math.pi)
"""The normal distribution function, and its integral."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitter:
    """Something that radiates on one frequency: a target's signal or interference.

    `snr` is per observation, so an ON-only tone is `(20, 0, 20, 0, 20, 0)`.
    """

    frequency_mhz: float  # at the start of the first observation
    drift_hz_s: float = 0.0
    width_hz: float = 3.0  # FWHM
    snr: tuple[float, ...]
    kind: str = "tone"
    curvature_hz_s2: float = 0.0
    wander_hz: float = 0.0  # to either side of its line, once in `wander_s`
    wander_s: float = 1000.0
    period_s: float = 0.0  # on for half of each period; 0: steady
    phase_s: float = 0.0

    def track_mhz(self, at_s: Float64[np.ndarray, " times"]) -> Float64[np.ndarray, " times"]:
        """Return the frequency in MHz at times in seconds after the start of the first observation."""
        wander_hz = self.wander_hz * np.sin(2 * np.pi * (at_s + self.phase_s) / self.wander_s)
        return self.frequency_mhz + (self.drift_hz_s * at_s + 0.5 * self.curvature_hz_s2 * at_s**2 + wander_hz) * 1e-6

    def shine(self, at_s: Float64[np.ndarray, " times"]) -> Float64[np.ndarray, " times"]:
        """Return the relative brightness at each time: 1, or 0 in the dark half of a pulsed emitter's period."""
        if not self.period_s:
            return np.ones(at_s.shape)
        return ((at_s + self.phase_s) % self.period_s < self.period_s / 2).astype(np.float64)


@njit(cache=True, nogil=True, inline="always")
@no_type_check
def _reach(x: float, sigma: float) -> float:
    """Integral of the normal distribution function from minus infinity to x, from a table, to 1e-10 sigma.

    Between two entries runs the cubic that has their values and their slopes, which are the distribution function.
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
    """Fill in what each channel gets of a line that moves from row edge to row edge; return the norm, squared.

    Args:
        edges: the track's channel (with fraction) at the time + 1 row edges.
        sigma: of the line, in channels.
        brightness: relative strength per row.
        shares: of a row's power, from the first of the channels that the line reaches.
        spans: those channels of each row, first and one past the last.
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
    binning: int,
) -> None:
    rows, chans = power.shape[0], power.shape[1] * binning
    reach = math.ceil(np.max(np.abs(np.diff(edges))) + 10 * sigma) + 4
    shares, spans = np.empty((rows, reach)), np.empty((rows, 2), dtype=np.int64)
    # The norm counts what falls outside the array too: a track that leaves it must not be made brighter inside.
    norm = line_shares(edges, sigma, brightness, shares, spans)
    if norm == 0:
        return
    amplitude = snr / math.sqrt(norm)
    for t in range(rows):
        for k in range(max(0, spans[t, 0]), min(chans, spans[t, 1])):
            power[t, k // binning] += amplitude * shares[t, k - spans[t, 0]] * noise[t] / binning


def add_line(
    power: Float32[np.ndarray, "time freq"],
    edges: Float64[np.ndarray, " edges"],
    *,
    width: float,
    snr: float,
    noise: Float64[np.ndarray, " time"],
    brightness: Float64[np.ndarray, " time"] | None = None,
    binning: int = 1,
) -> None:
    """Add one signal to `power`, in place.

    Args:
        power: linear power of one observation.
        edges: the track's channel (with fraction) at the time + 1 row edges.
        width: full width at half maximum, in channels.
        snr: the matched filter's, over the whole observation, before any binning.
        noise: sigma of one channel in each row, in the unit of `power`.
        brightness: relative strength per row; all ones where not given.
        binning: channels that were averaged into one bin of `power`; everything else counts in channels.
    """
    if snr <= 0:
        return
    rows = power.shape[0]
    shine = np.ones(rows) if brightness is None else brightness
    _add(power, edges, max(width * FWHM_TO_SIGMA, 1e-3), shine, float(snr), noise, binning)


def row_edges_s(start_s: float, rows: int, tsamp: float) -> Float64[np.ndarray, " edges"]:
    """Return the rows + 1 times at which rows begin and end, in seconds."""
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
    binning: int = 1,
) -> None:
    """Add what `emitter` does in observation `position` of a cadence, which began `start_s` after the first."""
    times = row_edges_s(start_s, power.shape[0], tsamp)
    add_line(
        power,
        (emitter.track_mhz(times) - fch1) / foff,
        width=emitter.width_hz / abs(foff * 1e6),
        snr=emitter.snr[position],
        noise=noise,
        brightness=emitter.shine(times[:-1] + tsamp / 2),
        binning=binning,
    )
