"""RFI context: transmitters, clock harmonics, combs and neighboring lines of a frequency."""

from dataclasses import asdict

import numpy as np
import pytest

from aetherscan.search import known_rfi
from aetherscan.search.known_rfi import (
    ALLOCATIONS,
    NEAREST_LINES,
    allocations,
    clock,
    find_comb,
    neighbors,
    rfi_context,
)

TOLERANCE_HZ = 5.0


def random_lines(rng, per_mhz, mhz=20.0, low=1400.0):
    """Return random line frequencies, ascending, MHz."""
    return np.sort(rng.uniform(low, low + mhz, round(per_mhz * mhz)))


def comb(spacing_hz, count, rng, first=1405.1234567):
    """Return equally spaced lines, MHz, each with a measurement error of up to the tolerance."""
    return first + (np.arange(count) * spacing_hz + rng.uniform(-TOLERANCE_HZ, TOLERANCE_HZ, count)) * 1e-6


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


def test_all_transmitters_that_share_a_frequency_are_named_in_the_order_of_the_table():
    assert allocations(1200.0) == ("DME", "Galileo E5 / BeiDou B2 / GLONASS G3")
    assert allocations(1420.4) == ()


def test_transmitter_names_hold_no_separator_of_tables_or_messages():
    assert not [name for name, _, _ in ALLOCATIONS if set(name) & set(",;&<>")]
    assert all(0 < low < high for _, low, high in ALLOCATIONS)


def test_a_multiple_of_a_clock_frequency_is_named():
    assert clock(1420.0 + 3e-6, TOLERANCE_HZ) == "multiple of 10 MHz"
    assert clock(1424.0 - 3e-6, TOLERANCE_HZ) == "multiple of 4 MHz"
    assert clock(1423.0, TOLERANCE_HZ) == "multiple of 1 MHz"
    assert clock(1423.0 + 7e-6, TOLERANCE_HZ) == ""


def test_neighbors_are_the_other_lines():
    lines = np.array([1400.0, 1400.004, 1400.02])
    count, nearest_hz = neighbors(lines, 1400.0, tolerance_hz=TOLERANCE_HZ)
    assert (count, nearest_hz) == (1, pytest.approx(4000))
    assert neighbors(lines[:1], 1400.0) == (0, np.inf)


@pytest.mark.parametrize("per_mhz", [15, 100, 300])
def test_random_lines_are_rarely_a_comb(per_mhz):
    rng = np.random.default_rng(per_mhz)
    pairs = [(lines, at) for lines in (random_lines(rng, per_mhz) for _ in range(10)) for at in rng.choice(lines, 60)]
    assert sum(find_comb(lines, at, tolerance_hz=TOLERANCE_HZ) is not None for lines, at in pairs) <= 2  # 0.6 expected


def test_the_many_lines_of_one_wide_signal_are_rarely_a_comb():
    rng = np.random.default_rng(5)
    false = 0
    for _ in range(100):
        lines = np.sort(np.append(random_lines(rng, 15), 1410 + rng.normal(0, 5e-3, 100)))
        false += find_comb(lines, lines[np.argmin(np.abs(lines - 1410))], tolerance_hz=TOLERANCE_HZ) is not None
    assert false <= 1


@pytest.mark.parametrize("per_mhz", [15, 300])
@pytest.mark.parametrize("spacing_hz", [1e3, 31_250.0, 1e6])
def test_a_comb_is_found_from_any_of_its_lines_with_any_one_other_missing(spacing_hz, per_mhz):
    rng = np.random.default_rng(8)
    for at, missing in ((0, None), (7, None), (7, 3), (7, 8), (13, 12)):
        comb_lines = comb(spacing_hz, 14, rng)
        others = np.delete(comb_lines, missing) if missing is not None else comb_lines
        found = find_comb(
            np.sort(np.append(random_lines(rng, per_mhz), others)), float(comb_lines[at]), tolerance_hz=TOLERANCE_HZ
        )
        assert found is not None
        assert found.spacing_hz == pytest.approx(spacing_hz, abs=TOLERANCE_HZ)
        assert len(others) <= found.lines <= len(others) + 3  # a random line may coincide with the comb


def test_five_lines_make_a_comb_in_a_quiet_band_and_four_do_not():
    rng = np.random.default_rng(2)
    lines = random_lines(rng, 15)
    for comb_lines, is_comb in ((comb(31_250.0, 5, rng), True), (comb(31_250.0, 4, rng), False)):
        found = find_comb(np.sort(np.append(lines, comb_lines)), float(comb_lines[2]), tolerance_hz=TOLERANCE_HZ)
        assert (found is not None) == is_comb


def test_five_lines_make_no_comb_in_a_crowded_band():
    rng = np.random.default_rng(4)
    comb_lines = comb(31_250.0, 5, rng)
    assert (
        find_comb(
            np.sort(np.append(random_lines(rng, 1000), comb_lines)), float(comb_lines[2]), tolerance_hz=TOLERANCE_HZ
        )
        is None
    )


def test_a_line_found_several_times_counts_once():
    rng = np.random.default_rng(6)
    four = comb(31_250.0, 4, rng)
    again = np.sort(np.concatenate([four, four + 1e-6, four + 2e-6]))
    assert find_comb(again, float(four[1]), tolerance_hz=TOLERANCE_HZ) is None


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_line_with_few_others_is_in_no_comb(count):
    assert find_comb(1400.0 + np.arange(count) * 0.1, 1400.0, tolerance_hz=TOLERANCE_HZ) is None


def test_the_context_combines_transmitter_clock_comb_and_neighbor():
    lines = np.arange(1560.0, 1590.0)
    context = rfi_context(1575.0, np.sort(np.append(lines, 1575.002)), TOLERANCE_HZ)
    assert asdict(context) == {
        "allocations": ("GPS L1 / Galileo E1",),
        "clock": "multiple of 1 MHz",
        "comb_spacing_hz": pytest.approx(1e6),
        "comb_teeth": 30,
        "neighbours": 1,
        "nearest_hz": pytest.approx(2000),
    }


def test_a_single_line_in_an_unallocated_band_has_an_empty_context():
    context = rfi_context(1420.4057, np.array([1420.4057]), TOLERANCE_HZ)
    assert (context.allocations, context.clock, context.comb_spacing_hz, context.comb_teeth) == ((), "", None, 0)
    assert (context.neighbours, context.nearest_hz) == (0, None)


def test_the_work_to_find_a_comb_does_not_grow_with_the_number_of_lines(monkeypatch):
    rng = np.random.default_rng(9)
    comb_lines = comb(1e6, 12, rng)
    lines = np.sort(np.append(random_lines(rng, 250, mhz=200.0), comb_lines))
    spacings, follow = [], known_rfi._follow_comb
    monkeypatch.setattr(known_rfi, "_follow_comb", lambda *given: spacings.append(len(given[1])) or follow(*given))
    found = find_comb(lines, float(comb_lines[5]), tolerance_hz=TOLERANCE_HZ)
    assert found is not None
    assert found.spacing_hz == pytest.approx(1e6, abs=TOLERANCE_HZ)
    assert len(spacings) == 4  # two sides, twice
    assert max(spacings) <= 2 * 2 * NEAREST_LINES + 3  # distances of the nearest lines, their halves, three clocks
