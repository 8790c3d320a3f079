"""Where a candidate's signal will be in the next hours, and whether its target is up, for an observation at once.

The frequency is extrapolated at the barycenter of the solar system, where a source without acceleration stands still,
and brought back to the telescope at the time asked for: within hours the drift rate that the telescope's own motion
causes changes by as much as it is.

The uncertainty has three parts: half the width of the signal, and twice the standard errors of drift and curvature. A
track is a fit of a parabola to its places at the beginning and the end of each ON, each known to the width over the
square root of 12. A curvature that the fit does not show may still be there, and dominates after an hour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy import units
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time
from jaxtyping import Float64

from aetherscan.cadence.telescopes import Telescope
from aetherscan.header import SECONDS_PER_DAY
from aetherscan.search.barycenter import offline, redshifts

STEP_S = 300.0
"""Time from one altitude to the next."""
DAY_STEPS = 288
LOWEST_DEG = {"GBT": 5.0, "Parkes": 30.5, "MeerKAT": 15.0, "FAST": 50.0, "GMRT": 17.0}
"""Lowest altitude at which a telescope observes; for others the horizon. GBT: Basic GBT Info (Green Bank Observatory).
GMRT: GMRT Antenna Specifications (NCRA), the limit of the software. FAST: Jiang et al. 2020,
doi:10.1088/1674-4527/20/5/64, a zenith angle of 40 degrees. Those of Parkes and MeerKAT are not yet confirmed by a
document of the observatory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A track through the ONs of a cadence, as it was measured at the telescope."""

    frequency_mhz: float  # at `tstart_mjd`
    drift_rate_hz_s: float
    curvature_hz_s2: float  # 0 where a straight line fits as well
    bandwidth_hz: float
    tstart_mjd: float  # of the first ON, UTC
    ons: tuple[tuple[float, float], ...]  # seconds from `tstart_mjd` to the start of each ON, and its length


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A direction, and the telescope that looks there."""

    ra_deg: float  # J2000
    dec_deg: float
    telescope: Telescope

    @property
    def lowest_deg(self) -> float:
        """Lowest altitude at which the telescope observes."""
        return LOWEST_DEG.get(self.telescope.name, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Where a signal is expected at the telescope."""

    mjd: float
    frequency_mhz: float
    uncertainty_hz: float  # to either side
    drift_rate_hz_s: float
    altitude_deg: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Visibility:
    """Whether a target is up, and when that changes within a day; None if it does not."""

    altitude_deg: float
    is_up: bool
    changes_mjd: float | None  # it sets if it is up, else it rises


def predict(signal: Signal, target: Target, times_mjd: Sequence[float]) -> list[Prediction]:
    """Return where a signal is expected at some times (MJD, UTC), for a source with a steady drift at the barycenter.

    A curvature that was measured is extrapolated, too; where a straight line fitted as well there is none at the
    barycenter.
    """
    middle_s = _middle(signal)
    middle_mjd = signal.tstart_mjd + middle_s / SECONDS_PER_DAY
    drift, bend = signal.drift_rate_hz_s, signal.curvature_hz_s2
    frequency_hz = signal.frequency_mhz * 1e6 + drift * middle_s + bend / 2 * middle_s**2
    drift += bend * middle_s  # of a straight line: that at the middle of what it was fitted to
    redshift, redshift_per_s = _redshifts(target, middle_mjd)
    own_hz = frequency_hz / (1 + redshift)
    own_drift = (drift - own_hz * redshift_per_s) / (1 + redshift)
    own_bend = 0.0 if bend == 0 else bend - own_hz * _redshift_per_s2(target, middle_mjd)
    altitudes = altitudes_deg(target, times_mjd)
    predictions = []
    for mjd, altitude in zip(times_mjd, altitudes, strict=True):
        after_s = (mjd - middle_mjd) * SECONDS_PER_DAY
        there, there_per_s = _redshifts(target, mjd)
        own_now_hz = own_hz + own_drift * after_s + own_bend / 2 * after_s**2
        own_now_drift = own_drift + own_bend * after_s
        predictions.append(
            Prediction(
                mjd=mjd,
                frequency_mhz=own_now_hz * (1 + there) * 1e-6,
                uncertainty_hz=signal.bandwidth_hz / 2 + 2 * _standard_error_hz(signal, after_s + middle_s),
                drift_rate_hz_s=own_now_drift * (1 + there) + own_now_hz * there_per_s,
                altitude_deg=float(altitude),
            )
        )
    return predictions


def visibility(target: Target, mjd: float) -> Visibility:
    """Return whether a target is above the lowest altitude of its telescope, and when it sets or rises within a day."""
    times = [mjd + i * STEP_S / SECONDS_PER_DAY for i in range(DAY_STEPS + 1)]
    above = altitudes_deg(target, times) - target.lowest_deg
    is_up = bool(above[0] >= 0)
    changed = np.flatnonzero((above >= 0) != is_up)
    changes = None
    if changed.size:
        i = int(changed[0])
        share = above[i - 1] / (above[i - 1] - above[i])
        changes = times[i - 1] + float(share) * STEP_S / SECONDS_PER_DAY
    return Visibility(altitude_deg=float(above[0]) + target.lowest_deg, is_up=is_up, changes_mjd=changes)


def altitudes_deg(target: Target, times_mjd: Sequence[float]) -> Float64[np.ndarray, " times"]:
    """Return the altitudes of a target at its telescope, without refraction (half a degree at the horizon)."""
    with offline():
        place = EarthLocation.from_geocentric(*target.telescope.itrf_m, unit=units.m)
        frame = AltAz(obstime=Time(np.asarray(times_mjd), format="mjd", scale="utc"), location=place)
        direction = SkyCoord(target.ra_deg * units.deg, target.dec_deg * units.deg)
        return np.asarray(direction.transform_to(frame).alt.deg, np.float64)


def _middle(signal: Signal) -> float:
    """Return the mean time of the ONs, in seconds after the start of the first."""
    return float(np.mean([start + length / 2 for start, length in signal.ons]))


def _standard_error_hz(signal: Signal, at_s: float) -> float:
    """Return the standard error of a track's frequency at a time after the start of the first ON."""
    times = np.array([start + part for start, length in signal.ons for part in (0.0, length)]) - _middle(signal)
    scale = np.ptp(times)
    terms = np.stack([np.ones_like(times), times / scale, (times / scale) ** 2], axis=1)
    ahead = (at_s - _middle(signal)) / scale
    here = np.array([1.0, ahead, ahead**2])
    covariance = np.linalg.pinv(terms.T @ terms) * signal.bandwidth_hz**2 / 12
    return float(np.sqrt(here @ covariance @ here))


def _redshifts(target: Target, mjd: float) -> tuple[float, float]:
    return redshifts(target.ra_deg, target.dec_deg, target.telescope.itrf_m, mjd)


def _redshift_per_s2(target: Target, mjd: float) -> float:
    """Return the change per second of the change of the redshift."""
    before, after = (_redshifts(target, mjd + side / SECONDS_PER_DAY)[1] for side in (-STEP_S, STEP_S))
    return (after - before) / (2 * STEP_S)
