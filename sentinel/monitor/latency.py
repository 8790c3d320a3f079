"""How long a cadence takes from one step of its life to the next, as the store's clock saw it.

`landed` is when a scan last saw one of its six files change: the last byte came at most one `watch.scan_s` before, less
where events wake the scan. `stable` is when the last file had stood still for `watch.settle_s`. Each figure is of one
cadence that is done; canaries are left out. Only the newest are read: what is told costs the same after years.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, select

from sentinel.store.schema import CANARY, attempt, cadence, now, outbox

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
"""Attempts that are looked at."""
DAY_S = 86_400.0


def newest(rows: Connection, first: ColumnElement[Any]) -> Sequence[Sequence[Any]]:
    """Return one column more, and the seconds of each stage, for each of the newest cadences that are done."""
    every = attempt.alias()
    recent = attempt.c.id > select(func.max(every.c.id)).scalar_subquery() - NEWEST
    real = (attempt.c.outcome == "done") & (cadence.c.state == "done") & (cadence.c.target != CANARY)
    return rows.execute(select(first, *STAGES.values()).join_from(attempt, cadence).where(recent, real)).all()


def percentiles(rows: Connection, within_s: float = DAY_S) -> dict[str, dict[str, float]]:
    """Return p50, p95 and p99 in seconds of each stage of what ended lately, and how many cadences they are of."""
    lately = [one[1:] for one in newest(rows, now() - cadence.c.ended_at) if one[0] < within_s]
    told = {}
    for name, column in zip(STAGES, np.array(lately, dtype=np.float64).reshape(-1, len(STAGES)).T, strict=True):
        if len(known := column[~np.isnan(column)].clip(min=0)):
            ranks = np.percentile(known, QUANTILES, method="inverted_cdf").round(3).tolist()
            told[name] = {f"p{q}": rank for q, rank in zip(QUANTILES, ranks, strict=True)} | {"of": len(known)}
    return told
