"""How long a cadence takes from one step of its life to the next, as the store's clock saw it.

`landed` is when a scan last saw one of its six files change: the last byte came at most one `watch.scan_s` before, less
where events wake the scan. `stable` is when the last file had stood still for `watch.settle_s`. Each figure is of one
cadence that is done; canaries are left out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, select

from sentinel.schema import CANARY, attempt, cadence, now, outbox

_TOLD = (
    select(outbox.c.cadence_id, func.min(outbox.c.posted_at).label("at")).group_by(outbox.c.cadence_id).subquery("told")
)
STAGES: Mapping[str, ColumnElement[float]] = {
    "landed_to_stable": cadence.c.stable_at - cadence.c.landed_at,
    "stable_to_queued": cadence.c.ready_at - cadence.c.stable_at,
    "queued_to_leased": attempt.c.started_at - cadence.c.ready_at,
    "leased_to_recorded": cadence.c.ended_at - attempt.c.started_at,
    "recorded_to_announced": _TOLD.c.at - cadence.c.ended_at,
    "stable_to_recorded": cadence.c.ended_at - cadence.c.stable_at,
    "stable_to_announced": _TOLD.c.at - cadence.c.stable_at,
}
QUANTILES = (50, 95, 99)
NEWEST = 5000
"""Cadences that percentiles are taken of, within a day."""
DAY_S = 86_400.0


def _done() -> Any:
    ended = (attempt.c.cadence_id == cadence.c.id) & (attempt.c.outcome == "done")
    real = (cadence.c.state == "done") & (cadence.c.target != CANARY)
    lives = cadence.join(attempt, ended).outerjoin(_TOLD, _TOLD.c.cadence_id == cadence.c.id)
    return select(*STAGES.values()).select_from(lives).where(real)


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
    told = {}
    taken = np.array(rows.execute(_done()).all(), dtype=np.float64).reshape(-1, len(STAGES))
    for name, column in zip(STAGES, taken.T, strict=True):
        known = np.sort(column[~np.isnan(column)])
        told[name] = ([*np.searchsorted(known, bounds, side="right").tolist(), len(known)], float(known.sum()))
    return told
