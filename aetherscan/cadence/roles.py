"""The roles of the scans of a cadence, as values and as lines for people: target, ONs, OFFs, places and times."""

from collections.abc import Sequence
from typing import Any

from aetherscan.header import Header, utc_of


def roles_of(headers: Sequence[Header], on: Sequence[int]) -> list[dict[str, Any]]:
    """Return role, name, place and time of each scan, as they are recorded with a search; positions count from 1.

    Args:
        headers: of the scans, in the order of the cadence.
        on: positions of the ONs, counted from 0.
    """
    return [
        {
            "position": i + 1,
            "role": "ON" if i in on else "OFF",
            "name": header.source_name,
            "beam": header.ibeam if header.ibeam >= 0 else None,
            "ra_hours": round(header.src_raj, 6) if header.has_coordinates else None,
            "dec_degrees": round(header.src_dej, 6) if header.has_coordinates else None,
            "start_utc": f"{utc_of(header.tstart):%Y-%m-%d %H:%M:%S}",
            "seconds": round(header.duration_s, 1),
            "note": header.coordinate_note,
        }
        for i, header in enumerate(headers)
    ]


def role_lines(target: str, roles: Sequence[dict[str, Any]]) -> list[str]:
    """Return `TARGET  ON 1 3 5  OFF 2 4 6`, and a line for each scan with its name, place and time."""
    numbers = {
        role: " ".join(str(scan["position"]) for scan in roles if scan["role"] == role) for role in ("ON", "OFF")
    }
    return [f"{printable(target)}  ON {numbers['ON']}  OFF {numbers['OFF']}", *map(_scan_line, roles)]


def _scan_line(scan: dict[str, Any]) -> str:
    place = "no coordinates"
    if scan["ra_hours"] is not None:
        sign = "-" if scan["dec_degrees"] < 0 else "+"
        place = f"RA {sexagesimal(scan['ra_hours'], 1)} Dec {sign}{sexagesimal(abs(scan['dec_degrees']), 0)}"
    words = [
        f"  {scan['position']:>2} {scan['role']:<3}",
        printable(scan["name"]) + (f" beam {scan['beam']}" if scan["beam"] is not None else ""),
        place,
        f"{scan['start_utc']} UTC",
        f"{scan['seconds']:.0f} s",
        f"({printable(scan['note'])})" if scan["note"] else "",
    ]
    return "  ".join(words).rstrip()


def printable(text: str) -> str:
    """Return text from a file's header with `?` in place of each control character."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def sexagesimal(angle: float, decimals: int) -> str:
    """Return hours or degrees, not negative, as 20:10:58.4, with so many decimals of a second."""
    unit = 10**decimals
    whole, part = divmod(round(angle * 3600 * unit), 3600 * unit)
    minutes, seconds = divmod(part / unit, 60)
    return f"{whole:02d}:{minutes:02.0f}:{seconds:0{3 + decimals if decimals else 2}.{decimals}f}"
