"""How long cadences take from one step to the next, by the store's clock.

`landed` is when a scan last saw one of the six files change: the last byte arrived at most one `watch.scan_s` earlier,
or less where file events start the scan. `stable` is when the last file had not changed for `watch.settle_s`. Only
cadences that are done count, and canaries do not. Only the newest attempts are read, so that the cost does not grow
with the store.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, select

from sentinel.store.schema import attempt, cadence, cadences_below, now, outbox

_POSTED = select(func.min(outbox.c.posted_at)).where(outbox.c.cadence_id == cadence.c.id).scalar_subquery()
STAGES: Mapping[str, ColumnElement[float]] = {
    "landed_to_stable": cadence.c.stable_at - cadence.c.landed_at,
    "stable_to_queued": cadence.c.ready_at - cadence.c.stable_at,
    "queued_to_leased": attempt.c.started_at - cadence.c.ready_at,
    "leased_to_recorded": cadence.c.ended_at - attempt.c.started_at,
    "recorded_to_announced": _POSTED - cadence.c.ended_at,
    "stable_to_recorded": cadence.c.ended_at - cadence.c.stable_at,
    "stable_to_announced": _POSTED - cadence.c.stable_at,
}
QUANTILES = (50, 95, 99)
NEWEST = 5000
"""Attempts that are read."""
DAY_S = 86_400.0


def newest(rows: Connection, first: ColumnElement[Any], canaries: Path) -> Sequence[Sequence[Any]]:
    """Return the column `first` and the seconds of each stage for each of the newest cadences that are done.

    Cadences whose files are below the folder `canaries` are left out.
    """
    every = attempt.alias()
    recent = attempt.c.id > select(func.max(every.c.id)).scalar_subquery() - NEWEST
    real = (attempt.c.outcome == "done") & (cadence.c.state == "done")
    real &= cadence.c.id.not_in(cadences_below(canaries))
    real &= attempt.c.token == cadence.c.token  # not an earlier search of a cadence that was searched again
    return rows.execute(select(first, *STAGES.values()).join_from(attempt, cadence).where(recent, real)).all()


def percentiles(rows: Connection, canaries: Path, within_s: float = DAY_S) -> dict[str, dict[str, float]]:
    """Return p50, p95 and p99 of each stage in seconds, with the count (`of`), over the last `within_s`."""
    recent = [seconds for age_s, *seconds in newest(rows, now() - cadence.c.ended_at, canaries) if age_s < within_s]
    figures = {}
    for stage, column in zip(STAGES, np.array(recent, dtype=np.float64).reshape(-1, len(STAGES)).T, strict=True):
        if len(seconds := column[~np.isnan(column)].clip(min=0)):
            values = np.percentile(seconds, QUANTILES, method="inverted_cdf").round(3).tolist()
            figures[stage] = {f"p{q}": v for q, v in zip(QUANTILES, values, strict=True)} | {"of": len(seconds)}
    return figures
