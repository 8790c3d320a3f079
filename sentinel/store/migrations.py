"""From one version of the tables to another: up when a store is opened, down before an older release is to use it.

A version is what it added: tables, and columns that can be null (nobody looked, when the row was written) and
refer to no other table (SQLite could not drop them). That is all that has been needed, and it lets a program of the
older version that still runs go on in a newer store. Going down forgets what was added, and nothing else. A step that
has been released is never changed; a change is one more step. Either way is one transaction, so a kill leaves the store
at one version or the other.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Index, Table, func, insert, inspect, select, update
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable, DropIndex

from sentinel.errors import StoreError
from sentinel.store.schema import (
    METADATA,
    attempt,
    cadence,
    candidate,
    file,
    heartbeat,
    injection,
    meta,
    now,
    outbox,
    shadow,
    training,
)

WRITER_LOCK = 0x53454E54
"""PostgreSQL's number for the lock of those who must be alone; SQLite lets nobody else write anyway."""
VERSION = meta.c.key == "schema_version"
ALIVE_S = 60.0
"""A program that has been heard of since may still use what going down takes away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a version added to the one before."""

    version: int
    adds: tuple[Column[Any] | Table, ...]


STEPS = (
    Step(
        version=2,
        adds=tuple(
            candidate.c[name]
            for name in (
                *("probability_spread", "binning", "allocations", "clock", "comb_spacing_hz", "comb_teeth"),
                *("neighbours", "nearest_hz", "seen_before"),
            )
        ),
    ),
    Step(
        version=3,
        adds=(
            injection,
            shadow,
            training,
            attempt.c.service,
            file.c.stable_at,
            *(cadence.c[name] for name in ("landed_at", "stable_at")),
            *(outbox.c[name] for name in ("sequence", "parent_id", "digest", "posted_at", "stale_at", "edited_at")),
        ),
    ),
    Step(version=4, adds=(candidate.c.strangeness,)),
)
OLDEST, NEWEST = 1, STEPS[-1].version


def lock_writers(rows: Connection) -> None:
    """Keep every other transaction that asks for this waiting until ours has ended."""
    if rows.dialect.name == "postgresql":
        rows.execute(select(func.pg_advisory_xact_lock(WRITER_LOCK)))


def create_or_upgrade(rows: Connection) -> None:
    """Make the tables where there are none, and bring those of an older version up.

    Raises:
        StoreError: the store is of a newer version than this code.
    """
    lock_writers(rows)
    if inspect(rows).has_table(meta.name):
        migrate(rows, NEWEST)
    else:
        METADATA.create_all(rows)
        rows.execute(insert(meta).values(key="schema_version", value=str(NEWEST)))


def migrate(rows: Connection, to: int) -> int:
    """Take the store to the version `to`, up or down; return the version it had.

    Raises:
        StoreError: there is no such version, the store is of a newer one than this code, or a program still uses what
            going down would take away.
    """
    lock_writers(rows)
    found = int(rows.scalars(select(meta.c.value).where(VERSION)).one())
    _check(rows, found, to)
    up = [one for step in STEPS if found < step.version <= to for one in step.adds]
    down = [one for step in STEPS if to < step.version <= found for one in step.adds]
    for statement in (*(text for one in up for text in _add(rows, one)),
                      *(text for one in reversed(down) for text in _drop(rows, one))):  # fmt: skip
        rows.exec_driver_sql(statement)
    rows.execute(update(meta).where(VERSION).values(value=str(to)))
    return found


def _check(rows: Connection, found: int, to: int) -> None:
    place = rows.engine.url.database
    if found > NEWEST:
        raise StoreError(
            f"{place}: expected schema version {NEWEST} or older, found {found}, which a newer release wrote: use that "
            f"release, or let it go back: ./sentinel.py store migrate --to {NEWEST}"
        )
    if not OLDEST <= to <= NEWEST:
        raise StoreError(f"{place}: expected a schema version from {OLDEST} to {NEWEST}, found {to}")
    heard = select(heartbeat.c.name).where(heartbeat.c.at > now() - ALIVE_S).order_by(heartbeat.c.name)
    if to < found and (alive := list(rows.scalars(heard))):
        raise StoreError(
            f"{place}: still used by {', '.join(alive)}: ./sentinel.py down there, and {ALIVE_S:.0f} s later again"
        )


def _add(rows: Connection, one: Column[Any] | Table) -> Iterator[str]:
    if isinstance(one, Table):
        yield from map(str, (CreateTable(one).compile(dialect=rows.dialect), *_indexes(CreateIndex, rows, one.indexes)))
        return
    yield f"ALTER TABLE {one.table.name} ADD COLUMN {CreateColumn(one).compile(dialect=rows.dialect)}"
    yield from _indexes(CreateIndex, rows, (index for index in one.table.indexes if one.name in index.columns))


def _drop(rows: Connection, one: Column[Any] | Table) -> Iterator[str]:
    if isinstance(one, Table):
        yield f"DROP TABLE {one.name}"
        return
    yield from _indexes(DropIndex, rows, (index for index in one.table.indexes if one.name in index.columns))
    yield f"ALTER TABLE {one.table.name} DROP COLUMN {one.name}"


def _indexes(does: type[CreateIndex | DropIndex], rows: Connection, some: Iterable[Index]) -> Iterator[str]:
    return (str(does(index).compile(dialect=rows.dialect)) for index in some)
