"""How long a cadence takes from one step of its life to the next, as the store's clock saw it.

`landed` is when a scan last saw one of its six files change: the last byte came at most one `watch.scan_s` before, less
where events wake the scan. `stable` is when the last file had stood still for `watch.settle_s`. Each figure is of one
cadence that is done; canaries are left out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from sentinel.schema import CANARY, attempt, cadence, now, outbox

_TOLD = select(func.min(outbox.c.posted_at)).where(outbox.c.cadence_id == cadence.c.id).scalar_subquery()
STAGES: Mapping[str, ColumnElement[float]] = {
    "landed_to_stable": cadence.c.stable_at - cadence.c.landed_at,
    "stable_to_queued": cadence.c.ready_at - cadence.c.stable_at,
    "queued_to_leased": attempt.c.started_at - cadence.c.ready_at,
    "leased_to_recorded": cadence.c.ended_at - attempt.c.started_at,
    "recorded_to_announced": _TOLD - cadence.c.ended_at,
    "stable_to_recorded": cadence.c.ended_at - cadence.c.stable_at,
    "stable_to_announced": _TOLD - cadence.c.stable_at,
}
QUANTILES = (50, 95, 99)
NEWEST = 5000
"""Cadences that percentiles are taken of, within a day."""
DAY_S = 86_400.0


def _done() -> Any:
    ended = (attempt.c.cadence_id == cadence.c.id) & (attempt.c.outcome == "done")
    return (
        select(*(one.label(name) for name, one in STAGES.items()))
        .join(attempt, ended)
        .where(cadence.c.state == "done", cadence.c.target != CANARY)
    )


def percentiles(rows: Connection, within_s: float = DAY_S) -> dict[str, dict[str, float]]:
    """Return p50, p95 and p99 in seconds of each stage, and how many cadences they are of."""
    lately = cadence.c.ended_at > now() - within_s
    found = rows.execute(_done().where(lately).order_by(cadence.c.ended_at.desc()).limit(NEWEST)).all()
    told = {}
    for name, column in zip(STAGES, zip(*found, strict=True), strict=False):
        if known := sorted(max(0.0, value) for value in column if value is not None):
            told[name] = {f"p{q}": _rank(known, q) for q in QUANTILES} | {"of": len(known)}
    return told


def _rank(ordered: Sequence[float], percent: int) -> float:
    return round(ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)], 3)


def histograms(rows: Connection, bounds: Sequence[float]) -> dict[str, tuple[list[int], float]]:
    """Return, for each stage, how many cadences took at most each of `bounds`, then how many in all, and the sum."""
    found = _done().subquery()
    told = {}
    for name, column in zip(STAGES, found.c, strict=True):
        counts = [func.count().filter(column <= bound) for bound in bounds]
        *below, count, total = rows.execute(
            select(*counts, func.count(column), func.coalesce(func.sum(column), 0))
        ).one()
        told[name] = ([*below, count], float(total))
    return told
