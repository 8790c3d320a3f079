"""Where a scan points, and how the telescope moves along that direction.

The frequency and the drift rate of a candidate are those at the telescope. Its motion around the axis of the Earth and
around the Sun shifts both. What a source that is fixed in the direction of the target has at the barycenter of the
solar system is a second pair of numbers, in addition and never in place of the first.

The velocity is that of astropy's `radial_velocity_correction`, which follows Wright and Eastman 2014
(doi:10.1086/678541). It includes the slower clock at the telescope (gravity and motion), 1.55e-8 or 23 Hz at 1.5 GHz,
which barycentering by light travel time alone (TDB) leaves out. The rotation of the Earth and the positions of the
planets are those that astropy brings along; nothing is downloaded. Beyond the end of its table of the Earth's rotation
the velocity is wrong by up to 1e-10.
"""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from astropy import units
from astropy.coordinates import EarthLocation, SkyCoord, solar_system_ephemeris
from astropy.time import Time
from astropy.utils import iers

from aetherscan.cadence.telescopes import TELESCOPES
from aetherscan.header import SECONDS_PER_DAY, Header

STEP_S = 60.0
"""Time to either side over which the change of the velocity is measured."""
LIGHT_M_S = 299_792_458.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointing:
    """Direction of a scan, its telescope, and the motion of that toward the direction; None where not known.

    Attributes:
        ra_deg: right ascension, J2000.
        dec_deg: declination.
        telescope: name of the telescope.
        redshift: z, by which a frequency at the barycenter is that at the telescope over 1 + z.
        redshift_per_s: its change.
    """

    ra_deg: float | None = None
    dec_deg: float | None = None
    telescope: str | None = None
    redshift: float | None = None
    redshift_per_s: float | None = None

    def at_barycenter(self, frequency_mhz: float, drift_rate_hz_s: float) -> tuple[float | None, float | None]:
        """Return frequency and drift rate at the barycenter, of those at the telescope."""
        if self.redshift is None or self.redshift_per_s is None:
            return None, None
        ratio = 1 + self.redshift
        drift = drift_rate_hz_s - frequency_mhz * 1e6 * self.redshift_per_s / ratio
        return frequency_mhz / ratio, drift / ratio**2


def pointing_of(header: Header) -> Pointing:
    """Return where a scan points at its start, and the motion of the telescope."""
    telescope = TELESCOPES.get(header.telescope_id)
    name = telescope.name if telescope else None
    if not (header.has_coordinates and abs(header.src_dej) <= 90):
        return Pointing(telescope=name)
    direction = (15 * header.src_raj % 360, header.src_dej)
    motion = redshifts(*direction, telescope.itrf_m, header.tstart) if telescope else (None, None)
    return Pointing(
        ra_deg=direction[0], dec_deg=direction[1], telescope=name, redshift=motion[0], redshift_per_s=motion[1]
    )


def redshifts(ra_deg: float, dec_deg: float, itrf_m: tuple[float, float, float], mjd: float) -> tuple[float, float]:
    """Return the redshift by which a telescope corrects to the barycenter, and its change per second.

    Args:
        ra_deg: right ascension, J2000.
        dec_deg: declination.
        itrf_m: place of the telescope.
        mjd: UTC.
    """
    times = mjd + np.array([-STEP_S, 0, STEP_S]) / SECONDS_PER_DAY
    with offline():
        velocity = SkyCoord(ra_deg * units.deg, dec_deg * units.deg).radial_velocity_correction(
            "barycentric",
            obstime=Time(times, format="mjd", scale="utc"),
            location=EarthLocation.from_geocentric(*itrf_m, unit=units.m),
        )
    before, now, after = (velocity.to_value(units.m / units.s) / LIGHT_M_S).tolist()
    return now, (after - before) / (2 * STEP_S)


@contextmanager
def offline() -> Iterator[None]:
    """Let astropy compute with the tables that are installed, without a download and without warnings about them."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # about years without leap seconds or polar motion
        stack.enter_context(iers.conf.set_temp("auto_download", value=False))  # of leap seconds
        stack.enter_context(iers.conf.set_temp("iers_degraded_accuracy", "ignore"))
        stack.enter_context(iers.earth_orientation_table.set(_earth_rotation()))
        stack.enter_context(solar_system_ephemeris.set("builtin"))
        yield


@lru_cache(maxsize=1)
def _earth_rotation() -> Any:
    """Return the table of the Earth's rotation, measured and predicted, that is installed."""
    return iers.IERS_A.open(iers.IERS_A_FILE)
