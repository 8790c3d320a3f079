"""The night: a map of candidates over frequency and time, and the state of the service in numbers."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, case, func, select
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from aetherscan.header import SECONDS_PER_DAY, UNIX_EPOCH_MJD, utc_of
from sentinel.errors import ConfigError
from sentinel.monitor.latency import percentiles
from sentinel.store.filters import KEYS, Filter, parse_filter
from sentinel.store.injected import reviewers
from sentinel.store.schema import cadence, candidate, in_last, injection, now
from sentinel.web.desk import Desk, Visitor
from sentinel.web.events import position_now
from sentinel.web.query import facets, table_page

MOST_POINTS = 20_000
"""Candidates on the map, the newest ones."""
RECENT_S = 30 * 86_400.0
"""Injections of this time count for the recovery, seconds."""
SNR_BINS = (10.0, 20.0, 40.0, 100.0)
WAITING_ROWS = 8
STAGES = {
    "stable_to_recorded": "last byte to record",
    "stable_to_announced": "last byte to message",
    "queued_to_leased": "wait for a worker",
    "leased_to_recorded": "search",
}


def day_of(mjd: float) -> str:
    """Return the date of an MJD, UTC."""
    return f"{utc_of(int(mjd)):%Y-%m-%d}"


def show(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Show the night of the newest candidate, or the one that `night` names."""
    try:
        with desk.store.read() as rows:
            asked, newest = _night(rows, request)
            values = _night_facts(rows, asked, visitor) | {
                "latency": percentiles(rows, desk.config.canaries),
                "recovery": recovery(rows),
                "people": desk.counted(rows, "reviewers", "", lambda: reviewers(rows)),
                "canary": _canary(rows),
                "state": _ledger(rows),
                "since": position_now(rows),
            }
    except ConfigError as error:
        return desk.render("problem.html", request, visitor, 400, problem=str(error), keys=KEYS)
    (night,) = asked.terms["night"]
    return desk.render("night.html", request, visitor, night=night, newest=newest, stages=STAGES, **values)


def points(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Return the points of the map: columns of numbers, for a script."""
    with desk.store.read() as rows:
        asked, _ = _night(rows, request)
        columns = (candidate.c.id, candidate.c.frequency_mhz, candidate.c.tstart_mjd, candidate.c.joint_snr)
        chosen = select(*columns, candidate.c.label_in_force).where(*asked.conditions(visitor.name))
        found = rows.execute(chosen.order_by(candidate.c.id.desc()).limit(MOST_POINTS)).all()
    ids, mhz, mjd, snr, words = zip(*found, strict=True) if found else ((),) * 5
    shown = {"id": ids, "mhz": mhz, "unix": [round((day - UNIX_EPOCH_MJD) * SECONDS_PER_DAY, 1) for day in mjd]}
    return JSONResponse({**shown, "snr": [round(value or 0, 1) for value in snr], "label": words})


def _night(rows: Connection, request: Request) -> tuple[Filter, str]:
    """Return the filter of the night that a URL names, and the date of the newest candidate.

    Raises:
        ConfigError: `night` is no date.
    """
    last = rows.scalar(select(func.max(candidate.c.tstart_mjd)))
    newest = day_of(last if last is not None else UNIX_EPOCH_MJD + rows.scalars(select(now())).one() / SECONDS_PER_DAY)
    return parse_filter([("night", request.query_params.get("night") or newest)]), newest


def _night_facts(rows: Connection, asked: Filter, visitor: Visitor) -> dict[str, Any]:
    (night,) = asked.terms["night"]
    waiting = parse_filter([("night", night), ("label", "none")], sort="-p")
    labels = dict(facets(rows, asked, visitor.name)[1]["label"])
    first = table_page(rows, waiting, visitor.name).rows[:WAITING_ROWS]
    return {"labels": labels, "waiting": first, "count": sum(labels.values()), **_neighbors(night)}


def _neighbors(night: str) -> dict[str, str]:
    try:
        day = datetime.strptime(night, "%Y-%m-%d").replace(tzinfo=UTC)
        return {
            "before": (day - timedelta(days=1)).strftime("%Y-%m-%d"),
            "after": (day + timedelta(days=1)).strftime("%Y-%m-%d"),
        }
    except (ValueError, OverflowError):  # a range of nights, or the last day of the calendar
        return {"before": "", "after": ""}


def recovery(rows: Connection) -> list[dict[str, Any]]:
    """Return for each range of SNR how many of the injected signals of the last month the search recovered."""
    low = case(*((injection.c.snr >= edge, edge) for edge in reversed(SNR_BINS)), else_=0.0)
    counted = select(low, func.count(), func.count().filter(injection.c.recovered.is_(True)))
    chosen = injection.c.recovered.is_not(None) & in_last(injection.c.made_at, RECENT_S)
    found = {row[0]: (row[1], row[2]) for row in rows.execute(counted.where(chosen).group_by(low))}
    edges = (0.0, *SNR_BINS)
    return [
        {
            "low": edge,
            "high": edges[i + 1] if i + 1 < len(edges) else None,
            "of": found[edge][0],
            "hits": found[edge][1],
        }
        for i, edge in enumerate(edges)
        if edge in found
    ]


def _canary(rows: Connection) -> dict[str, Any] | None:
    age_s = now() - injection.c.made_at
    newest = select(age_s.label("age_s"), injection.c.recovered).where(injection.c.kind == "canary")
    found = rows.execute(newest.order_by(injection.c.id.desc()).limit(1)).mappings().first()
    return dict(found) if found else None


def _ledger(rows: Connection) -> dict[str, int]:
    counts = rows.execute(select(cadence.c.state, func.count()).group_by(cadence.c.state))
    return {row[0]: row[1] for row in counts}
