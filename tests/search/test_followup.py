"""Where a signal will be: a source without acceleration is found again, and the uncertainty holds what it says."""

import numpy as np
import pytest

from aetherscan.cadence.telescopes import TELESCOPES
from aetherscan.header import SECONDS_PER_DAY
from aetherscan.search.barycenter import redshifts
from aetherscan.search.followup import Signal, Target, predict, visibility

GBT, PARKES = TELESCOPES[6], TELESCOPES[4]
MJD = 59103.0229
ONS = ((0.0, 292.0), (682.0, 292.0), (1364.0, 292.0))
NORTH = Target(ra_deg=302.7, dec_deg=77.2, telescope=GBT)
SOUTH = Target(ra_deg=120.0, dec_deg=10.0, telescope=GBT)


def at_telescope(target, own_hz, drift, bend, times_s):
    """Return the frequency at the telescope, Hz, of a source with these values at the barycenter."""
    own = own_hz + drift * times_s + bend / 2 * times_s**2
    place = target.telescope.itrf_m
    red = [redshifts(target.ra_deg, target.dec_deg, place, MJD + at / SECONDS_PER_DAY)[0] for at in times_s]
    return own * (1 + np.array(red))


def measured(target, drift=0.0, bend=0.0, *, order=1, scatter_hz=0.0, ons=ONS, seed=1):
    """Return the track that a search fits to such a source, a straight line or a parabola, with scattered positions."""
    times = np.concatenate([np.linspace(start, start + length, 16) for start, length in ons])
    hz = at_telescope(target, 1500e6, drift, bend, times)
    hz = hz + np.repeat(np.random.default_rng(seed).normal(0, scatter_hz, 2 * len(ons)), 8)
    *curved, slope, start = np.polyfit(times, hz - 1500e6, order)
    return Signal(
        frequency_mhz=1500 + start * 1e-6,
        drift_rate_hz_s=slope,
        curvature_hz_s2=2 * curved[0] if curved else 0.0,
        bandwidth_hz=4.0,
        tstart_mjd=MJD,
        ons=ons,
    )


def off_hz(signal, target, hours, drift=0.0, bend=0.0):
    """Return by how much a prediction is wrong, and its uncertainty, Hz."""
    (there,) = predict(signal, target, [MJD + hours / 24])
    truth = at_telescope(target, 1500e6, drift, bend, np.array([hours * 3600.0]))[0]
    return there.frequency_mhz * 1e6 - truth, there.uncertainty_hz


@pytest.mark.parametrize("target", [NORTH, SOUTH])
@pytest.mark.parametrize("drift", [0.0, 0.9, -3.5])
def test_a_source_with_a_steady_drift_is_predicted_four_hours_ahead(target, drift):
    error, uncertainty = off_hz(measured(target, drift), target, 4.0, drift)
    assert abs(error) < 2.0 < uncertainty


def test_a_straight_line_at_the_telescope_would_miss_it():
    track = measured(SOUTH)
    straight = track.frequency_mhz * 1e6 + track.drift_rate_hz_s * 8 * 3600
    truth = at_telescope(SOUTH, 1500e6, 0.0, 0.0, np.array([8 * 3600.0]))[0]
    assert abs(straight - truth) > 500
    assert abs(off_hz(track, SOUTH, 8.0)[0]) < 5


def test_a_curved_track_goes_on_along_its_parabola():
    error, uncertainty = off_hz(measured(NORTH, 0.5, 4e-4, order=2), NORTH, 2.0, 0.5, 4e-4)
    assert abs(error) < uncertainty


@pytest.mark.parametrize("hours", [0.5, 2.0, 4.0])
def test_positions_known_to_the_width_over_root_12_keep_the_truth_within_the_uncertainty(hours):
    found = [off_hz(measured(NORTH, 0.3, scatter_hz=4 / 12**0.5, seed=seed), NORTH, hours, 0.3) for seed in range(20)]
    assert all(abs(error) < uncertainty for error, uncertainty in found)


def test_the_uncertainty_grows_with_the_time_and_the_width():
    one, four = (off_hz(measured(NORTH), NORTH, hours)[1] for hours in (1.0, 4.0))
    assert 2 < one < 100 < four < 2000
    twice = off_hz(measured(NORTH, ons=ONS[:2]), NORTH, 1.0)[1]
    assert twice > 3 * one


def test_a_northern_target_never_sets_at_green_bank_and_another_sets_and_rises():
    assert visibility(NORTH, MJD).changes_mjd is None
    assert visibility(NORTH, MJD).is_up
    down = visibility(SOUTH, MJD)
    assert (down.is_up, down.altitude_deg < 0) == (False, True)
    up = visibility(SOUTH, down.changes_mjd + 0.01)
    assert up.is_up
    assert 0.2 < up.changes_mjd - down.changes_mjd < 0.6
    (at_rise,) = predict(measured(SOUTH), SOUTH, [down.changes_mjd])
    assert at_rise.altitude_deg == pytest.approx(SOUTH.lowest_deg, abs=0.05)


def test_the_altitude_at_transit_is_that_of_the_sphere():
    target = Target(ra_deg=200.0, dec_deg=-33.0, telescope=PARKES)
    altitudes = [at.altitude_deg for at in predict(measured(target), target, list(MJD + np.arange(0, 1, 1 / 96)))]
    assert max(altitudes) == pytest.approx(90, abs=1.5)  # it passes the zenith of Parkes, 33 degrees south
