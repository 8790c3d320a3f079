"""Barycentric frequencies agree with the derivative of the light travel time; what is not known is None."""

from dataclasses import replace

import pytest
from astropy import units
from astropy.coordinates import EarthLocation, SkyCoord
from astropy.time import Time
from astropy.utils import iers

from aetherscan.cadence.telescopes import TELESCOPES
from aetherscan.header import gbt_header
from aetherscan.search.barycenter import Pointing, pointing_of

CLOCK = 1.55e-8
"""Rate of the barycentric clock (TCB, without its periodic terms) over that at the telescope, less 1."""
HEADER = gbt_header()


def light_travel_rate(ra_deg, dec_deg, itrf_m, mjd, step_s=30.0):
    """Return how fast the light travel time to the barycenter grows, by a numeric derivative."""
    place = EarthLocation.from_geocentric(*itrf_m, unit=units.m)
    times = Time([mjd - step_s / 86_400, mjd + step_s / 86_400], format="mjd", scale="utc", location=place)
    with iers.conf.set_temp("auto_download", False):
        early, late = times.light_travel_time(SkyCoord(ra_deg * units.deg, dec_deg * units.deg)).to_value(units.s)
    return (late - early) / (2 * step_s)


@pytest.mark.parametrize("telescope_id", [4, 6, 64])
@pytest.mark.parametrize(
    ("ra_h", "dec_deg", "mjd"), [(20.18, 77.2, 59103.02), (0.7, -10.0, 57388.0), (13.3, 30.0, 60200.7)]
)
def test_a_frequency_at_the_barycenter_is_that_of_the_light_travel_time(telescope_id, ra_h, dec_deg, mjd):
    header = replace(HEADER, telescope_id=telescope_id, src_raj=ra_h, src_dej=dec_deg, tstart=mjd)
    mhz, _ = pointing_of(header).at_barycenter(1500.0, 0.0)
    rate = light_travel_rate(15 * ra_h, dec_deg, TELESCOPES[telescope_id].itrf_m, mjd)
    assert 1500.0 / mhz - 1 == pytest.approx(rate + CLOCK, abs=1e-9)  # 1.5 Hz; the shift is up to 150 kHz


def test_a_line_that_stands_still_at_the_barycenter_drifts_at_the_telescope_by_what_is_taken_out():
    telescope_hz = []
    for seconds in (0.0, 300.0):
        pointing = pointing_of(replace(HEADER, tstart=HEADER.tstart + seconds / 86_400))
        telescope_hz.append(1500e6 * (1 + pointing.redshift))
    drift = (telescope_hz[1] - telescope_hz[0]) / 300.0
    assert abs(drift) > 0.01
    assert pointing_of(HEADER).at_barycenter(1500.0, drift)[1] == pytest.approx(0.0, abs=3e-4)


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({"telescope_id": 99}, ("ra_deg", "dec_deg")),
        ({"telescope_id": 0}, ("ra_deg", "dec_deg")),
        ({"src_raj": 0.0, "src_dej": 0.0}, ("telescope",)),
        ({"src_raj": float("nan")}, ("telescope",)),
        ({"src_dej": 7711.2}, ("telescope",)),
        ({"telescope_id": -(2**31), "src_raj": 0.0, "src_dej": 0.0}, ()),
    ],
)
def test_what_the_header_does_not_tell_is_none_and_never_a_wrong_number(change, known):
    pointing = pointing_of(replace(HEADER, **change))
    assert {name for name in Pointing.__dataclass_fields__ if getattr(pointing, name) is not None} == set(known)
    assert pointing.at_barycenter(1500.0, 0.1) == (None, None)


@pytest.mark.parametrize("tstart", [40_001.0, 62_500.0, 99_999.0])
def test_a_date_beyond_the_tables_of_astropy_gives_a_velocity_of_the_right_size(tstart):
    assert 0 < abs(pointing_of(replace(HEADER, tstart=tstart)).redshift) < 1.1e-4


def test_the_settings_of_astropy_are_left_as_they_were():
    before = (iers.conf.auto_download, iers.conf.iers_degraded_accuracy)
    pointing_of(HEADER)
    assert (iers.conf.auto_download, iers.conf.iers_degraded_accuracy) == before


@pytest.mark.parametrize(
    ("name", "longitude", "latitude"),
    [
        ("Arecibo", -66.75, 18.34), ("Ooty", 76.67, 11.38), ("Nancay", 2.20, 47.38), ("Parkes", 148.26, -33.00),
        ("Lovell", -2.31, 53.24), ("GBT", -79.84, 38.43), ("GMRT", 74.05, 19.09), ("Effelsberg", 6.88, 50.52),
        ("CHIME", -119.62, 49.32), ("FAST", 106.86, 25.65), ("MeerKAT", 21.44, -30.71),
    ],
)  # fmt: skip
def test_every_telescope_stands_where_maps_show_it(name, longitude, latitude):
    (telescope,) = (each for each in TELESCOPES.values() if each.name == name)
    place = EarthLocation.from_geocentric(*telescope.itrf_m, unit=units.m)
    assert (place.lon.deg, place.lat.deg) == (pytest.approx(longitude, abs=0.03), pytest.approx(latitude, abs=0.03))
    assert -100 < place.height.to_value(units.m) < 3000
