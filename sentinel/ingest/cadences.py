"""Six observations make a cadence: valid files become rows that are `ready`, or `forming` and say what they wait for.

Only the observing sessions in which a file has become valid are grouped again. A cadence is known by its
observations, so the same six are one row however often, in whatever order and under whatever names they come. Rows
that are forming are no more than what the last grouping said. Where the policy is to search what is there, one that
lacks nothing but OFFs is queued after a time, with a dot in its pattern for each; if the missing file comes later the
six are a cadence of their own, in the place of the part unless that has been taken up.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, select, update

from aetherscan.cadence.grouping import find_cadences
from aetherscan.header import Header
from sentinel.config import Watch
from sentinel.failpoint import failpoint
from sentinel.store.migrations import lock_writers
from sentinel.store.queue import Store, batches
from sentinel.store.schema import cadence, cadence_file, file, now

SESSION_DAYS = 2 / 24
"""A gap this long ends a session; within a cadence a telescope rests for an hour at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedCadence:
    """A cadence as grouping found it, whole or in part."""

    observations: tuple[str, ...]
    headers: tuple[Header, ...]
    target: str
    pattern: str | None
    why: str | None

    @property
    def key(self) -> str:
        """Hash of its observations, in any order."""
        return hashlib.sha256("\n".join(sorted(self.observations)).encode()).hexdigest()


def group(store: Store, watch: Watch) -> int:
    """Group the sessions in which something is new; return how many cadences are newly ready."""
    ready = _queue_partial(store, watch) if watch.partial == "search" else 0
    for ids in _sessions(store):
        whole, parts = _grouped(store, ids)
        with store.write() as rows:
            lock_writers(rows)
            ready += sum([_accept(rows, one, watch.max_channel_hz) for one in whole])
            _replace_forming(rows, parts, ids)
            for some in batches(ids):
                rows.execute(update(file).where(file.c.id.in_(some)).values(grouped=True))
        if ready:
            failpoint("ready")
    return ready


def _queue_partial(store: Store, watch: Watch) -> int:
    """Queue, or skip, the cadences that have waited `partial_after_s` for an OFF; return how many are ready."""
    member = (cadence_file.c.observation == file.c.observation) & (cadence_file.c.cadence_id == cadence.c.id)
    recent = exists().where(member, file.c.changed_at > now() - watch.partial_after_s).correlate(cadence)
    due = select(cadence.c.id, file.c.header).join(cadence_file).join(file, member)
    due = due.where(cadence.c.state == "forming", cadence.c.pattern.is_not(None), ~recent, file.c.state == "valid")
    ready = 0
    with store.write() as rows:
        lock_writers(rows)
        headers = {row.id: Header(**row.header) for row in rows.execute(due)}
        for cadence_id, header in headers.items():
            values = _wide_channels(header, watch.max_channel_hz) or {"state": "ready", "ready_at": now()}
            rows.execute(update(cadence).where(cadence.c.id == cadence_id).values(**values))
            ready += values["state"] == "ready"
    return ready


def _wide_channels(header: Header, max_channel_hz: float) -> dict[str, Any] | None:
    """Return the values of a cadence that is skipped for its channel width; None where the width is allowed."""
    width_hz = abs(header.foff) * 1e6
    if width_hz <= max_channel_hz:
        return None
    why = f"channels of {width_hz:.0f} Hz are wider than max_channel_hz, {max_channel_hz:.0f}"
    return {"state": "skipped", "why": why, "ended_at": now()}


def _sessions(store: Store) -> list[list[int]]:
    """Return the file ids of each session that holds a valid file which has not been grouped."""
    valid = file.c.state == "valid"
    with store.read() as rows:
        if not rows.scalar(select(exists().where(valid, file.c.grouped.is_(False)))):
            return []
        ordered = rows.execute(
            select(file.c.id, file.c.tstart, file.c.grouped).where(valid).order_by(file.c.tstart)
        ).all()
    sessions = [[ordered[0]]]
    for a, b in pairwise(ordered):
        if b.tstart - a.tstart > SESSION_DAYS:
            sessions.append([])
        sessions[-1].append(b)
    return [[row.id for row in session] for session in sessions if not all(row.grouped for row in session)]


def _grouped(store: Store, ids: Sequence[int]) -> tuple[list[ProposedCadence], list[ProposedCadence]]:
    """Return the cadences of a session, and the parts of cadences that wait."""
    member = (cadence_file.c.observation == file.c.observation) & (cadence_file.c.cadence_id == cadence.c.id)
    queued = exists().where(member, cadence.c.state != "forming").label("queued")
    columns = select(file.c.id, file.c.observation, file.c.header, file.c.present, queued)
    with store.read() as rows:
        found = [row for some in batches(ids) for row in rows.execute(columns.where(file.c.id.in_(some)))]
    found.sort(key=lambda row: (not row.present, not row.queued, row.id))  # of several copies the first one counts
    headers = [Header(**row.header) for row in found]

    def offer(members: Sequence[int], target: str, pattern: str | None, why: str | None) -> ProposedCadence:
        return ProposedCadence(
            observations=tuple(found[i].observation for i in members),
            headers=tuple(headers[i] for i in members),
            target=target,
            pattern=pattern,
            why=why,
        )

    grouping = find_cadences(headers)
    whole = [offer(one.members, one.target, one.pattern, None) for one in grouping.cadences]
    waiting = [one for one in grouping.waiting if not all(found[i].queued for i in one.members)]
    return whole, [offer(one.members, one.target, one.pattern, one.why) for one in waiting]


def _accept(rows: Connection, offer: ProposedCadence, max_channel_hz: float) -> bool:
    """Queue a cadence, or skip it by rule, unless it is known; what was forming from these becomes it."""
    if _known(rows, offer):
        return False
    if skipped := _wide_channels(offer.headers[0], max_channel_hz):
        _write(rows, offer, **skipped)
        return False
    six = select(func.max(file.c.changed_at), func.max(file.c.stable_at)).where(
        file.c.observation.in_(offer.observations), file.c.present.is_(True)
    )
    landed_at, stable_at = rows.execute(six).one()
    _write(rows, offer, state="ready", why=None, ready_at=now(), landed_at=landed_at, stable_at=stable_at)
    return True


def _known(rows: Connection, offer: ProposedCadence) -> bool:
    return bool(rows.scalar(select(exists().where(cadence.c.key == offer.key, cadence.c.state != "forming"))))


def _write(rows: Connection, offer: ProposedCadence, **values: Any) -> None:
    low, high = offer.headers[0].band_mhz
    values |= {"target": offer.target, "pattern": offer.pattern, "tstart": offer.headers[0].tstart}
    values |= {"key": offer.key, "band_low_mhz": low, "band_high_mhz": high}
    of = cadence_file.c.cadence_id == cadence.c.id
    other = exists().where(of, cadence_file.c.observation.not_in(offer.observations))
    partial = cadence.c.state.in_(("ready", "skipped")) & cadence.c.pattern.contains(".") & (cadence.c.attempts == 0)
    part = (
        select(cadence.c.id)
        .where((cadence.c.state == "forming") | partial, ~other)
        .where(exists().where(of, cadence_file.c.observation.in_(offer.observations)))
    )
    cadence_id = rows.scalar(part.order_by(cadence.c.key != offer.key, cadence.c.id).limit(1).with_for_update())
    if cadence_id is None:
        new = insert(cadence).values(created_at=now(), attempts=0, **values)
        cadence_id = rows.scalars(new.returning(cadence.c.id)).one()
    else:
        rows.execute(delete(cadence_file).where(cadence_file.c.cadence_id == cadence_id))
        rows.execute(update(cadence).where(cadence.c.id == cadence_id).values(**values))
    for position, observation in enumerate(offer.observations):
        rows.execute(insert(cadence_file).values(cadence_id=cadence_id, position=position, observation=observation))


def _replace_forming(rows: Connection, parts: Sequence[ProposedCadence], ids: Sequence[int]) -> None:
    """Write what waits in this session, and forget what no longer does."""
    for part in [one for one in parts if not _known(rows, one)]:
        _write(rows, part, state="forming", why=part.why)
    session = select(file.c.tstart).where(file.c.id.in_((ids[0], ids[-1]))).order_by(file.c.tstart)
    first, last = (times := rows.scalars(session).all())[0], times[-1]
    here = (cadence.c.state == "forming") & cadence.c.tstart.between(first, last)
    stale = rows.execute(select(cadence.c.id, cadence.c.key).where(here)).all()
    for cadence_id in [row.id for row in stale if row.key not in {part.key for part in parts}]:
        rows.execute(delete(cadence_file).where(cadence_file.c.cadence_id == cadence_id))
        rows.execute(delete(cadence).where(cadence.c.id == cadence_id))
