"""Numbers and times as pages show them."""

from collections.abc import Callable, Sequence
from typing import Any

from aetherscan.cadence.roles import sexagesimal as unsigned
from aetherscan.header import SECONDS_PER_DAY, UNIX_EPOCH_MJD, utc_of

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
    return f"{utc_of(mjd):%Y-%m-%d %H:%M:%S}"


def clock(seconds: float | None) -> str:
    """Return a time in seconds since 1970 as date and time, UTC, to the second."""
    return NONE if seconds is None else utc(UNIX_EPOCH_MJD + seconds / SECONDS_PER_DAY)


def probability(row: Any) -> str:
    """Return the probability of a candidate and its spread, or that no forest scored it."""
    if row["probability"] is None:
        return "not scored"
    spread = row["probability_spread"]
    return f"{row['probability']:.3f}" + ("" if spread is None else f" ± {spread:.3f}")


def injected(facts: Any) -> str:
    """Return what an injected signal was, and what a person took it for."""
    signal = f"SNR {facts['snr']:.1f} in each ON, {facts['drift_rate_hz_s']:+.3f} Hz/s"
    return f"was an injected signal ({signal}); you labeled it {facts['label']}"


def sexagesimal(degrees: float | None, *, hours: bool = False) -> str:
    """Return an angle as degrees (or hours), minutes and seconds."""
    if degrees is None:
        return NONE
    sign = "" if hours else "-" if degrees < 0 else "+"
    return sign + unsigned(abs(degrees) / (15 if hours else 1), 1)


def numbers(values: Sequence[float] | None) -> str:
    """Return numbers with one digit after the point, separated by blanks."""
    return " ".join(f"{value:.1f}" for value in values or ())


def bars(snr: Sequence[float] | None, on: Sequence[bool] | None, shown: bool) -> str:  # noqa: FBT001 - of a template
    """Return the SVG path of a small bar chart of the SNR of each observation: of the ONs, or of the OFFs.

    Args:
        snr: of each observation.
        on: whether each is an ON; None for every other one, from the first.
        shown: whether the bars of the ONs are drawn, or those of the OFFs.
    """
    values = [max(0.0, value) for value in snr or ()]
    scale = 16 / max([*values, 10.0])
    return "".join(
        f"M{7 * i + 0.5} 17v-{max(1.0, value * scale):.1f}h5V17z"
        for i, value in enumerate(values)
        if (on[i] if on else i % 2 == 0) == shown
    )


FILTERS: dict[str, Callable[..., Any]] = {
    "number": number,
    "mhz": mhz,
    "utc": utc,
    "clock": clock,
    "probability": probability,
    "injected": injected,
    "numbers": numbers,
    "bars": bars,
    "dms": sexagesimal,
    "hms": lambda degrees: sexagesimal(degrees, hours=True),
}
