"""Schema migrations: up when a store is opened, down before an older release of this software uses it.

A version adds tables, indexes and nullable columns without foreign keys (SQLite cannot drop a foreign key), or drops
tables and indexes that no service needs, so a service of the older version can go on in a newer store. A downgrade
drops what the version added, and creates what it dropped, without rows. A released step is never changed: a change is a
new step. A migration is one transaction, so a kill leaves one version or the other.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.schema import CreateColumn, CreateTable, DropIndex

from sentinel import COMMAND
from sentinel.errors import StoreError
from sentinel.store.labels import count_earlier_labels
from sentinel.store.schema import (
    METADATA,
    artefact,
    attempt,
    cadence,
    candidate,
    file,
    heartbeat,
    in_last,
    injected_candidate,
    injected_label,
    injection,
    label,
    latents_of,
    meta,
    occupancy,
    outbox,
    shadow,
)

WRITER_LOCK = 0x53454E54
"""Key of the advisory lock in PostgreSQL. SQLite allows one writer at a time anyway."""
VERSION = meta.c.key == "schema_version"
ALIVE_S = 60.0
"""A program with a heartbeat within this time may use columns that a downgrade drops."""
TRAINING = Table(
    "training",
    MetaData(),
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("run", Text, nullable=False, index=True),
    Column("stage", Text, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("facts", JSON, nullable=False),
    Column("at", Float, nullable=False),
)
"""Log of trainings in versions 3 to 7. Nothing read it; the report of a training holds the same."""
FACETS = Index(
    "candidate_facets",
    *Table("candidate", MetaData(), *(Column(name) for name in (
        *("label_in_force", "telescope", "release_name", "allocations", "comb_teeth", "seen_cadences", "tstart_mjd"),
        *("cadence_id", "attempt_id"),
    ))).columns,
)  # fmt: skip
"""Index in versions 10 and 11. Filters on measurements had to read the rows themselves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What a version changes in the one before.

    Attributes:
        adds: tables, columns, and indexes of more than one column.
        drops: tables and indexes.
        lengthens: texts, with the length before and after. A downgrade cuts longer ones; SQLite ignores the length.
        fills: fill what was added from what was there before.
        restores: before a downgrade, put back what only the added columns hold.
    """

    version: int
    adds: tuple[Column[Any] | Table | Index, ...] = ()
    drops: tuple[Table | Index, ...] = ()
    lengthens: tuple[tuple[Column[Any], int, int], ...] = ()
    fills: tuple[Callable[[Connection], object], ...] = ()
    restores: tuple[Callable[[Connection], object], ...] = ()


ROWS = 1000
"""Rows that are converted at a time."""


def _pack_latents(rows: Connection) -> None:
    """Store latents as float32 in place of JSON."""
    _convert(rows, candidate.c.latents_f32.is_(None), lambda row: {"latents_f32": row["latents"], "latents": []})


def _unpack_latents(rows: Connection) -> None:
    """Store latents as JSON again."""
    _convert(rows, candidate.c.latents_f32.is_not(None), lambda row: {"latents": latents_of(row)})


def _delete_undone(rows: Connection) -> None:
    """Delete the labels that were undone: a version before 10 counts every label."""
    rows.execute(delete(label).where(label.c.undone_at.is_not(None)))


def _convert(rows: Connection, which: Any, values: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    some = select(candidate.c.id, candidate.c.latents, candidate.c.latents_f32).where(which).order_by(candidate.c.id)
    changed = update(candidate).where(candidate.c.id == bindparam("row_id"))
    last = 0
    while found := rows.execute(some.where(candidate.c.id > last).limit(ROWS)).mappings().all():
        last = found[-1]["id"]
        rows.execute(changed, [{"row_id": row["id"], **values(dict(row))} for row in found])


INDEXES = {str(index.name): index for index in candidate.indexes}
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
            TRAINING,
            attempt.c.service,
            file.c.stable_at,
            *(cadence.c[name] for name in ("landed_at", "stable_at")),
            *(outbox.c[name] for name in ("sequence", "parent_id", "digest", "posted_at", "stale_at", "edited_at")),
        ),
    ),
    Step(version=4, adds=(candidate.c.strangeness,)),
    Step(version=5, adds=(candidate.c.on_separation_arcmin,)),
    Step(version=6, adds=(candidate.c.valid, candidate.c.note)),
    Step(version=7, adds=(candidate.c.scored_by,), lengthens=((cadence.c.pattern, 6, 12),)),
    Step(version=8, drops=(TRAINING,)),
    Step(version=9, adds=(candidate.c.curvature_hz_s2,)),
    Step(
        version=10,
        adds=(
            *(
                candidate.c[name]
                for name in (
                    *("latents_f32", "ra_deg", "dec_deg", "telescope", "barycentric_mhz", "barycentric_drift_hz_s"),
                    *("drift_nhz", "joint_snr", "valid_share", "label_in_force", "muted", "seen_cadences", "seen_of"),
                    *("seen_targets", "last_seen_mjd", "kind", "kind_probability"),
                )
            ),
            *(label.c[name] for name in ("reason", "note", "via", "blind", "undone_at")),
            *(INDEXES[f"candidate_{name}"] for name in ("probability", "label")),
            FACETS,
            *(INDEXES[f"candidate_{name}"] for name in ("night", "target")),
            occupancy,
        ),
        fills=(_pack_latents,),
        restores=(_unpack_latents, _delete_undone),
    ),
    Step(version=11, adds=(artefact.c.bytes,)),
    Step(version=12, adds=(INDEXES["candidate_filter"], injected_candidate, injected_label), drops=(FACETS,)),
    Step(version=13, adds=(candidate.c.rfi_density,)),
)
OLDEST, NEWEST = 1, STEPS[-1].version


def lock_writers(rows: Connection) -> None:
    """Block other transactions that call this until this transaction ends."""
    if rows.dialect.name == "postgresql":
        rows.execute(select(func.pg_advisory_xact_lock(WRITER_LOCK)))


def create_or_upgrade(rows: Connection) -> None:
    """Create the tables, or upgrade those of an older version.

    Raises:
        StoreError: the store is of a newer version than this code.
    """
    lock_writers(rows)
    if inspect(rows).has_table(meta.name):
        migrate(rows, NEWEST)
        count_earlier_labels(rows)
    else:
        METADATA.create_all(rows)
        rows.execute(insert(meta).values(key="schema_version", value=str(NEWEST)))


def migrate(rows: Connection, to: int) -> int:
    """Upgrade or downgrade the store to the version `to`; return the version it had.

    Raises:
        StoreError: the version does not exist, the store is newer than this code, or a program still uses a store
            that is to be downgraded.
    """
    lock_writers(rows)
    version = int(rows.scalars(select(meta.c.value).where(VERSION)).one())
    _check(rows, version, to)
    for step in STEPS:
        if version < step.version <= to:
            _change(rows, step.adds, [(column, after) for column, _, after in step.lengthens], step.drops)
            for fill in step.fills:
                fill(rows)
    for step in reversed(STEPS):
        if to < step.version <= version:
            for restore in step.restores:
                restore(rows)
            _change(rows, step.drops, [(column, before) for column, before, _ in step.lengthens], step.adds[::-1])
    rows.execute(update(meta).where(VERSION).values(value=str(to)))
    return version


def _check(rows: Connection, version: int, to: int) -> None:
    place = rows.engine.url.database
    if version > NEWEST:
        raise StoreError(
            f"{place}: expected schema version {NEWEST} or older, found {version}, which a newer release "
            f"wrote: use that release, or downgrade with it: {COMMAND} store migrate --to {NEWEST}"
        )
    if not OLDEST <= to <= NEWEST:
        raise StoreError(f"{place}: expected a schema version from {OLDEST} to {NEWEST}, found {to}")
    recent = select(heartbeat.c.name).where(in_last(heartbeat.c.at, ALIVE_S)).order_by(heartbeat.c.name)
    if to < version and (alive := list(rows.scalars(recent))):
        raise StoreError(
            f"{place}: still used by {', '.join(alive)}: run {COMMAND} down there and retry after {ALIVE_S:.0f} s"
        )


def _change(
    rows: Connection,
    added: Iterable[Column[Any] | Table | Index],
    resized: Iterable[tuple[Column[Any], int]],
    dropped: Iterable[Column[Any] | Table | Index],
) -> None:
    for item in added:
        _add(rows, item)
    for column, length in resized:
        _resize(rows, column, length)
    for item in dropped:
        _drop(rows, item)


def _add(rows: Connection, item: Column[Any] | Table | Index) -> None:
    if isinstance(item, Index):
        item.create(rows)
    elif isinstance(item, Table):
        rows.exec_driver_sql(str(CreateTable(item).compile(dialect=rows.dialect)))
        for index in item.indexes:
            index.create(rows)
    else:
        column = CreateColumn(item).compile(dialect=rows.dialect)
        rows.exec_driver_sql(f"ALTER TABLE {item.table.name} ADD COLUMN {column}")
        for index in _own_indexes(item):
            index.create(rows)


def _resize(rows: Connection, column: Column[Any], length: int) -> None:
    if rows.dialect.name == "postgresql":
        kind = f"VARCHAR({length}) USING substr({column.name}, 1, {length})"
        rows.exec_driver_sql(f"ALTER TABLE {column.table.name} ALTER COLUMN {column.name} TYPE {kind}")


def _drop(rows: Connection, item: Column[Any] | Table | Index) -> None:
    if isinstance(item, Index):
        rows.execute(DropIndex(item, if_exists=True))  # those of another database do not exist
    elif isinstance(item, Table):
        rows.exec_driver_sql(f"DROP TABLE {item.name}")
    else:
        for index in _own_indexes(item):
            rows.execute(DropIndex(index))
        rows.exec_driver_sql(f"ALTER TABLE {item.table.name} DROP COLUMN {item.name}")


def _own_indexes(column: Column[Any]) -> list[Index]:
    """Return the indexes of this column alone; those of several are items of their step."""
    return [index for index in column.table.indexes if list(index.columns) == [column]]
