"""Convert the coordinates of a header to hours and degrees, in whichever form the writer stored them.

The form is part of the format: decimal hours and degrees in HDF5, packed HHMMSS.s and DDMMSS.s in SIGPROC. Some writers
store the other form, or degrees for hours. What can only mean one thing is converted, and a note says so. Anything else
is not used: the scan counts as one without coordinates, and the note says what was expected and found.
"""

import math

NONE = (0.0, 0.0)
"""Hours and degrees that writers without coordinates store."""


def coordinates(ra: float, dec: float, *, packed: bool) -> tuple[float, float, str]:
    """Return right ascension in hours, declination in degrees, and a note, empty where the form is the format's.

    Args:
        ra: as stored.
        dec: as stored.
        packed: the format stores HHMMSS.s and DDMMSS.s.
    """
    found = f"src_raj {ra:.10g}, src_dej {dec:.10g}"
    if (ra, dec) == NONE:
        return *NONE, ""
    decimal = 0 <= ra < 360 and abs(dec) <= 90  # packed: within 4 minutes of 0 h and 90" of the equator
    if decimal and packed:
        hours, form = (ra, "hours") if ra < 24 else (ra / 15, "degrees")
        return hours, dec, f"{found}: read as decimal {form} and degrees, not as HHMMSS"
    if decimal:
        return (ra, dec, "") if ra < 24 else (ra / 15, dec, f"{found}: read as degrees, not as hours")
    if packed or (ra >= 360 and abs(dec) > 90):
        hours, degrees = _unpacked(ra), _unpacked(dec)
        if 0 <= hours < 24 and abs(degrees) <= 90:
            return hours, degrees, "" if packed else f"{found}: read as HHMMSS and DDMMSS"
    expected = "HHMMSS.s and DDMMSS.s" if packed else "0 to 24 hours and -90 to 90 degrees"
    return *NONE, f"coordinates not used: expected {expected}, found {found}"


def _unpacked(angle: float) -> float:
    """Convert HHMMSS.s to hours or DDMMSS.s to degrees; NaN where minutes or seconds are more than 60."""
    if not math.isfinite(angle):
        return math.nan
    whole, rest = divmod(abs(angle), 10_000)
    minutes, seconds = divmod(rest, 100)
    if minutes >= 60 or seconds > 60:
        return math.nan
    return math.copysign(whole + minutes / 60 + seconds / 3600, angle)
