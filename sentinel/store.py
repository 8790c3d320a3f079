"""The store: where every cadence is, who may record it, and what was found.

Anything may die at any moment, so a step is one transaction, and what a dead process held comes free when its lease
ends. A claim hands out a *fencing token*: whoever records must still hold it, in the same transaction, so a worker
that was stopped and goes on later records nothing twice. Attempts are counted here and nowhere else. Decisions 0002
and 0003 say why.
"""

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, exists, func, insert, inspect, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.schema import CreateColumn

from sentinel.errors import LeaseLostError, StoreError
from sentinel.failpoint import failpoint
from sentinel.mounts import file_system, is_network
from sentinel.schema import (
    METADATA,
    OLDER_VERSIONS,
    SCHEMA_VERSION,
    WAITING,
    artefact,
    attempt,
    cadence,
    cadence_file,
    candidate,
    file,
    heartbeat,
    meta,
    now,
    outbox,
    release,
)

BUSY_S = 60.0
"""A locked store is waited for this long."""
LONGEST_WAIT_S = 3600.0
"""Back-off between attempts doubles up to this."""
SAME_FREQUENCY_MHZ = 3e-3
"""A transmitter strays this far from one cadence to another: 2 parts in a million at 1.5 GHz. In a storm of 5,000
candidates in a node's 187.5 MHz, 0.16 others lie so near by chance."""
MOST_SEEN = 100
"""Sightings are counted no further: storms over one transmitter would make each other slow to record."""
ANOTHER_CADENCE_DAYS = 1 / 48
"""First ONs that lie further apart have no scan in common; nearer ones may be copies, or slices, of the same scans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One attempt at a cadence. The token is void once the lease has ended and another attempt has begun."""

    cadence_id: int
    token: str
    until: float
    attempt: int
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search recorded: rows of `candidate`, each with its picture's path and checksum, and a message or none.

    The message (poster, state, text, pictures) is written from the rows as they were recorded: the store adds to them.
    """

    candidates: Sequence[Mapping[str, Any]]
    pictures: Sequence[tuple[int, str, str]]  # which candidate, path, sha256
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
        with self.engine.begin() as rows:
            yield rows

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a transaction that sees the rows at one moment and waits for nobody."""
        with self.engine.connect().execution_options(reads=True) as rows:
            yield rows

    def claim(self, lease_s: float) -> Lease | None:
        """Lease the newest cadence that is due and whose six files are there; None when there is none."""
        token = uuid.uuid4().hex
        due = (cadence.c.state == "ready") | ((cadence.c.state == "retry_at") & (cadence.c.retry_at <= now()))
        there = exists().where(
            file.c.observation == cadence_file.c.observation, file.c.present.is_(True), file.c.state == "valid"
        )
        lacking = exists().where(cadence_file.c.cadence_id == cadence.c.id, ~there.correlate(cadence_file))
        queue = (
            select(cadence.c.id)
            .where(due, ~lacking.correlate(cadence))
            .order_by(cadence.c.tstart.desc(), cadence.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        taken = (
            update(cadence)
            .where(cadence.c.id == queue.scalar_subquery())
            .values(state="leased", token=token, until=now() + lease_s, attempts=cadence.c.attempts + 1, why=None)
            .returning(cadence.c.id, cadence.c.until, cadence.c.attempts, cadence.c.target)
        )
        with self.write() as rows:
            row = rows.execute(taken).one_or_none()
            if row is None:
                return None
            rows.execute(insert(attempt).values(cadence_id=row.id, number=row.attempts, token=token, started_at=now()))
        failpoint("leased")
        return Lease(cadence_id=row.id, token=token, until=row.until, attempt=row.attempts, target=row.target)

    def renew(self, token: str, lease_s: float, *, progress: float, worker: str) -> None:
        """Go on holding a cadence.

        Raises:
            LeaseLostError: it is somebody else's by now.
        """
        with self.write() as rows:
            self._held(rows, token, until=now() + lease_s)
            rows.execute(update(attempt).where(attempt.c.token == token).values(progress=progress, worker=worker))

    def complete(self, token: str, found: Found) -> None:
        """Record candidates, pictures, message and `done`, all or none of them.

        Raises:
            LeaseLostError: another attempt holds the cadence: nothing was recorded.
        """
        name, sha256 = found.release
        with self.write() as rows:
            held = self._held(rows, token, state="done", ended_at=now(), run=dict(found.run), why=None)
            tried = rows.scalars(select(attempt.c.id).where(attempt.c.token == token)).one()
            if not rows.scalar(select(exists().where(release.c.sha256 == sha256))):
                rows.execute(insert(release).values(sha256=sha256, name=name, first_used_at=now()))
            recorded = [{**one, "seen_before": self._seen_before(rows, one)} for one in found.candidates]
            ids = [
                rows.scalars(
                    insert(candidate).returning(candidate.c.id), {"cadence_id": held, "attempt_id": tried, **one}
                ).one()
                for one in recorded
            ]
            for which, path, checksum in found.pictures:
                rows.execute(
                    insert(artefact).values(
                        cadence_id=held, candidate_id=ids[which], kind="waterfall", path=path, sha256=checksum
                    )
                )
            if found.message:
                message = found.message(recorded)
                rows.execute(insert(outbox).values(cadence_id=held, uid=token, created_at=now(), **message))
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

    def give_back(self, token: str) -> None:
        """Put a cadence back in the queue as if it had never been taken: the service stops in an orderly way."""
        with self.write() as rows:
            self._held(rows, token, state="ready", attempts=cadence.c.attempts - 1)
            rows.execute(update(attempt).where(attempt.c.token == token).values(outcome="released", ended_at=now()))

    def expire(self, max_attempts: int) -> int:
        """Take back every lease that has ended, and return how many; each was an attempt."""
        with self.write() as rows:
            ended = rows.execute(
                select(cadence.c.token, cadence.c.attempts).where(cadence.c.state == "leased", cadence.c.until < now())
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
            raise LeaseLostError(f"token {token[:8]}: another attempt holds the cadence, or it has ended")
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
        """Return where the six observations of a cadence are now, in time order."""
        latest = select(func.max(file.c.id)).where(
            file.c.observation == cadence_file.c.observation, file.c.present.is_(True), file.c.state == "valid"
        )
        members = (
            select(file.c.path)
            .join(cadence_file, file.c.id == latest.correlate(cadence_file).scalar_subquery())
            .where(cadence_file.c.cadence_id == cadence_id)
            .order_by(cadence_file.c.position)
        )
        with self.read() as rows:
            return tuple(Path(path) for path in rows.scalars(members))

    def on(self, cadence_id: int) -> tuple[int, ...]:
        """Return the positions of the ONs of a cadence: where its pattern has an A."""
        with self.read() as rows:
            pattern = rows.scalars(select(cadence.c.pattern).where(cadence.c.id == cadence_id)).one()
        return tuple(i for i, letter in enumerate(pattern) if letter == "A")

    def leased(self) -> int:
        """Return how many cadences are being searched, whoever submitted them."""
        with self.read() as rows:
            return rows.scalars(select(func.count()).where(cadence.c.state == "leased")).one()

    def ledger(self) -> dict[str, int]:
        """Count the cadences ever seen, and apart from that where they are: done, quarantined, skipped or waiting."""
        count = select(func.count()).select_from(cadence)
        states = {"done": ("done",), "quarantined": ("quarantined",), "skipped": ("skipped",), "waiting": WAITING}
        with self.read() as rows:
            counted = {name: rows.scalars(count.where(cadence.c.state.in_(of))).one() for name, of in states.items()}
            return {"seen": rows.scalars(count).one(), **counted}

    def beat(self, name: str, period_s: float, *, pid: int, host: str, **facts: Any) -> None:
        """Say that a program is alive, and will say so again within `period_s`; those silent for long are forgotten."""
        row = {"at": now(), "period_s": period_s, "pid": pid, "host": host, "facts": facts}
        silent = heartbeat.c.name.like("worker%") & (heartbeat.c.at < now() - 10 * heartbeat.c.period_s)
        with self.write() as rows:
            rows.execute(heartbeat.delete().where(silent))
            if not rows.execute(update(heartbeat).where(heartbeat.c.name == name).values(**row)).rowcount:
                rows.execute(insert(heartbeat).values(name=name, **row))


def open_store(url: str) -> Store:
    """Open the store, make its tables where there are none, and give those of an older version the columns they lack.

    Raises:
        StoreError: on a network file system, of another version, damaged, or out of reach: the message says which.
    """
    address = make_url(url)
    engine = create_engine(address, connect_args={"timeout": BUSY_S} if address.get_backend_name() == "sqlite" else {})
    if address.get_backend_name() == "sqlite":
        _prepare_sqlite(engine, Path(address.database or ""))
    try:
        METADATA.create_all(engine)
        with engine.begin() as rows:
            found = rows.scalar(select(meta.c.value).where(meta.c.key == "schema_version").with_for_update())
            if found is None:
                rows.execute(insert(meta).values(key="schema_version", value=SCHEMA_VERSION))
            elif found in OLDER_VERSIONS:
                _add_columns(rows)
                rows.execute(update(meta).where(meta.c.key == "schema_version").values(value=SCHEMA_VERSION))
    except DBAPIError as error:
        raise StoreError(f"{address.render_as_string(hide_password=True)}: cannot be used: {error.orig}") from error
    if found not in (None, SCHEMA_VERSION, *OLDER_VERSIONS):
        raise StoreError(f"{address.database}: expected schema version {SCHEMA_VERSION}, found {found}")
    return Store(engine=engine)


def _add_columns(rows: Connection) -> None:
    for table in METADATA.sorted_tables:
        there = {column["name"] for column in inspect(rows).get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                wanted = CreateColumn(column).compile(dialect=rows.dialect)
                rows.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {wanted}")


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
