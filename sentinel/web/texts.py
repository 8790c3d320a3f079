"""Numbers and times as pages show them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from aetherscan.header import UNIX_EPOCH_MJD

NONE = "-"
"""Shown where there is no value."""


def number(value: float | None, form: str = ".3f") -> str:
    """Return a number in a format of Python, or a hyphen where there is none."""
    return NONE if value is None else format(value, form)


def mhz(value: float | None) -> str:
    """Return a frequency in MHz to 1 Hz."""
    return number(value, ".6f")


def utc(mjd: float | None) -> str:
    """Return an MJD as date and time, UTC, to the second."""
    if mjd is None or not 0 < mjd < 1e6:
        return NONE
    moment = datetime.fromtimestamp(0, UTC) + timedelta(days=mjd - UNIX_EPOCH_MJD)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def clock(seconds: float | None) -> str:
    """Return a time in seconds since 1970 as date and time, UTC, to the second."""
    return NONE if seconds is None else utc(UNIX_EPOCH_MJD + seconds / 86_400)


def probability(row: Any) -> str:
    """Return the probability of a candidate and its spread, or that no forest scored it."""
    if row["probability"] is None:
        return "not scored"
    spread = row["probability_spread"]
    return f"{row['probability']:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def sexagesimal(degrees: float | None, *, hours: bool = False) -> str:
    """Return an angle as degrees (or hours), minutes and seconds."""
    if degrees is None:
        return NONE
    total = round(abs(degrees) / (15 if hours else 1) * 3600, 1)
    sign = "" if hours else "-" if degrees < 0 else "+"
    return f"{sign}{int(total // 3600):02d}:{int(total // 60 % 60):02d}:{total % 60:04.1f}"


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "mhz": mhz,
    "utc": utc,
    "clock": clock,
    "probability": probability,
    "dms": sexagesimal,
    "hms": lambda degrees: sexagesimal(degrees, hours=True),
}
