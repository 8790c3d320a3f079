"""The queue of cadences and the record of searches, in SQLite or PostgreSQL.

Any process may be killed at any moment. Therefore each step is one transaction, and a cadence held by a dead process
is free when its lease ends. A claim returns a *fencing token*. Recording requires, in the same transaction, that the
token is still valid, so a worker that was suspended cannot record a cadence twice. Attempts are counted only here.
See decisions 0002 and 0003.
"""

import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Insert,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    DisconnectionError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from sentinel.errors import Cause, LeaseLostError, StoreAwayError, StoreError
from sentinel.failpoint import failpoint
from sentinel.store.filesystem import file_system, is_network, missing_mount
from sentinel.store.injected import first_free, injected_file, record_injected
from sentinel.store.labels import copy_labels
from sentinel.store.migrations import create_or_upgrade, lock_writers
from sentinel.store.occupancy import APART_DAYS, Occupancy, recall, remember
from sentinel.store.schema import (
    WAITING,
    artefact,
    attempt,
    cadence,
    cadence_file,
    candidate,
    file,
    heartbeat,
    injection,
    lacks_files,
    now,
    outbox,
    release,
    superseded,
)

T = TypeVar("T")
LOG = logging.getLogger(__name__)
SIDE_FILES = ("-wal", "-shm")
"""What SQLite adds to the name of a database for the files beside it."""
BATCH = 500
"""Values in one statement; SQLite allows 32,766."""
GATED, HELD = "kafka", "held"
"""The poster that publishes only what a person has labeled `candidate`, and the state of a message until then."""
OWED = ""
"""Checksum of a picture or training example that is not written yet."""
STATEMENT_ERRORS = (DataError, IntegrityError, NotSupportedError, ProgrammingError)
"""Errors of a statement: of this code, unless PostgreSQL refuses it."""
PRIVILEGE_STATE = "42501"
"""SQLSTATE of PostgreSQL for a missing privilege."""
REFUSALS = ("08", "53", "57", "58")
"""Classes of SQLSTATE: connection, resources, operator, system."""
BUSY_S = 60.0
"""Wait for a lock, seconds. PostgreSQL ends a transaction that is idle for longer."""
AWAY_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Waits before each retry while the store is away, seconds; the last one repeats."""
RETIRED_S = 86_400.0
"""A program whose last heartbeat is older is retired: its row is deleted."""
LONGEST_WAIT_S = 3600.0
"""Longest wait between two attempts, seconds."""
POSTPONED_S = 300.0
"""Longest wait, in seconds, before a cadence is tried again that the machine could not search."""
MOST_DEATHS = 5
"""Worker processes that may die while they search a cadence. The kernel and other programs end fewer of one cadence."""
SAME_LINE_MHZ = 20e-6
"""Candidates of two searches of a cadence that are nearer are the same line."""
SAME_FREQUENCY_MHZ = 3e-3
"""Largest frequency difference of one transmitter between cadences: 2 parts in a million at 1.5 GHz. Among 5,000
candidates in 187.5 MHz, 0.16 others lie within it by chance."""
MAX_SEEN_BEFORE = 100
"""Largest `seen_before`. Counting further would make many candidates at one frequency slow to record."""
SAME_SEQUENCE_DAYS = 1 / 1440
"""Band slices of one pointing start within a second of each other, the next pointing minutes later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One attempt at a cadence. The token is void once the lease has ended and another attempt has begun.

    Attributes:
        token: fencing token, 32 hexadecimal digits.
        attempt: number of the attempt, from 1.
    """

    cadence_id: int
    token: str
    attempt: int
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedCadence:
    """A leased cadence as a search needs it.

    Attributes:
        pattern: a letter for each scan: A for an ON, another letter for an OFF, a dot for a missing OFF.
        paths: of the observations that exist, in time order.
    """

    cadence_id: int
    token: str
    attempt: int
    target: str
    pattern: str
    paths: tuple[Path, ...]

    @property
    def on(self) -> tuple[int, ...]:
        """Positions of the ONs, from 0."""
        return tuple(i for i, letter in enumerate(self.pattern) if letter == "A")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRecord:
    """The result of a search, as the store records it in one transaction.

    Attributes:
        candidates: rows of the table `candidate`.
        pictures: rank of the candidate (0 is the first row) and path of each waterfall, which is drawn afterwards.
        examples: rank, path and content of each training example, which is written afterwards.
        stamps: rank and path of each stamp, which is written afterwards.
        release: name and sha256.
        run: counts and seconds of each stage.
        message: builds the message (posters, state, text, pictures, sequence) from the rows with `seen_before` and
            `seen_*`; None for no message.
        occupancy: the lines that were rejected; None if they are not remembered.
    """

    candidates: Sequence[Mapping[str, Any]]
    pictures: Sequence[tuple[int, str]]
    examples: Sequence[tuple[int, str, bytes]] = ()
    stamps: Sequence[tuple[int, str]] = ()
    release: tuple[str, str]
    run: Mapping[str, Any]
    message: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]] | None
    occupancy: Occupancy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InjectedRecord:
    """The candidate of a blind injection, as people see it in the queue of labels.

    Attributes:
        row: of the table `candidate`, without cadence and attempt.
        files: path, sha256 and bytes of the waterfall and the stamp, by kind.
        occupancy: of the cadence, with which the memory of interference is asked.
    """

    row: Mapping[str, Any]
    files: Mapping[str, tuple[str, str, int]]
    occupancy: Occupancy


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The store. Every method is one transaction."""

    engine: Engine

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that may change rows; an error rolls it back."""
        with _driver_errors(self.engine), self.engine.begin() as rows:
            yield rows

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads and takes no lock."""
        with _driver_errors(self.engine), self.engine.connect().execution_options(reads=True) as rows:
            yield rows

    def claim(self, lease_s: float, service: str | None = None) -> Lease | None:
        """Lease the newest cadence that is due and whose files are present; return None if there is none.

        Args:
            lease_s: length of the lease, seconds.
            service: whose workers search it; several services may share a store.
        """
        token = uuid.uuid4().hex
        queued = cadence.alias("queued")
        # A retry time further ahead was written before the clock was set back.
        due = ~queued.c.retry_at.between(now(), now() + LONGEST_WAIT_S)
        newest = (
            select(queued.c.id)
            .where(~lacks_files(queued))
            .order_by(queued.c.tstart.desc(), queued.c.id.desc())
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        # One index scan per state: a query over both states would check and sort the whole backlog.
        heads = (newest.where(queued.c.state == "ready"), newest.where(queued.c.state == "retry_at", due))
        head = cadence.alias("head")
        either = select(head.c.id).where(head.c.id.in_([newest.scalar_subquery() for newest in heads]))
        claimed = (
            update(cadence)
            .where(cadence.c.id == either.order_by(head.c.tstart.desc(), head.c.id.desc()).limit(1).scalar_subquery())
            .values(state="leased", token=token, until=now() + lease_s, attempts=cadence.c.attempts + 1, why=None)
            .returning(cadence.c.id, cadence.c.attempts, cadence.c.target)
        )
        with self.write() as rows:
            row = rows.execute(claimed).one_or_none()
            if row is None:
                return None
            values = {"cadence_id": row.id, "number": row.attempts, "token": token, "service": service}
            rows.execute(insert(attempt).values(**values, started_at=now()))
        failpoint("leased")
        return Lease(cadence_id=row.id, token=token, attempt=row.attempts, target=row.target)

    def claimed(self, token: str) -> ClaimedCadence:
        """Return the cadence that `token` holds, with the present paths of its observations.

        Raises:
            LeaseLostError: the lease has ended, or another attempt holds the cadence.
        """
        columns = (cadence.c.id, cadence.c.attempts, cadence.c.target, cadence.c.pattern)
        with self.read() as rows:
            leased = select(*columns).where(cadence.c.token == token, cadence.c.state == "leased")
            if (row := rows.execute(leased).one_or_none()) is None:
                raise _lease_lost(token)
            return ClaimedCadence(
                cadence_id=row.id,
                token=token,
                attempt=row.attempts,
                target=row.target,
                pattern=row.pattern,
                paths=_paths(rows, row.id),
            )

    def renew(self, token: str, lease_s: float, *, progress: float, worker: str) -> None:
        """Extend the lease of a cadence and note the progress of its search.

        Args:
            token: fencing token of the lease.
            lease_s: new length from now, seconds.
            progress: searched fraction, 0 to 1.
            worker: host and process of the worker.

        Raises:
            LeaseLostError: another attempt holds the cadence.
        """
        with self.write() as rows:
            self._fence(rows, token, until=now() + lease_s)
            rows.execute(update(attempt).where(attempt.c.token == token).values(progress=progress, worker=worker))

    def renew_waiting(self, tokens: Sequence[str], lease_s: float, *, longest_s: float) -> None:
        """Extend the leases of cadences that no worker has begun, up to `longest_s` after their claim, in seconds."""
        if not tokens:
            return
        waiting = select(attempt.c.token).where(
            attempt.c.token.in_(tokens), attempt.c.worker.is_(None), attempt.c.started_at > now() - longest_s
        )
        held = update(cadence).where(cadence.c.state == "leased", cadence.c.token.in_(waiting))
        with self.write() as rows:
            rows.execute(held.values(until=now() + lease_s))

    def complete(self, token: str, result: SearchRecord) -> None:
        """Record candidates, the names of their files, message and `done`, all or none.

        Raises:
            LeaseLostError: another attempt holds the cadence; nothing was recorded.
        """
        name, sha256 = result.release
        with self.write() as rows:
            why = "; ".join(result.run.get("warnings", ())) or None
            cadence_id = self._fence(rows, token, state="done", ended_at=now(), run=dict(result.run), why=why)
            attempt_id = rows.scalars(select(attempt.c.id).where(attempt.c.token == token)).one()
            current = select(candidate.c.id, candidate.c.frequency_mhz).where(candidate.c.cadence_id == cadence_id)
            earlier = rows.execute(current.where(~superseded(), candidate.c.label_in_force.is_not(None))).all()
            rows.execute(insert_if_absent(rows, release).values(sha256=sha256, name=name, first_used_at=now()))
            recorded = [{**row, "seen_before": self._seen_before(rows, row)} for row in result.candidates]
            if result.occupancy:
                seen = recall(rows, result.occupancy, [row["frequency_mhz"] for row in recorded])
                recorded = [{**row, **of_row} for row, of_row in zip(recorded, seen, strict=True)]
                remember(rows, cadence_id, result.occupancy)
            if recorded:
                recorded[0] |= first_free(rows)  # the database numbers the others after it
            new = insert(candidate).returning(candidate.c.id)
            ids = [
                rows.scalars(new, {"cadence_id": cadence_id, "attempt_id": attempt_id, **row}).one() for row in recorded
            ]
            same = [
                (old.id, new_id)
                for old in earlier
                for new_id, row in zip(ids, recorded, strict=True)
                if abs(row["frequency_mhz"] - old.frequency_mhz) < SAME_LINE_MHZ
            ]
            copy_labels(rows, same)
            kinds = (("waterfall", result.pictures), ("example", result.examples), ("stamp", result.stamps))
            replaced = [path for _, named in kinds for _, path, *_ in named]
            again = (artefact.c.cadence_id == cadence_id) & artefact.c.path.in_(replaced)
            rows.execute(delete(artefact).where(again))
            for kind, files in kinds:
                for rank, path, *_ in files:
                    values = {"cadence_id": cadence_id, "candidate_id": ids[rank], "kind": kind}
                    rows.execute(insert(artefact).values(**values, path=path, sha256=OWED))
            numbered = [{**row, "id": row_id} for row_id, row in zip(ids, recorded, strict=True)]
            message = dict(result.message(numbered)) if result.message else {}
            if not _announce_again(rows, cadence_id, message.get("pictures", ())) and message:
                for poster in message.pop("posters"):
                    uid = uuid.uuid5(uuid.UUID(token), poster).hex
                    _put_message(rows, cadence_id, {**message, "poster": poster, "uid": uid})
            rows.execute(
                update(attempt).where(attempt.c.id == attempt_id).values(outcome="done", progress=1.0, ended_at=now())
            )

    def fail(self, token: str, why: str, cause: Cause, *, max_attempts: int, retry_after_s: float) -> str:
        """End an attempt: queue the cadence again after a wait, or quarantine it; return its new state.

        The wait doubles with each attempt that ended for the same kind of cause. Failures of the machine and deaths of
        the worker are not counted as attempts.

        Args:
            token: fencing token of the lease.
            why: recorded with the attempt and the cadence.
            cause: what the attempt failed for.
            max_attempts: counted attempts before the cadence is quarantined.
            retry_after_s: wait after the first attempt, seconds.

        Raises:
            LeaseLostError: another attempt holds the cadence.
        """
        with self.write() as rows:
            if cause is Cause.DEATH:
                return self._end_death(rows, token, why, "died", retry_after_s)
            if cause is Cause.MACHINE:
                cadence_id = self._fence(rows, token, attempts=cadence.c.attempts - 1)
                earlier = len(_outcomes(rows, cadence_id, ("postponed",)))
                wait_s = _wait_s(retry_after_s, earlier, POSTPONED_S)
                return self._end_attempt(rows, token, why, "postponed", again=True, wait_s=wait_s)
            cadence_id = self._fence(rows, token)
            attempts = rows.scalars(select(cadence.c.attempts).where(cadence.c.id == cadence_id)).one()
            again = cause is not Cause.FILE and attempts < max_attempts
            wait_s = _wait_s(retry_after_s, attempts - 1, LONGEST_WAIT_S)
            return self._end_attempt(rows, token, why, "failed", again=again, wait_s=wait_s)

    def release_lease(self, token: str) -> None:
        """Queue a cadence again without counting the attempt: the service stops."""
        with self.write() as rows:
            self._fence(rows, token, state="ready", attempts=cadence.c.attempts - 1)
            rows.execute(update(attempt).where(attempt.c.token == token).values(outcome="released", ended_at=now()))

    def mark_fenced(self, token: str) -> None:
        """Note that the record of an attempt was refused because another attempt held the cadence."""
        with self.write() as rows:
            rows.execute(update(attempt).where(attempt.c.token == token).values(outcome="fenced"))

    def requeue(self, ids: Sequence[int] | None = None) -> int:
        """Queue quarantined cadences again (None: all); return how many."""
        quarantined = select(cadence.c.id).where(cadence.c.state == "quarantined")
        if ids is not None:
            quarantined = quarantined.where(cadence.c.id.in_(ids))
        with self.write() as rows:
            queue_again(rows, again := list(rows.scalars(quarantined)))
        return len(again)

    def retry_invalid_files(self) -> int:
        """Let the watcher check every invalid file again; return how many."""
        with self.write() as rows:
            values = {"state": "seen", "cause": None, "changed_at": now(), "look_at": now()}
            return int(rows.execute(update(file).where(file.c.state == "invalid").values(**values)).rowcount)

    def expire(self, lease_s: float | None = None) -> int:
        """End every attempt whose lease has ended, as a death of its worker; return how many.

        A lease that ends later than `lease_s` from now was written before the clock was set back. It then ends after
        `lease_s`, unless its worker lives and extends it.
        """
        with self.write() as rows:
            if lease_s is not None:
                far = (cadence.c.state == "leased") & (cadence.c.until > now() + lease_s)
                rows.execute(update(cadence).where(far).values(until=now() + lease_s))
            ended = rows.scalars(
                select(cadence.c.token)
                .where(cadence.c.state == "leased", cadence.c.until < now())
                .with_for_update(skip_locked=True)
            ).all()
            for token in ended:
                self._end_death(rows, token, "its worker stopped reporting: it died, hung or lost the store", "expired")
            return len(ended)

    def _fence(self, rows: Connection, token: str, **values: Any) -> int:
        """Change the cadence that `token` holds, and return its id; raise LeaseLostError if the token is void."""
        held = update(cadence).where(cadence.c.token == token, cadence.c.state == "leased")
        row = rows.execute(held.values(values or {"token": token}).returning(cadence.c.id)).one_or_none()
        if row is None:
            raise _lease_lost(token)
        return int(row.id)

    def _seen_before(self, rows: Connection, row: Mapping[str, Any]) -> int:
        """Count the recorded candidates of other cadences, of any target, at the frequency of this one."""
        mhz = row["frequency_mhz"]
        near = candidate.c.frequency_mhz.between(mhz - SAME_FREQUENCY_MHZ, mhz + SAME_FREQUENCY_MHZ)
        other_scans = func.abs(candidate.c.tstart_mjd - row["tstart_mjd"]) > APART_DAYS
        seen = select(candidate.c.id).where(near, other_scans, ~superseded()).limit(MAX_SEEN_BEFORE).subquery()
        return int(rows.scalars(select(func.count()).select_from(seen)).one())

    def _end_death(self, rows: Connection, token: str, why: str, outcome: str, retry_after_s: float = 0.0) -> str:
        """End an attempt without counting it; quarantine the cadence if its searches ended `MOST_DEATHS` workers.

        A death before a worker began the search has nothing to do with the files.
        """
        cadence_id = self._fence(rows, token, attempts=cadence.c.attempts - 1)
        ended = update(attempt).where(attempt.c.token == token).values(outcome=outcome).returning(attempt.c.worker)
        began = rows.scalars(ended).one() is not None
        deaths = _outcomes(rows, cadence_id, ("died", "expired"), attempt.c.worker.is_not(None))
        again = not began or len(deaths) < MOST_DEATHS
        if not again:
            how = "died or stopped reporting" if "expired" in deaths else "died"
            why = f"its worker process {how} {len(deaths)} times while searching it; check the memory, then the files"
        wait_s = _wait_s(retry_after_s, max(0, len(deaths) - 1), POSTPONED_S)
        return self._end_attempt(rows, token, why, outcome, again=again, wait_s=wait_s)

    def _end_attempt(
        self, rows: Connection, token: str, cause: str, outcome: str, *, again: bool, wait_s: float
    ) -> str:
        state = "retry_at" if again else "quarantined"
        ended = {"retry_at": now() + wait_s} if again else {"retry_at": None, "ended_at": now()}
        self._fence(rows, token, state=state, why=cause, **ended)
        rows.execute(
            update(attempt).where(attempt.c.token == token).values(outcome=outcome, cause=cause, ended_at=now())
        )
        return state

    def paths(self, cadence_id: int) -> tuple[Path, ...]:
        """Return the present paths of a cadence's observations, in time order."""
        with self.read() as rows:
            return _paths(rows, cadence_id)

    def leased_count(self, service: str | None = None) -> int:
        """Return how many cadences are leased to a service, also by an earlier process of it."""
        held = select(func.count()).where(cadence.c.state == "leased", attempt.c.token == cadence.c.token)
        with self.read() as rows:
            return rows.scalars(held.where(attempt.c.service.is_not_distinct_from(service))).one()

    def ledger(self) -> dict[str, int]:
        """Count all cadences (`seen`), and those that are done, quarantined, skipped and waiting."""
        count = select(func.count()).select_from(cadence)
        states = {"done": ("done",), "quarantined": ("quarantined",), "skipped": ("skipped",), "waiting": WAITING}
        with self.read() as rows:
            counted = {
                name: rows.scalars(count.where(cadence.c.state.in_(members))).one() for name, members in states.items()
            }
            return {"seen": rows.scalars(count).one(), **counted}

    def record_injection(self, *, found: InjectedRecord | None = None, **row: Any) -> None:
        """Record an injected signal and whether the search recovered it.

        Args:
            found: its candidate, for the queue of labels.
            row: columns of the table `injection`.
        """
        with self.write() as rows:
            made = insert(injection).values(made_at=now(), ended_at=now(), **row).returning(injection.c.id)
            injection_id = rows.scalars(made).one()
            if found is None:
                return
            lock_writers(rows)
            of_attempt = select(attempt.c.id, attempt.c.cadence_id).where(attempt.c.token == row["name"])
            if (searched := rows.execute(of_attempt).one_or_none()) is None:
                return
            values = {**found.row, "seen_before": self._seen_before(rows, found.row)}
            values |= recall(rows, found.occupancy, [values["frequency_mhz"]])[0]
            values |= {"attempt_id": searched.id, "cadence_id": searched.cadence_id}
            record_injected(rows, injection_id, values, {kind: file[:2] for kind, file in found.files.items()})
            for kind, (path, sha256, size) in found.files.items():  # without a candidate: for the budget of stamps
                kept = {"cadence_id": searched.cadence_id, "kind": kind, "path": path, "sha256": sha256}
                rows.execute(insert(artefact).values(**kept, bytes=size))

    def record_heartbeat(self, name: str, period_s: float, *, pid: int, host: str, **facts: Any) -> None:
        """Write the heartbeat of a program, and delete those of retired programs.

        Args:
            name: of the program and its host.
            period_s: longest time until the next heartbeat, seconds.
            pid: of its process.
            host: name of its host.
            facts: shown by `status` and counted by the metrics.
        """
        row = {"at": now(), "period_s": period_s, "pid": pid, "host": host, "facts": facts}
        ended = heartbeat.c.name.like("worker%") & (heartbeat.c.at < now() - 10 * heartbeat.c.period_s)
        if self.engine.dialect.name == "sqlite":  # of one host: another name is an earlier name of it
            ended |= heartbeat.c.host != host
        with self.write() as rows:
            rows.execute(heartbeat.delete().where(ended | (heartbeat.c.at < now() - RETIRED_S)))
            if not rows.execute(update(heartbeat).where(heartbeat.c.name == name).values(**row)).rowcount:
                rows.execute(insert_if_absent(rows, heartbeat).values(name=name, **row))


def _lease_lost(token: str) -> LeaseLostError:
    return LeaseLostError(f"token {token[:8]}: another attempt holds the cadence, or the lease has ended")


def _outcomes(rows: Connection, cadence_id: int, among: Sequence[str], *conditions: ColumnElement[bool]) -> list[str]:
    """Return those outcomes that attempts at a cadence had since it was last queued by the watcher or a person."""
    since = func.coalesce(select(cadence.c.ready_at).where(cadence.c.id == cadence_id).scalar_subquery(), 0.0)
    ended = select(attempt.c.outcome).where(attempt.c.cadence_id == cadence_id, attempt.c.outcome.in_(among))
    return [str(outcome) for outcome in rows.scalars(ended.where(attempt.c.started_at >= since, *conditions))]


def _wait_s(first_s: float, earlier: int, longest_s: float) -> float:
    """Return the wait before the next attempt, seconds: it doubles with each earlier one."""
    return min(first_s * 2 ** min(earlier, 20), longest_s)


def _paths(rows: Connection, cadence_id: int) -> tuple[Path, ...]:
    latest = select(func.max(file.c.id)).where(
        file.c.observation == cadence_file.c.observation, file.c.present.is_(True)
    )
    members = (
        select(file.c.path)
        .join(cadence_file, file.c.id == latest.correlate(cadence_file).scalar_subquery())
        .where(cadence_file.c.cadence_id == cadence_id)
        .order_by(cadence_file.c.position)
    )
    return tuple(Path(path) for path in rows.scalars(members))


def batches(ids: Sequence[int]) -> list[Sequence[int]]:
    """Split a list of ids into parts that fit into one statement."""
    return [ids[first : first + BATCH] for first in range(0, len(ids), BATCH)]


def queue_again(rows: Connection, ids: Sequence[int]) -> None:
    """Queue cadences again as if they were new: no attempts are counted, and latencies count from now."""
    again = {"state": "ready", "attempts": 0, "why": None, "retry_at": None, "ended_at": None}
    times = dict.fromkeys(("ready_at", "landed_at", "stable_at"), now())
    for batch in batches(ids):
        rows.execute(update(cadence).where(cadence.c.id.in_(batch)).values(**again, **times))


def insert_if_absent(rows: Connection, table: Table) -> Insert:
    """Return an INSERT that does nothing where the row exists."""
    dialect = postgresql if rows.dialect.name == "postgresql" else sqlite
    return dialect.insert(table).on_conflict_do_nothing()


def written_file(rows: Connection, candidate_id: int, kind: str) -> tuple[str, str] | None:
    """Return path and sha256 of the newest file of a kind that is written for a candidate or injected signal, or None.

    Args:
        rows: of the open transaction.
        candidate_id: number of its row.
        kind: waterfall, example or stamp.
    """
    files = select(artefact.c.path, artefact.c.sha256).order_by(artefact.c.id.desc())
    written = (artefact.c.candidate_id == candidate_id) & (artefact.c.kind == kind) & (artefact.c.sha256 != OWED)
    found = rows.execute(files.where(written)).first()
    if found is None:
        return injected_file(rows, candidate_id, kind)
    return found.path, found.sha256


def retry_while_away(step: Callable[[], T]) -> T:
    """Repeat a step while the store is away, and log the cause each time; return its result."""
    waits = iter(AWAY_S)
    while True:
        try:
            return step()
        except StoreAwayError as error:
            LOG.warning("%s: will retry", error)
            time.sleep(next(waits, AWAY_S[-1]))


@contextmanager
def _driver_errors(engine: Engine) -> Iterator[None]:
    """Convert errors of the database driver: StoreError if the store is damaged, else StoreAwayError."""
    where = engine.url.render_as_string(hide_password=True)
    try:
        yield
    except PoolTimeoutError as error:
        raise StoreAwayError(f"{where}: cannot be used now: {error}") from error
    except DBAPIError as error:
        cause = str(error.orig).strip()
        if _is_damage(error.orig):
            remedy = "stop the service and restore the last backup: store restore FILE (docs/observatory.md)"
            raise StoreError(f"{where}: cannot be used: damaged: {cause}: {remedy}") from error
        if isinstance(error, STATEMENT_ERRORS) and not _is_refusal(error.orig):
            raise
        # Connect anew. After a failover the name leads to another server. SQLite opens a file that it cannot write for
        # reading only, and that connection stays so when the file can be written again.
        engine.dispose()
        raise StoreAwayError(f"{where}: cannot be used now: {cause}{_missing_rights(engine, error.orig)}") from error


def _missing_rights(engine: Engine, error: BaseException | None) -> str:
    """Return what SQLite must be able to write and what of it this user cannot, if that may be why it failed.

    SQLite gives a new -wal and -shm the mode of the database, so all three lack the right after the database had none.
    """
    if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF not in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return ""
    database = Path(engine.url.database or "")
    wanted = [database, *(database.with_name(database.name + suffix) for suffix in SIDE_FILES), database.parent]
    closed = [str(path) for path in wanted if os.path.lexists(path) and not os.access(path, os.W_OK)]
    *files, folder = map(str, wanted)
    found = f"; found no right to write {', '.join(closed)}" if closed else ""
    return f": expected to write {', '.join(files)} and in {folder}{found}"


def _is_damage(error: BaseException | None) -> bool:
    """Return whether the database reports damaged pages or indexes."""
    code = getattr(error, "sqlite_errorcode", None)  # extended codes hold the primary one in the last eight bits
    damaged = code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
    return damaged or getattr(error, "sqlstate", None) in ("XX001", "XX002")


def _is_refusal(error: BaseException | None) -> bool:
    """Return whether PostgreSQL refuses a statement for its rights or resources, not for the statement."""
    state = str(getattr(error, "sqlstate", None) or "")
    return state == PRIVILEGE_STATE or state[:2] in REFUSALS


def _announce_again(rows: Connection, cadence_id: int, pictures: Sequence[str]) -> bool:
    """Let the messages of a cadence that was searched again be edited; return whether there are any."""
    messages = select(outbox.c.id, outbox.c.parent_id, outbox.c.pictures).where(outbox.c.cadence_id == cadence_id)
    found = rows.execute(messages).all()
    for row in found:
        added = [path for path in pictures if path not in row.pictures]
        rows.execute(update(outbox).where(outbox.c.id == row.id).values(pictures=[*row.pictures, *added]))
        edited = update(outbox).where(outbox.c.id == (row.parent_id or row.id), outbox.c.state != "off")
        rows.execute(edited.values(stale_at=now()))
    return bool(found)


def _put_message(rows: Connection, cadence_id: int, message: Mapping[str, Any]) -> None:
    """Put a message into the outbox, as a reply to an earlier message of the same pointing sequence if there is one."""
    lock_writers(rows)  # of two band slices that end at the same moment, one must see the message of the other
    started = select(cadence.c.tstart).where(cadence.c.id == cadence_id)
    near = func.abs(cadence.c.tstart - started.scalar_subquery()) < SAME_SEQUENCE_DAYS
    first = (outbox.c.poster == message["poster"]) & outbox.c.parent_id.is_(None) & (outbox.c.state != "off")
    same = select(outbox.c.id, outbox.c.digest).join(cadence).where(outbox.c.sequence == message.get("sequence", ""))
    parent = rows.execute(same.where(first, near).order_by(outbox.c.id.desc()).limit(1)).one_or_none()
    values = dict(message)
    gated = message["poster"] == GATED
    if message["state"] != "off":
        if parent:
            values |= {"parent_id": parent.id} | ({"state": "folded"} if parent.digest or gated else {})
        elif gated:
            values["state"] = HELD
    rows.execute(insert(outbox).values(cadence_id=cadence_id, created_at=now(), **values))
    if parent:
        rows.execute(update(outbox).where(outbox.c.id == parent.id).values(stale_at=now()))


def open_store(url: str, *, upgrade: bool = True, create: bool = True, busy_s: float | None = None) -> Store:
    """Open the store. With `upgrade`, create its tables or upgrade those of an older version.

    Args:
        url: of the database.
        upgrade: whether tables may be created or changed.
        create: whether the file of SQLite may be created. A program of a running service does not: the disk is away.
        busy_s: longest wait for a lock, seconds; None: `BUSY_S`.

    Raises:
        StoreError: the store is on a network file system, of a newer version, damaged or cannot be reached.
    """
    address, busy_s = make_url(url), busy_s or BUSY_S
    if address.get_backend_name() == "sqlite":
        engine = create_engine(address, connect_args={"timeout": busy_s})
        _prepare_sqlite(engine, Path(address.database or ""), busy_s, create=create)
    else:
        engine = _postgresql(address, busy_s)
    if not upgrade:
        return Store(engine=engine)
    try:
        with _driver_errors(engine), engine.begin() as rows:
            create_or_upgrade(rows)
    except StoreError:
        engine.dispose()
        raise
    return Store(engine=engine)


def _postgresql(address: URL, busy_s: float) -> Engine:
    """Connect with a check before each use, for servers that restarted, and with limits on locks and idle time."""
    options = f"-c idle_in_transaction_session_timeout={int(BUSY_S * 1000)} -c lock_timeout={int(busy_s * 1000)}"
    try:
        return create_engine(address, pool_pre_ping=True, connect_args={"options": options, "connect_timeout": 10})
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{address.drivername}: {error}: start once with SENTINEL_EXTRAS=postgres in the environment to install it"
        ) from error


def _prepare_sqlite(engine: Engine, database: Path, busy_s: float, *, create: bool) -> None:
    """Set the pragmas for several processes and sudden death; refuse network file systems, whose locks fail."""
    if is_network(kind := file_system(database.parent)):
        raise StoreError(
            f"{database}: SQLite loses rows on a network file system ({kind}): set state_dir to a local disk, "
            "or store.url to a PostgreSQL server"
        )
    try:
        if create and not missing_mount(database):
            database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreAwayError(f"{database}: cannot be used now: {error}") from error

    _only_at_its_path(engine, database, create=create)

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: object) -> None:
        connection.isolation_level = None  # SQLAlchemy begins transactions, not the driver
        for pragma in (f"busy_timeout={int(busy_s * 1000)}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        _to_wal(connection)

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get("reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _only_at_its_path(engine: Engine, database: Path, *, create: bool) -> None:
    """Use a connection only while its file is at its path, and create that file at most once.

    When the disk of the state directory is unmounted, rows would be written where nobody reads them, and an empty store
    at the mount point would let every file be searched again. If /etc/fstab lists that disk, no store is used there.
    """

    def identity() -> tuple[int, int] | None:
        try:
            at = database.stat()
        except OSError:
            return None
        return at.st_dev, at.st_ino

    @event.listens_for(engine, "do_connect")
    def _connect(*_: object) -> None:
        if missing := missing_mount(database):
            raise sqlite3.OperationalError(missing)
        if not create and identity() is None:
            raise sqlite3.OperationalError(f"expected {database.name} in {database.parent}, found none")

    @event.listens_for(engine, "checkout")
    def _checked_out(_: object, record: Any, __: object) -> None:
        if record.info["file"] != identity():
            raise DisconnectionError("the file at this path is another one")

    @event.listens_for(engine, "connect")
    def _connected(_: object, record: Any) -> None:
        nonlocal create
        create, record.info["file"] = False, identity()


def _to_wal(connection: Any) -> Any:
    """Switch to the write-ahead log. Two processes that do so at once get `locked` despite the busy timeout."""
    for wait_s in (0.05, 0.2, 1.0, 5.0):
        try:
            return connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(wait_s)
    return connection.execute("PRAGMA journal_mode=WAL")
