"""The store: where every cadence is, who may record it, and what was found.

Anything may die at any moment, so a step is one transaction, and what a dead process held comes free when its lease
ends. A claim hands out a *fencing token*: whoever records must still hold it, in the same transaction, so a worker
that was stopped and goes on later records nothing twice. Attempts are counted here and nowhere else. Decisions 0002
and 0003 say why.
"""

import logging
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Insert, Table, create_engine, event, exists, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, ProgrammingError

from sentinel.errors import LeaseLostError, StoreAwayError, StoreError
from sentinel.failpoint import failpoint
from sentinel.store.filesystem import file_system, is_network
from sentinel.store.migrations import create_or_upgrade, lock_writers
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
    now,
    outbox,
    release,
)

T = TypeVar("T")
LOG = logging.getLogger(__name__)
LISTED = 500
BUSY_S = 60.0
"""A locked store is waited for this long, and a transaction that does nothing for longer is ended by PostgreSQL."""
AWAY_S = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Waits until a step is tried again while the store is away; the last one repeats."""
SILENT_S = 86_400.0
"""A program that has not been heard of for this long is retired, not late."""
LONGEST_WAIT_S = 3600.0
"""Back-off between attempts doubles up to this."""
SAME_FREQUENCY_MHZ = 3e-3
"""A transmitter strays this far from one cadence to another: 2 parts in a million at 1.5 GHz. In a storm of 5,000
candidates in a node's 187.5 MHz, 0.16 others lie so near by chance."""
MOST_SEEN = 100
"""Sightings are counted no further: storms over one transmitter would make each other slow to record."""
ANOTHER_CADENCE_DAYS = 1 / 48
"""First ONs that lie further apart have no scan in common; nearer ones may be copies, or slices, of the same scans."""
SAME_SEQUENCE_DAYS = 1 / 1440
"""Node slices of one pointing begin within a second of each other, the next pointing minutes later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One attempt at a cadence. The token is void once the lease has ended and another attempt has begun."""

    cadence_id: int
    token: str
    until: float
    attempt: int
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedCadence:
    """A leased cadence as a search needs it.

    Attributes:
        pattern: six letters: A for an ON, another letter for an OFF, a dot for a missing OFF.
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
        """Positions of the ONs, 0 to 5."""
        return tuple(i for i, letter in enumerate(self.pattern) if letter == "A")


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRecord:
    """What a search recorded: rows of `candidate`, each with its picture's path and checksum, and a message or none.

    The message (posters, state, text, pictures, sequence) is written from the rows as they were recorded: the store
    adds to them.
    """

    candidates: Sequence[Mapping[str, Any]]
    pictures: Sequence[tuple[int, str, str]]  # which candidate, path, sha256
    examples: Sequence[tuple[int, str, str]] = ()  # the same, of what a training can learn from
    release: tuple[str, str]  # name, sha256
    run: Mapping[str, Any]
    message: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, Any]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The rows; every method is one transaction."""

    engine: Engine

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that may change rows; nothing is changed when it is left by an error."""
        with _told(self.engine), self.engine.begin() as rows:
            yield rows

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that only reads, and waits for nobody."""
        with _told(self.engine), self.engine.connect().execution_options(reads=True) as rows:
            yield rows

    def claim(self, lease_s: float, service: str | None = None) -> Lease | None:
        """Lease the newest cadence that is due and whose files are there to a service; None when there is none."""
        token = uuid.uuid4().hex
        queued = cadence.alias("queued")
        # A time that lies too far ahead was written before the clock was set back.
        waited = ~queued.c.retry_at.between(now(), now() + LONGEST_WAIT_S)
        there = exists().where(file.c.observation == cadence_file.c.observation, file.c.present.is_(True))
        lacking = exists().where(cadence_file.c.cadence_id == queued.c.id, ~there.correlate(cadence_file))
        newest = (
            select(queued.c.id)
            .where(~lacking.correlate(queued))
            .order_by(queued.c.tstart.desc(), queued.c.id.desc())
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        # One walk down the index for each state: either state at once would have to judge and sort the whole backlog.
        due = (newest.where(queued.c.state == "ready"), newest.where(queued.c.state == "retry_at", waited))
        of = cadence.alias("of")
        either = select(of.c.id).where(of.c.id.in_([one.scalar_subquery() for one in due]))
        taken = (
            update(cadence)
            .where(cadence.c.id == either.order_by(of.c.tstart.desc(), of.c.id.desc()).limit(1).scalar_subquery())
            .values(state="leased", token=token, until=now() + lease_s, attempts=cadence.c.attempts + 1, why=None)
            .returning(cadence.c.id, cadence.c.until, cadence.c.attempts, cadence.c.target)
        )
        with self.write() as rows:
            row = rows.execute(taken).one_or_none()
            if row is None:
                return None
            tried = {"cadence_id": row.id, "number": row.attempts, "token": token, "service": service}
            rows.execute(insert(attempt).values(**tried, started_at=now()))
        failpoint("leased")
        return Lease(cadence_id=row.id, token=token, until=row.until, attempt=row.attempts, target=row.target)

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
        """Go on holding a cadence.

        Raises:
            LeaseLostError: it is somebody else's by now.
        """
        with self.write() as rows:
            self._held(rows, token, until=now() + lease_s)
            rows.execute(update(attempt).where(attempt.c.token == token).values(progress=progress, worker=worker))

    def renew_waiting(self, tokens: Sequence[str], lease_s: float, *, longest_s: float) -> None:
        """Go on holding what waits for a worker to take it up, for `longest_s` at most; from then on only that can."""
        if not tokens:  # every pass asks
            return
        waits = select(attempt.c.token).where(
            attempt.c.token.in_(tokens), attempt.c.worker.is_(None), attempt.c.started_at > now() - longest_s
        )
        held = update(cadence).where(cadence.c.state == "leased", cadence.c.token.in_(waits))
        with self.write() as rows:
            rows.execute(held.values(until=now() + lease_s))

    def complete(self, token: str, found: SearchRecord) -> None:
        """Record candidates, pictures, message and `done`, all or none of them.

        Raises:
            LeaseLostError: another attempt holds the cadence: nothing was recorded.
        """
        name, sha256 = found.release
        with self.write() as rows:
            held = self._held(rows, token, state="done", ended_at=now(), run=dict(found.run), why=None)
            tried = rows.scalars(select(attempt.c.id).where(attempt.c.token == token)).one()
            rows.execute(insert_if_absent(rows, release).values(sha256=sha256, name=name, first_used_at=now()))
            recorded = [{**one, "seen_before": self._seen_before(rows, one)} for one in found.candidates]
            ids = [
                rows.scalars(
                    insert(candidate).returning(candidate.c.id), {"cadence_id": held, "attempt_id": tried, **one}
                ).one()
                for one in recorded
            ]
            for kind, files in (("waterfall", found.pictures), ("example", found.examples)):
                for which, path, checksum in files:
                    facts = {"cadence_id": held, "candidate_id": ids[which], "kind": kind}
                    rows.execute(insert(artefact).values(**facts, path=path, sha256=checksum))
            if found.message:
                message = dict(found.message(recorded))
                for name in message.pop("posters"):
                    _announce(rows, held, {**message, "poster": name, "uid": uuid.uuid5(uuid.UUID(token), name).hex})
            rows.execute(
                update(attempt).where(attempt.c.id == tried).values(outcome="done", progress=1.0, ended_at=now())
            )

    def fail(self, token: str, cause: str, *, retriable: bool, max_attempts: int, retry_after_s: float) -> str:
        """Put a cadence back with a wait that doubles, or set it aside with the cause; return its new state.

        Raises:
            LeaseLostError: another attempt holds it already.
        """
        with self.write() as rows:
            held = self._held(rows, token)
            tries = rows.scalars(select(cadence.c.attempts).where(cadence.c.id == held)).one()
            wait_s = min(retry_after_s * 2 ** (tries - 1), LONGEST_WAIT_S)
            return self._put_back(rows, token, cause, "failed", again=retriable and tries < max_attempts, wait_s=wait_s)

    def release_lease(self, token: str) -> None:
        """Put a cadence back in the queue as if it had never been taken: the service stops in an orderly way."""
        with self.write() as rows:
            self._held(rows, token, state="ready", attempts=cadence.c.attempts - 1)
            rows.execute(update(attempt).where(attempt.c.token == token).values(outcome="released", ended_at=now()))

    def mark_fenced(self, token: str) -> None:
        """Note that an attempt came back after its cadence had been given to another: its record was refused."""
        with self.write() as rows:
            rows.execute(update(attempt).where(attempt.c.token == token).values(outcome="fenced"))

    def requeue(self, ids: Sequence[int] | None = None) -> int:
        """Queue quarantined cadences again (None: all), their attempts forgotten; return how many those were."""
        held = update(cadence).where(cadence.c.state == "quarantined")
        if ids is not None:
            held = held.where(cadence.c.id.in_(ids))
        with self.write() as rows:
            again = held.values(state="ready", attempts=0, retry_at=None, ended_at=None, ready_at=now())
            return int(rows.execute(again).rowcount)

    def retry_invalid_files(self) -> int:
        """Give every invalid file another chance; return how many there were."""
        with self.write() as rows:
            values = {"state": "seen", "cause": None, "changed_at": now(), "look_at": now()}
            return int(rows.execute(update(file).where(file.c.state == "invalid").values(**values)).rowcount)

    def expire(self, max_attempts: int) -> int:
        """Take back every lease that has ended, and return how many; each was an attempt."""
        with self.write() as rows:
            ended = rows.execute(
                select(cadence.c.token, cadence.c.attempts)
                .where(cadence.c.state == "leased", cadence.c.until < now())
                .with_for_update(skip_locked=True)
            ).all()
            for token, tries in ended:
                cause = f"attempt {tries} stopped reporting: its worker died, hung or lost the store"
                self._put_back(rows, token, cause, "expired", again=tries < max_attempts, wait_s=0)
            return len(ended)

    def _held(self, rows: Connection, token: str, **values: Any) -> int:
        """Return the cadence that `token` holds, changed as `values` say: the fence."""
        held = update(cadence).where(cadence.c.token == token, cadence.c.state == "leased")
        row = rows.execute(held.values(values or {"token": token}).returning(cadence.c.id)).one_or_none()
        if row is None:
            raise _lease_lost(token)
        return int(row.id)

    def _seen_before(self, rows: Connection, one: Mapping[str, Any]) -> int:
        """Count the candidates that other cadences, whatever their target, already have at the frequency of this."""
        at = one["frequency_mhz"]
        near = candidate.c.frequency_mhz.between(at - SAME_FREQUENCY_MHZ, at + SAME_FREQUENCY_MHZ)
        elsewhen = func.abs(candidate.c.tstart_mjd - one["tstart_mjd"]) > ANOTHER_CADENCE_DAYS
        seen = select(candidate.c.id).where(near, elsewhen).limit(MOST_SEEN).subquery()
        return int(rows.scalars(select(func.count()).select_from(seen)).one())

    def _put_back(self, rows: Connection, token: str, cause: str, outcome: str, *, again: bool, wait_s: float) -> str:
        state = "retry_at" if again else "quarantined"
        ended = {"retry_at": now() + wait_s} if again else {"retry_at": None, "ended_at": now()}
        self._held(rows, token, state=state, why=cause, **ended)
        rows.execute(
            update(attempt).where(attempt.c.token == token).values(outcome=outcome, cause=cause, ended_at=now())
        )
        return state

    def paths(self, cadence_id: int) -> tuple[Path, ...]:
        """Return the present paths of a cadence's observations, in time order."""
        with self.read() as rows:
            return _paths(rows, cadence_id)

    def leased_count(self, service: str | None = None) -> int:
        """Return how many cadences the workers of a service are searching, whoever submitted them."""
        held = select(func.count()).where(cadence.c.state == "leased", attempt.c.token == cadence.c.token)
        with self.read() as rows:
            return rows.scalars(held.where(attempt.c.service.is_not_distinct_from(service))).one()

    def ledger(self) -> dict[str, int]:
        """Count the cadences ever seen, and apart from that where they are: done, quarantined, skipped or waiting."""
        count = select(func.count()).select_from(cadence)
        states = {"done": ("done",), "quarantined": ("quarantined",), "skipped": ("skipped",), "waiting": WAITING}
        with self.read() as rows:
            counted = {name: rows.scalars(count.where(cadence.c.state.in_(of))).one() for name, of in states.items()}
            return {"seen": rows.scalars(count).one(), **counted}

    def record_injection(self, **row: Any) -> None:
        """Record a signal of our own and what became of it."""
        with self.write() as rows:
            rows.execute(insert(injection).values(made_at=now(), ended_at=now(), **row))

    def record_heartbeat(self, name: str, period_s: float, *, pid: int, host: str, **facts: Any) -> None:
        """Say that a program is alive, and will say so again within `period_s`; those silent for long are forgotten."""
        row = {"at": now(), "period_s": period_s, "pid": pid, "host": host, "facts": facts}
        silent = heartbeat.c.name.like("worker%") & (heartbeat.c.at < now() - 10 * heartbeat.c.period_s)
        with self.write() as rows:
            rows.execute(heartbeat.delete().where(silent | (heartbeat.c.at < now() - SILENT_S)))
            if not rows.execute(update(heartbeat).where(heartbeat.c.name == name).values(**row)).rowcount:
                rows.execute(insert_if_absent(rows, heartbeat).values(name=name, **row))


def _lease_lost(token: str) -> LeaseLostError:
    return LeaseLostError(f"token {token[:8]}: another attempt holds the cadence, or the lease has ended")


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
    """Cut a list into lists that a statement can take; SQLite allows 32,766 values."""
    return [ids[first : first + LISTED] for first in range(0, len(ids), LISTED)]


def insert_if_absent(rows: Connection, table: Table) -> Insert:
    """Return an INSERT that leaves a row alone which another process has written in the meantime."""
    of = postgresql if rows.dialect.name == "postgresql" else sqlite
    return of.insert(table).on_conflict_do_nothing()


def retry_while_away(step: Callable[[], T], wait: Callable[[float], object] = time.sleep) -> T:
    """Take a step of the store as often as it needs, for as long as the store is away; each time says why."""
    waits = iter(AWAY_S)
    while True:
        try:
            return step()
        except StoreAwayError as error:
            LOG.warning("%s: trying again", error)
            wait(next(waits, AWAY_S[-1]))


@contextmanager
def _told(engine: Engine) -> Iterator[None]:
    """Say of a driver's error where the store is, and whether waiting helps; a statement's own fault goes through."""
    try:
        yield
    except (DataError, IntegrityError, ProgrammingError):
        raise
    except DBAPIError as error:
        where = engine.url.render_as_string(hide_password=True)
        cause = str(error.orig).strip()
        if isinstance(error, OperationalError) or error.connection_invalidated:
            raise StoreAwayError(f"{where}: cannot be used now: {cause}") from error
        raise StoreError(
            f"{where}: cannot be used: {cause}: stop the service and put back the last backup (docs/observatory.md)"
        ) from error


def _announce(rows: Connection, cadence_id: int, message: Mapping[str, Any]) -> None:
    """Put a message into the outbox, or make it part of the one that speaks of the same pointing sequence already."""
    lock_writers(rows)  # of two slices that end at the same moment one must find the other's message
    started = select(cadence.c.tstart).where(cadence.c.id == cadence_id)
    near = func.abs(cadence.c.tstart - started.scalar_subquery()) < SAME_SEQUENCE_DAYS
    speaks = (outbox.c.poster == message["poster"]) & outbox.c.parent_id.is_(None) & (outbox.c.state != "off")
    same = select(outbox.c.id, outbox.c.digest).join(cadence).where(outbox.c.sequence == message.get("sequence", ""))
    parent = rows.execute(same.where(speaks, near).order_by(outbox.c.id.desc()).limit(1)).one_or_none()
    values = dict(message)
    if parent and message["state"] != "off":
        values |= {"parent_id": parent.id} | ({"state": "folded"} if parent.digest else {})
    rows.execute(insert(outbox).values(cadence_id=cadence_id, created_at=now(), **values))
    if parent:
        rows.execute(update(outbox).where(outbox.c.id == parent.id).values(stale_at=now()))


def open_store(url: str, *, as_it_is: bool = False) -> Store:
    """Open the store, make its tables where there are none, and bring those of an older version up; or as it is.

    Raises:
        StoreError: on a network file system, of a newer version, damaged, or out of reach: the message says which.
    """
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        engine = create_engine(address, connect_args={"timeout": BUSY_S})
        _prepare_sqlite(engine, Path(address.database or ""))
    else:
        engine = _postgresql(address)
    if as_it_is:
        return Store(engine=engine)
    try:
        with _told(engine), engine.begin() as rows:
            create_or_upgrade(rows)
    except StoreError:
        engine.dispose()
        raise
    return Store(engine=engine)


def _postgresql(address: URL) -> Engine:
    """Connect so that a server that restarted is found again, and a stopped process holds its locks for a minute."""
    options = f"-c idle_in_transaction_session_timeout={int(BUSY_S * 1000)} -c lock_timeout={int(BUSY_S * 1000)}"
    try:
        return create_engine(address, pool_pre_ping=True, connect_args={"options": options, "connect_timeout": 10})
    except ModuleNotFoundError as error:
        raise StoreError(
            f"{address.drivername}: {error}: start once with SENTINEL_EXTRAS=postgres in the environment to install it"
        ) from error


def _prepare_sqlite(engine: Engine, database: Path) -> None:
    """Set what keeps SQLite whole under kill -9 and several processes, and refuse where its locks do not hold."""
    if is_network(kind := file_system(database.parent)):
        raise StoreError(
            f"{database}: SQLite loses rows on a network file system ({kind}): set state_dir to a local disk, "
            "or store.url to a PostgreSQL server"
        )
    database.parent.mkdir(parents=True, exist_ok=True)

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: object) -> None:
        connection.isolation_level = None  # we say when a transaction begins
        for pragma in (f"busy_timeout={int(BUSY_S * 1000)}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        _to_wal(connection)

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        reads = connection.get_execution_options().get("reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _to_wal(connection: Any) -> Any:
    """Switch to the write-ahead log; two processes that do so at once are told `locked` whatever the busy timeout."""
    for patience in (0.05, 0.2, 1.0, 5.0):
        try:
            return connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            time.sleep(patience)
    return connection.execute("PRAGMA journal_mode=WAL")
