"""What is known of a frequency: who transmits there, clocks, combs, neighbours."""

from dataclasses import asdict

import numpy as np
import pytest

from aetherscan.search.known_rfi import ALLOCATIONS, Comb, allocations, clock, combs, neighbours, rfi_context

TOLERANCE_HZ = 5.0


def sky(rng, per_mhz, mhz=20.0, low=1400.0):
    """Lines at random."""
    return np.sort(rng.uniform(low, low + mhz, round(per_mhz * mhz)))


def comb(spacing_hz, teeth, rng, first=1405.1234567):
    """Equally spaced lines, each measured a little off."""
    return first + (np.arange(teeth) * spacing_hz + rng.uniform(-TOLERANCE_HZ, TOLERANCE_HZ, teeth)) * 1e-6


@pytest.mark.parametrize(
    ("mhz", "name"),
    [
        (1176.45, "GPS L5 / Galileo E5"),
        (1381.05, "GPS L3"),
        (1575.42, "GPS L1 / Galileo E1"),
        (1602.0, "GLONASS G1"),
        (1621.25, "Iridium"),
        (1686.6, "GOES"),
        (1701.3, "NOAA / Metop"),
        (2295.0, "DSN S down-link"),
        (5625.0, "Weather radar C"),
        (8419.3197, "DSN X down-link"),  # Voyager 1
    ],
)
def test_a_transmitter_is_named_on_its_frequency(mhz, name):
    assert name in allocations(mhz)


def test_where_transmitters_overlap_all_are_named_in_the_order_of_the_table():
    assert allocations(1200.0) == ("DME", "Galileo E5 / BeiDou B2 / GLONASS G3")
    assert allocations(1420.4) == ()


def test_the_table_can_be_written_as_one_column_of_text_and_into_a_message():
    assert not [name for name, _, _ in ALLOCATIONS if set(name) & set(",;&<>")]
    assert all(0 < low < high for _, low, high in ALLOCATIONS)


def test_a_frequency_on_a_whole_multiple_of_a_clock_says_of_which():
    assert clock(1420.0 + 3e-6, TOLERANCE_HZ) == "multiple of 10 MHz"
    assert clock(1424.0 - 3e-6, TOLERANCE_HZ) == "multiple of 4 MHz"
    assert clock(1423.0, TOLERANCE_HZ) == "multiple of 1 MHz"
    assert clock(1423.0 + 7e-6, TOLERANCE_HZ) == ""


def test_neighbours_are_the_other_lines():
    lines = np.array([1400.0, 1400.004, 1400.02])
    count, nearest_hz = neighbours(lines, 1400.0, tolerance_hz=TOLERANCE_HZ)
    assert (count, nearest_hz) == (1, pytest.approx(4000))
    assert neighbours(lines[:1], 1400.0) == (0, np.inf)


@pytest.mark.parametrize("per_mhz", [15, 100, 300])
def test_lines_at_random_are_hardly_ever_a_comb(per_mhz):
    rng = np.random.default_rng(per_mhz)
    asked = [(lines, at) for lines in (sky(rng, per_mhz) for _ in range(10)) for at in rng.choice(lines, 60)]
    assert sum(combs(lines, at, tolerance_hz=TOLERANCE_HZ) is not None for lines, at in asked) <= 2  # 0.6 expected


def test_the_tangle_of_lines_of_one_wide_signal_is_hardly_ever_a_comb():
    rng = np.random.default_rng(5)
    false = 0
    for _ in range(100):
        lines = np.sort(np.append(sky(rng, 15), 1410 + rng.normal(0, 5e-3, 100)))
        false += combs(lines, lines[np.argmin(np.abs(lines - 1410))], tolerance_hz=TOLERANCE_HZ) is not None
    assert false <= 1


@pytest.mark.parametrize("per_mhz", [15, 300])
@pytest.mark.parametrize("spacing_hz", [1e3, 31_250.0, 1e6])
def test_a_tooth_of_a_comb_knows_its_spacing_wherever_it_is_and_whichever_other_is_missing(spacing_hz, per_mhz):
    rng = np.random.default_rng(8)
    for at, missing in ((0, None), (7, None), (7, 3), (7, 8), (13, 12)):
        teeth = comb(spacing_hz, 14, rng)
        others = np.delete(teeth, missing) if missing is not None else teeth
        found = combs(np.sort(np.append(sky(rng, per_mhz), others)), float(teeth[at]), tolerance_hz=TOLERANCE_HZ)
        assert found is not None
        assert found.spacing_hz == pytest.approx(spacing_hz, abs=TOLERANCE_HZ)
        assert len(others) <= found.teeth <= len(others) + 3  # a line of the sky may lie on a tooth


def test_five_teeth_are_enough_in_a_quiet_sky_and_four_nowhere():
    rng = np.random.default_rng(2)
    lines = sky(rng, 15)
    for teeth, is_comb in ((comb(31_250.0, 5, rng), True), (comb(31_250.0, 4, rng), False)):
        found = combs(np.sort(np.append(lines, teeth)), float(teeth[2]), tolerance_hz=TOLERANCE_HZ)
        assert (found is not None) == is_comb


def test_the_busier_the_sky_the_more_teeth_make_a_comb():
    rng = np.random.default_rng(4)
    teeth = comb(31_250.0, 5, rng)
    assert combs(np.sort(np.append(sky(rng, 1000), teeth)), float(teeth[2]), tolerance_hz=TOLERANCE_HZ) is None


def test_a_line_found_several_times_is_one_tooth():
    rng = np.random.default_rng(6)
    four = comb(31_250.0, 4, rng)
    again = np.sort(np.concatenate([four, four + 1e-6, four + 2e-6]))
    assert combs(again, float(four[1]), tolerance_hz=TOLERANCE_HZ) is None


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_line_with_hardly_any_others_is_in_no_comb(count):
    assert combs(1400.0 + np.arange(count) * 0.1, 1400.0, tolerance_hz=TOLERANCE_HZ) is None


def test_a_line_in_the_band_of_navigation_satellites_on_a_clock_comb_is_told_all_of_it():
    lines = np.arange(1560.0, 1590.0)
    facts = rfi_context(1575.0, np.sort(np.append(lines, 1575.002)), TOLERANCE_HZ)
    assert asdict(facts) == {
        "allocations": ("GPS L1 / Galileo E1",),
        "clock": "multiple of 1 MHz",
        "comb_spacing_hz": pytest.approx(1e6),
        "comb_teeth": 30,
        "neighbours": 1,
        "nearest_hz": pytest.approx(2000),
    }


def test_a_line_alone_in_a_free_band_has_no_surroundings():
    facts = rfi_context(1420.4057, np.array([1420.4057]), TOLERANCE_HZ)
    assert (facts.allocations, facts.clock, facts.comb_spacing_hz, facts.comb_teeth) == ((), "", None, 0)
    assert (facts.neighbours, facts.nearest_hz) == (0, None)


def test_a_band_full_of_lines_does_not_make_the_search_for_combs_slow():
    rng = np.random.default_rng(9)
    teeth = comb(1e6, 12, rng)
    lines = np.sort(np.append(sky(rng, 250, mhz=200.0), teeth))
    found = combs(lines, float(teeth[5]), tolerance_hz=TOLERANCE_HZ)
    assert isinstance(found, Comb)
    assert found.spacing_hz == pytest.approx(1e6, abs=TOLERANCE_HZ)
