"""Group valid files into cadences: rows that are `ready`, or `forming` with the reason why they wait.

Only observing sessions with a newly valid file are grouped again. A cadence is identified by its observations, so the
same six are one row, however often, in whatever order and under whatever names they arrive. `forming` rows hold the
result of the last grouping. With `partial: search`, a cadence that lacks only OFFs is queued after `partial_after_s`,
with a dot in its pattern for each. If the missing file arrives later, the complete cadence replaces the partial one,
or is a new row if a search of the partial one has begun.

Files that replace those of a searched cadence arrive one after another. A cadence of some new and some old files
therefore waits as `forming` until none of its files has changed for `REPLACING_S`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, select, update

from aetherscan.cadence.grouping import find_cadences
from aetherscan.cadence.plausible import warnings_of
from aetherscan.header import SECONDS_PER_DAY, Header
from aetherscan.options.cadence import CadenceRules
from sentinel.config import Watch
from sentinel.failpoint import failpoint
from sentinel.store.migrations import lock_writers
from sentinel.store.queue import Store, batches
from sentinel.store.schema import cadence, cadence_file, file, in_last, now

SESSION_DAYS = 2 / 24
"""A longer gap ends a session, unless longer rests are configured."""
REPLACING_S = 600.0
"""Wait for the rest of the files that replace those of a searched cadence, since the last one changed, seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedCadence:
    """A complete or partial cadence that grouping proposes."""

    observations: tuple[str, ...]
    headers: tuple[Header, ...]
    target: str
    pattern: str | None
    why: str | None

    @property
    def key(self) -> str:
        """Hash of the observations, independent of their order."""
        return hashlib.sha256("\n".join(sorted(self.observations)).encode()).hexdigest()


def group(store: Store, watch: Watch, rules: CadenceRules | None = None) -> int:
    """Group the sessions that have new files; return how many cadences became ready."""
    rules = rules or CadenceRules()
    ready = _queue_waiting(store, watch)
    for ids in _sessions(store, max(SESSION_DAYS, 1.2 * rules.max_rest_s / SECONDS_PER_DAY)):
        complete, partial = _group_session(store, ids, rules)
        with store.write() as rows:
            lock_writers(rows)
            mixed = [replace(part, why=why) for part in complete if (why := _replacing(rows, part))]
            keys = {part.key for part in mixed}
            ready += sum([_queue(rows, part, watch.max_channel_hz) for part in complete if part.key not in keys])
            _replace_forming(rows, [*partial, *mixed], ids)
            for batch in batches(ids):
                rows.execute(update(file).where(file.c.id.in_(batch)).values(grouped=True))
        if ready:
            failpoint("ready")
    return ready


def _queue_waiting(store: Store, watch: Watch) -> int:
    """Queue, or skip, the cadences that have waited long enough for an OFF or a replaced file; return how many."""
    member = (cadence_file.c.observation == file.c.observation) & (cadence_file.c.cadence_id == cadence.c.id)

    def still(seconds: float) -> Any:
        return ~exists().where(member, in_last(file.c.changed_at, seconds)).correlate(cadence)

    waited = ~cadence.c.pattern.contains(".") & still(REPLACING_S)
    if watch.partial == "search":
        waited |= cadence.c.pattern.contains(".") & still(watch.partial_after_s)
    due = select(cadence.c.id, file.c.header).join(cadence_file).join(file, member)
    due = due.where(cadence.c.state == "forming", cadence.c.pattern.is_not(None), waited, file.c.state == "valid")
    ready = 0
    with store.write() as rows:
        lock_writers(rows)
        headers: dict[int, list[Header]] = {}
        for row in rows.execute(due.order_by(cadence_file.c.position)):
            headers.setdefault(row.id, []).append(Header(**row.header))
        for cadence_id, found in headers.items():
            values = _wide_channels(found[0], watch.max_channel_hz) or {}
            values = values or {"state": "ready", "ready_at": now(), "why": _warnings(found)}
            rows.execute(update(cadence).where(cadence.c.id == cadence_id).values(**values))
            ready += values["state"] == "ready"
    return ready


def _replacing(rows: Connection, proposed: ProposedCadence) -> str | None:
    """Return why a complete cadence waits: some of its files have just replaced those of a searched cadence."""
    ours = cadence_file.c.observation.in_(proposed.observations)
    days = proposed.headers[0].tstart
    same = cadence.c.tstart.between(days - 1e-6, days + 1e-6) & ~cadence.c.pattern.contains(".")
    low_mhz = proposed.headers[0].band_mhz[0]
    same &= cadence.c.band_low_mhz.between(low_mhz - 1e-6, low_mhz + 1e-6) & (cadence.c.state != "forming")
    shares = exists().where(cadence_file.c.cadence_id == cadence.c.id, ours)
    there = exists().where(file.c.observation == cadence_file.c.observation, file.c.present.is_(True))
    lost = exists().where(cadence_file.c.cadence_id == cadence.c.id, ~ours, ~there)
    recent = exists().where(file.c.observation.in_(proposed.observations), in_last(file.c.changed_at, REPLACING_S))
    before = select(cadence.c.id).where(same, cadence.c.key != proposed.key, shares, lost, recent)
    if (cadence_id := rows.scalar(before.limit(1))) is None:
        return None
    return f"some files of cadence {cadence_id} were replaced: waits until none has changed for {REPLACING_S:.0f} s"


def _wide_channels(header: Header, max_channel_hz: float) -> dict[str, Any] | None:
    """Return the values of a cadence that is skipped for its channel width; None where the width is allowed."""
    width_hz = abs(header.foff) * 1e6
    if width_hz <= max_channel_hz:
        return None
    why = f"channels of {width_hz:.0f} Hz are wider than max_channel_hz, {max_channel_hz:.0f}"
    return {"state": "skipped", "why": why, "ended_at": now()}


def _sessions(store: Store, gap_days: float) -> list[list[int]]:
    """Return the file ids of each session that has a valid file not yet grouped. A longer gap ends a session."""
    valid = file.c.state == "valid"
    with store.read() as rows:
        if not rows.scalar(select(exists().where(valid, file.c.grouped.is_(False)))):
            return []
        ordered = rows.execute(
            select(file.c.id, file.c.tstart, file.c.grouped).where(valid).order_by(file.c.tstart)
        ).all()
    sessions = [[ordered[0]]]
    for a, b in pairwise(ordered):
        if b.tstart - a.tstart > gap_days:
            sessions.append([])
        sessions[-1].append(b)
    return [[row.id for row in session] for session in sessions if not all(row.grouped for row in session)]


def _group_session(
    store: Store, ids: Sequence[int], rules: CadenceRules
) -> tuple[list[ProposedCadence], list[ProposedCadence]]:
    """Return the complete and the partial cadences of a session."""
    member = (cadence_file.c.observation == file.c.observation) & (cadence_file.c.cadence_id == cadence.c.id)
    queued = exists().where(member, cadence.c.state != "forming").label("queued")
    columns = select(file.c.id, file.c.observation, file.c.header, file.c.present, queued)
    with store.read() as rows:
        files = [row for batch in batches(ids) for row in rows.execute(columns.where(file.c.id.in_(batch)))]
    files.sort(key=lambda row: (not row.present, not row.queued, row.id))  # grouping takes the first of several copies
    headers = [Header(**row.header) for row in files]

    def propose(members: Sequence[int], target: str, pattern: str | None, why: str | None) -> ProposedCadence:
        return ProposedCadence(
            observations=tuple(files[i].observation for i in members),
            headers=tuple(headers[i] for i in members),
            target=target,
            pattern=pattern,
            why=why,
        )

    grouping = find_cadences(headers, rules)
    complete = [propose(whole.members, whole.target, whole.pattern, None) for whole in grouping.cadences]
    waiting = [part for part in grouping.ungrouped if not all(files[i].queued for i in part.members)]
    return complete, [propose(part.members, part.target, part.pattern, part.reason) for part in waiting]


def _warnings(headers: Sequence[Header]) -> str | None:
    """Return the warnings about the headers of a cadence as one text; None where there is none."""
    return "; ".join(warnings_of(headers)) or None


def _queue(rows: Connection, proposed: ProposedCadence, max_channel_hz: float) -> bool:
    """Queue or skip a complete cadence unless it is known; return whether it was queued."""
    if _known(rows, proposed):
        return False
    if skipped := _wide_channels(proposed.headers[0], max_channel_hz):
        _write(rows, proposed, **skipped)
        return False
    times = select(func.max(file.c.changed_at), func.max(file.c.stable_at)).where(
        file.c.observation.in_(proposed.observations), file.c.present.is_(True)
    )
    landed_at, stable_at = rows.execute(times).one()
    _write(
        rows,
        proposed,
        state="ready",
        why=_warnings(proposed.headers),
        ready_at=now(),
        landed_at=landed_at,
        stable_at=stable_at,
    )
    return True


def _known(rows: Connection, proposed: ProposedCadence) -> bool:
    return bool(rows.scalar(select(exists().where(cadence.c.key == proposed.key, cadence.c.state != "forming"))))


def _write(rows: Connection, proposed: ProposedCadence, **values: Any) -> None:
    """Write a cadence, in the row of a partial one of the same observations if there is one."""
    low, high = proposed.headers[0].band_mhz
    values |= {"target": proposed.target, "pattern": proposed.pattern, "tstart": proposed.headers[0].tstart}
    values |= {"key": proposed.key, "band_low_mhz": low, "band_high_mhz": high}
    member = cadence_file.c.cadence_id == cadence.c.id
    other = exists().where(member, cadence_file.c.observation.not_in(proposed.observations))
    untried = cadence.c.state.in_(("ready", "skipped")) & cadence.c.pattern.contains(".") & (cadence.c.attempts == 0)
    replaced = (
        select(cadence.c.id)
        .where((cadence.c.state == "forming") | untried, ~other)
        .where(exists().where(member, cadence_file.c.observation.in_(proposed.observations)))
    )
    cadence_id = rows.scalar(replaced.order_by(cadence.c.key != proposed.key, cadence.c.id).limit(1).with_for_update())
    if cadence_id is None:
        new = insert(cadence).values(created_at=now(), attempts=0, **values)
        cadence_id = rows.scalars(new.returning(cadence.c.id)).one()
    else:
        rows.execute(delete(cadence_file).where(cadence_file.c.cadence_id == cadence_id))
        rows.execute(update(cadence).where(cadence.c.id == cadence_id).values(**values))
    for position, observation in enumerate(proposed.observations):
        rows.execute(insert(cadence_file).values(cadence_id=cadence_id, position=position, observation=observation))


def _replace_forming(rows: Connection, partial: Sequence[ProposedCadence], ids: Sequence[int]) -> None:
    """Write the partial cadences of a session, and delete its `forming` rows that no longer apply."""
    for part in [part for part in partial if not _known(rows, part)]:
        _write(rows, part, state="forming", why="; warning: ".join(filter(None, [part.why, _warnings(part.headers)])))
    session = select(file.c.tstart).where(file.c.id.in_((ids[0], ids[-1]))).order_by(file.c.tstart)
    first, last = (times := rows.scalars(session).all())[0], times[-1]
    forming = (cadence.c.state == "forming") & cadence.c.tstart.between(first, last)
    before = rows.execute(select(cadence.c.id, cadence.c.key).where(forming)).all()
    for cadence_id in [row.id for row in before if row.key not in {part.key for part in partial}]:
        rows.execute(delete(cadence_file).where(cadence_file.c.cadence_id == cadence_id))
        rows.execute(delete(cadence).where(cadence.c.id == cadence_id))
