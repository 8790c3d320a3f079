"""Say where to look for a candidate again: for the observer in one line, and as a table.

The astronomy is in `aetherscan.search.followup`, which loads astropy, and is imported where it is used. Where the
telescope, its place or the direction is not known, the text says so and has no number.
"""

import json
import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from aetherscan.cadence.roles import sexagesimal
from aetherscan.header import SECONDS_PER_DAY, UNIX_EPOCH_MJD, utc_of
from sentinel.notify.messages import escaped

LOG = logging.getLogger(__name__)
AHEAD_H = (0.0, 1.0, 2.0, 4.0)
"""Hours from now for which the frequency is predicted."""
MOST_HZ = 1e6
"""A prediction that is less certain is none: a search of the band would do as well."""
MOVES_ARCMIN = 1.0
"""A target whose ONs lie farther apart moves, so its direction is that of the first ON only."""


def known_track(row: Mapping[str, Any], run: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the `Signal` and the `Target` of a candidate.

    Args:
        row: of the table `candidate`.
        run: record of the search of its cadence, with the roles of the scans.

    Raises:
        LookupError: something is not known; the message names it.
    """
    from aetherscan.cadence.telescopes import TELESCOPES
    from aetherscan.search.followup import Signal, Target

    telescope = next((known for known in TELESCOPES.values() if known.name == row.get("telescope")), None)
    if telescope is None:
        raise LookupError("the header names no telescope of known place")
    if row.get("ra_deg") is None or row.get("dec_deg") is None:
        raise LookupError("the header has no coordinates of the target")
    ons = _ons(run.get("roles") or (), row["tstart_mjd"])
    if not ons:
        raise LookupError("the start of its scans is not recorded")
    signal = Signal(
        frequency_mhz=row["frequency_mhz"],
        drift_rate_hz_s=row["drift_rate_hz_s"],
        curvature_hz_s2=row.get("curvature_hz_s2") or 0.0,
        bandwidth_hz=row["bandwidth_hz"],
        tstart_mjd=row["tstart_mjd"],
        ons=ons,
    )
    return signal, Target(ra_deg=row["ra_deg"], dec_deg=row["dec_deg"], telescope=telescope)


def _ons(roles: Sequence[Mapping[str, Any]], tstart_mjd: float) -> tuple[tuple[float, float], ...]:
    first, ons = utc_of(tstart_mjd), [scan for scan in roles if scan["role"] == "ON"]
    starts = [datetime.fromisoformat(scan["start_utc"]).replace(tzinfo=UTC) for scan in ons]
    return tuple(((at - first).total_seconds(), float(scan["seconds"])) for at, scan in zip(starts, ons, strict=True))


def observer_line(row: Mapping[str, Any], run: Mapping[str, Any], unix_s: float) -> str:
    """Return one line for the observer: target, place, telescope, frequency at a time, drift, and how long it is up.

    An error of the prediction is logged, and costs no message.

    Args:
        row: of the table `candidate`.
        run: record of the search of its cadence.
        unix_s: time of the prediction, seconds since 1970.
    """
    try:
        return _observer_line(row, run, unix_s)
    except LookupError as missing:
        return f"follow up: no prediction, because {missing.args[0]}"
    except Exception:
        LOG.exception("candidate at %r MHz: no prediction", row.get("frequency_mhz"))
        return "follow up: no prediction, because of an error: see the log"


def _observer_line(row: Mapping[str, Any], run: Mapping[str, Any], unix_s: float) -> str:
    from aetherscan.search.followup import predict, visibility

    signal, target = known_track(row, run)
    now = _mjd(unix_s)
    (here,) = predict(signal, target, [now])
    place = f"RA {sexagesimal(target.ra_deg / 15, 1)} Dec {_signed(target.dec_deg)} (J2000)"
    moving = (row.get("on_separation_arcmin") or 0.0) > MOVES_ARCMIN
    return (
        f"follow up: {escaped(row['target'])}, {place}{', a target that moves' if moving else ''}, "
        f"{target.telescope.name}: {_where(here, now - signal.tstart_mjd)}; {_up(visibility(target, now), now)}"
    )


def _where(at: Any, days: float) -> str:
    """Return frequency and drift rate of a prediction, unless the cadence is too many days old for one."""
    if at.uncertainty_hz > MOST_HZ:
        return f"no frequency is predicted, because the cadence is {days:.0f} days old"
    uncertainty = _hz(at.uncertainty_hz)
    return f"{at.frequency_mhz:.6f} MHz +/- {uncertainty} at {_clock(at.mjd)} UTC, {at.drift_rate_hz_s:+.3f} Hz/s"


def follow_lines(row: Mapping[str, Any], run: Mapping[str, Any], unix_s: float) -> list[str]:
    """Return the line for the observer, and a table of the next hours.

    Args:
        row: of the table `candidate`.
        run: record of the search of its cadence.
        unix_s: time of the prediction, seconds since 1970.
    """
    from aetherscan.search.followup import predict

    line = observer_line(row, run, unix_s)
    try:
        signal, target = known_track(row, run)
    except LookupError:
        return [line]
    now = _mjd(unix_s)
    hours = predict(signal, target, [now + hour / 24 for hour in AHEAD_H])
    if hours[0].uncertainty_hz > MOST_HZ:
        return [line]
    return [
        line,
        "",
        "UTC                    MHz        +/-      Hz/s   altitude",
        *(
            f"{_moment(at.mjd)}  {at.frequency_mhz:13.6f}  {_hz(at.uncertainty_hz):>9}  {at.drift_rate_hz_s:+8.3f}  "
            f"{at.altitude_deg:5.1f} deg{'' if at.altitude_deg >= target.lowest_deg else '  not up'}"
            for at in hours
        ),
        "",
        _assumed(target),
    ]


def _assumed(target: Any) -> str:
    lowest = f"{target.telescope.name} observes from {target.lowest_deg:g} deg up"
    return f"for a source with a steady drift at the barycenter; {lowest}"


def _up(visible: Any, now_mjd: float) -> str:
    altitude = f"altitude {visible.altitude_deg:.0f} deg"
    if visible.changes_mjd is None:
        return f"{altitude}, {'does not set' if visible.is_up else 'does not rise'} within a day"
    hours = (visible.changes_mjd - now_mjd) * 24
    return f"{altitude}, {'sets' if visible.is_up else 'rises'} {_clock(visible.changes_mjd)} UTC (in {hours:.1f} h)"


def _hz(hertz: float) -> str:
    """Return a frequency range in the unit that keeps it short."""
    for limit, unit in ((1e3, "Hz"), (1e6, "kHz")):
        if hertz < limit:
            return f"{hertz / (limit / 1e3):.3g} {unit}"
    return f"{hertz / 1e6:.3g} MHz"


def _signed(degrees: float) -> str:
    return f"{'-' if degrees < 0 else '+'}{sexagesimal(abs(degrees), 0)}"


def _mjd(unix_s: float) -> float:
    return UNIX_EPOCH_MJD + unix_s / SECONDS_PER_DAY


def _moment(mjd: float) -> str:
    return f"{utc_of(mjd):%Y-%m-%d %H:%M}"


def _clock(mjd: float) -> str:
    return _moment(mjd)[-5:]


def main() -> None:
    """Print the lines of the candidate that standard input holds as JSON, for the time in seconds since 1970."""
    asked = json.load(sys.stdin)
    print("\n".join(follow_lines(asked["row"], asked["run"], float(sys.argv[1]))))


if __name__ == "__main__":
    main()
