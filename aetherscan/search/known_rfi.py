"""RFI context of a frequency: licensed transmitters, clock harmonics, combs of lines, and neighboring lines.

The context is reported with a candidate and never rejects one: a signal from elsewhere may lie inside an allocation.
"""

from dataclasses import dataclass
from math import inf

import numpy as np
from jaxtyping import Float64, Int64

# fmt: off
ALLOCATIONS: tuple[tuple[str, float, float], ...] = (
    ("DME", 960, 1215), ("SSR 1030", 1029, 1031), ("ADS-B 1090", 1089, 1091), ("GPS L5 / Galileo E5", 1163, 1189),
    ("Galileo E5 / BeiDou B2 / GLONASS G3", 1164, 1215), ("GPS L2", 1215, 1240), ("Long-range radar", 1215, 1390),
    ("GLONASS G2", 1237, 1254), ("Amateur 23 cm", 1240, 1300), ("BeiDou B3", 1258, 1279), ("Galileo E6", 1260, 1300),
    ("GPS L3", 1374, 1386), ("Aeronautical telemetry", 1435, 1525), ("Inmarsat", 1525, 1560),
    ("BeiDou B1", 1559, 1563.2), ("GPS L1 / Galileo E1", 1570, 1580), ("GLONASS G1", 1595, 1610),
    ("Globalstar up-link", 1610, 1618.725), ("Iridium", 1616, 1626.5), ("MSS up-link", 1626.5, 1660.5),
    ("Radiosondes", 1668.4, 1700), ("GOES", 1675, 1695), ("AWS up-link", 1695, 1780), ("NOAA / Metop", 1698, 1710),
    ("Space operations up-link SGLS", 1755, 1850), ("PCS up-link", 1850, 1915), ("DECT", 1920, 1930),
    ("PCS down-link", 1930, 1995), ("Space operations up-link", 2025, 2110), ("AWS down-link", 2110, 2180),
    ("Space operations down-link", 2200, 2290), ("DSN S down-link", 2290, 2300), ("WCS", 2305, 2320),
    ("SiriusXM", 2320, 2345), ("WCS", 2345, 2360), ("Amateur 13 cm", 2300, 2310), ("Amateur 13 cm", 2390, 2450),
    ("ISM 2.4 GHz Wi-Fi", 2400, 2483.5), ("Globalstar down-link", 2483.5, 2500), ("BRS / LTE 41", 2496, 2690),
    ("Airport and weather radar", 2700, 3000), ("Marine radar S", 2900, 3100), ("Radar S", 3100, 3650),
    ("CBRS", 3550, 3700), ("5G C band", 3700, 3980), ("C-band satellite down-link", 3700, 4200),
    ("Radio altimeter", 4200, 4400), ("Wi-Fi 5 GHz", 5150, 5350), ("Wi-Fi 5 GHz", 5470, 5725),
    ("Weather radar C", 5600, 5650), ("Amateur 5 cm", 5650, 5925), ("ISM 5.8 GHz", 5725, 5875),
    ("C-band satellite up-link", 5925, 6425), ("Wi-Fi 6 GHz", 5925, 7125), ("Fixed links", 5925, 7125),
    ("DSN X up-link", 7145, 7190), ("X-band military down-link", 7250, 7750), ("Weather satellites X", 7750, 7900),
    ("X-band military up-link", 7900, 8400), ("Earth exploration", 8025, 8400), ("DSN X down-link", 8400, 8450),
    ("Space research", 8450, 8500), ("Radar X", 8500, 10550), ("Marine and airborne radar X", 9300, 9500),
    ("Amateur 3 cm", 10000, 10500), ("Fixed links", 10550, 10680), ("Ku-band satellite down-link", 10700, 12700),
)
"""Transmitters in L, S, C and X band: name, lowest and highest frequency in MHz. From the ITU Radio Regulations
(region 2), the FCC's rules (47 CFR 2.106 and part 15) and the interface documents of the navigation systems. The limits
of GPS L1, L3 and L5, Inmarsat, GLONASS G1, Iridium, MSS, GOES and NOAA are those observed in this project's data."""
# fmt: on
CLOCKS_MHZ = (10, 4, 1)
"""Reference oscillators whose harmonics a receiver picks up, the rarest first. Combs of 1 and 4 MHz are observed."""
NEAREST_LINES = 40
"""Number of lines on either side whose distances are tried as the spacing of a comb."""
MAX_COMB_LINES = 32
"""Largest number of comb lines followed to either side."""
MIN_COMB_LINES = 5
SPACINGS_HZ = (100.0, 4e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comb:
    """Equally spaced lines, one of which is the line in question."""

    spacing_hz: float
    lines: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RfiContext:
    """RFI context of a frequency; the fields are columns of the candidate table."""

    allocations: tuple[str, ...]
    clock: str
    comb_spacing_hz: float | None
    comb_teeth: int  # lines of the comb; 0 without one
    neighbours: int  # other lines within 10 kHz
    nearest_hz: float | None  # distance of the nearest other line


def rfi_context(at_mhz: float, lines_mhz: Float64[np.ndarray, " lines"], tolerance_hz: float) -> RfiContext:
    """Return the RFI context of a frequency.

    Args:
        at_mhz: the frequency.
        lines_mhz: every line in the ONs, ascending.
        tolerance_hz: accuracy of a line's frequency.
    """
    comb = find_comb(lines_mhz, at_mhz, tolerance_hz=tolerance_hz)
    count, nearest_hz = neighbors(lines_mhz, at_mhz, tolerance_hz=tolerance_hz)
    return RfiContext(
        allocations=allocations(at_mhz),
        clock=clock(at_mhz, tolerance_hz),
        comb_spacing_hz=comb.spacing_hz if comb else None,
        comb_teeth=comb.lines if comb else 0,
        neighbours=count,
        nearest_hz=nearest_hz if nearest_hz < inf else None,
    )


def allocations(frequency_mhz: float) -> tuple[str, ...]:
    """Return the names of all transmitters allowed at a frequency, in the order of the table."""
    return tuple(name for name, low, high in ALLOCATIONS if low <= frequency_mhz <= high)


def clock(frequency_mhz: float, tolerance_hz: float) -> str:
    """Return "multiple of 10 MHz" (or 4, or 1) for a frequency within `tolerance_hz` of one, '' for any other."""
    near = (mhz for mhz in CLOCKS_MHZ if abs(frequency_mhz - round(frequency_mhz / mhz) * mhz) * 1e6 <= tolerance_hz)
    return next((f"multiple of {mhz} MHz" for mhz in near), "")


def neighbors(
    lines_mhz: Float64[np.ndarray, " lines"], at_mhz: float, within_hz: float = 10_000, tolerance_hz: float = 0
) -> tuple[int, float]:
    """Return the number of other lines within `within_hz`, and the distance of the nearest in Hz (inf without one).

    Args:
        lines_mhz: every line.
        at_mhz: the line in question.
        within_hz: largest distance of a line that is counted.
        tolerance_hz: distance up to which a line is the one in question.
    """
    distance_hz = np.abs(lines_mhz - at_mhz) * 1e6
    others = distance_hz[distance_hz > tolerance_hz]
    return int(np.count_nonzero(others <= within_hz)), float(others.min(initial=inf))


def find_comb(
    lines_mhz: Float64[np.ndarray, " lines"], at_mhz: float, *, tolerance_hz: float, chance: float = 1e-3
) -> Comb | None:
    """Return the comb that the line at `at_mhz` belongs to, None if chance explains the equally spaced lines.

    The spacings tried are the distance to each of the nearest lines, half of it, and the clocks. Comb lines are
    followed to both sides. One may be missing on each side, and the spacing is corrected at every line. A line within
    4 x `tolerance_hz` of the predicted frequency belongs to the comb: two measured lines predict a third no better.

    The number of lines that make a comb follows from chance. Besides the line itself and the one that gave the
    spacing, j lines lie in windows of 8 x tolerance. If lines lie at random with `density` per Hz, a window holds one
    with probability p = 1 - exp(-8 tolerance density). If R of the j lines are on the right, the missing line there
    may be in R + 1 places and that on the left in j - R + 1, which summed over R gives C(j+3, 3). Hence m spacings
    give up to m C(j+3, 3) p^j combs by chance, and the lines are a comb if that is at most `chance`. The density is
    that of the nearest lines or that within the comb, whichever is higher.

    Args:
        lines_mhz: every line, interference included, ascending.
        at_mhz: the line in question.
        tolerance_hz: accuracy of a line's frequency, above 0.
        chance: combs expected by chance for each line in question.
    """
    lines = (lines_mhz - at_mhz) * 1e6
    lines = lines[np.diff(lines, prepend=-inf) > tolerance_hz]  # count a line found twice once
    if len(lines) < MIN_COMB_LINES:
        return None
    middle, reach = int(np.searchsorted(lines, 0.0)), 4 * tolerance_hz
    near = lines[max(0, middle - NEAREST_LINES) : middle + NEAREST_LINES]
    tried = np.concatenate([np.abs(near), np.abs(near) / 2, np.array(CLOCKS_MHZ) * 1e6])
    tried = tried[(tried >= max(SPACINGS_HZ[0], 2 * reach)) & (tried <= SPACINGS_HZ[1])]
    for _ in range(2):  # again with the spacing that both sides agree on
        right, right_hz, right_steps = _follow_comb(lines, tried, reach)
        left, left_hz, left_steps = _follow_comb(lines, -tried, reach)
        count, span_hz, steps = 1 + right + left, right_hz - left_hz, right_steps + left_steps
        tried = np.where(steps, span_hz / np.maximum(steps, 1), tried)
    many = np.flatnonzero(count >= MIN_COMB_LINES)
    if not len(many):
        return None
    inside = np.searchsorted(lines, right_hz + tolerance_hz) - np.searchsorted(lines, left_hz - tolerance_hz)
    density = np.maximum(len(near) / np.ptp(near), inside[many] / span_hz[many])
    j = count[many] - 2
    log_p = np.log(-np.expm1(-2 * reach * density))
    log_expected = np.log(len(tried) * (j + 1) * (j + 2) * (j + 3) / 6) + j * log_p
    if log_expected.min() > np.log(chance):
        return None
    best = many[np.argmin(log_expected)]
    return Comb(spacing_hz=float(tried[best]), lines=int(count[best]))


def _follow_comb(
    lines: Float64[np.ndarray, " lines"], spacings: Float64[np.ndarray, " tried"], reach: float
) -> tuple[Int64[np.ndarray, " tried"], Float64[np.ndarray, " tried"], Int64[np.ndarray, " tried"]]:
    """Return, for each spacing (negative: leftward), the number of comb lines, and the last one's distance and number.

    Args:
        lines: distances of all lines from the one in question, Hz, ascending.
        spacings: to try, Hz.
        reach: largest distance of a comb line from its predicted place, Hz.
    """
    matched, missed, last = (np.zeros(len(spacings), dtype=np.int64) for _ in range(3))
    last_hz = np.zeros(len(spacings))
    for number in range(1, MAX_COMB_LINES + 1):
        expected = np.where(last, last_hz / np.maximum(last, 1), spacings) * number
        after = np.clip(np.searchsorted(lines, expected), 1, len(lines) - 1)
        nearest = np.where(lines[after] - expected < expected - lines[after - 1], lines[after], lines[after - 1])
        hit = (np.abs(nearest - expected) <= reach) & (missed <= 1)
        matched, missed = matched + hit, missed + ~hit
        last, last_hz = np.where(hit, number, last), np.where(hit, nearest, last_hz)
        if (missed > 1).all():
            break
    return matched, last_hz, last
