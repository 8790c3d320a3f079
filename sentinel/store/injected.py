"""Injected signals that people label without knowing it, and how their labels compare with what is true.

The search of a blind injection finds a candidate that nobody sent. It is kept in tables of its own, so that no count,
export, message or training can hold it; only the queue of labels shows it among the candidates. Its number is one that
no candidate has. Whoever has labeled it is told what it was, so the first label of each person counts.

Interference is known without labels where the memory of interference had lines at the frequency of a candidate in at
least half of the cadences, also at other targets.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import JSON, Column, Connection, cast, exists, func, insert, literal, select, union_all
from sqlalchemy.sql.visitors import replacement_traverse

from sentinel.store.filters import SORTS, Filter, ordering
from sentinel.store.labels import standing_labels
from sentinel.store.schema import (
    FEW_CADENCES,
    Float32Array,
    candidate,
    in_last,
    injected_candidate,
    injected_label,
    injection,
    now,
)

OPEN_S = 7 * 86_400.0
"""For this long after its search, in seconds, the queue shows an injected signal to those who have not labeled it."""
MOST_OPEN = 50
"""Injected signals in one queue, the newest."""
FROM_TARGETS = 2
"""Other targets with a line at a frequency, from which on it is known as interference."""
Row = dict[str, Any]
_COMPARED = tuple(column for column in candidate.c if not isinstance(column.type, (JSON, Float32Array)))
"""Columns that a filter or an order can read."""
_UNUSED = ~exists().where(candidate.c.id == injected_candidate.c.id)
"""The number is of no candidate. In SQLite, a service of an earlier version may give it to one: then it is that."""


def next_number(rows: Connection) -> int:
    """Return a number that no candidate has, and that none will get. The caller has locked other writers out."""
    if rows.dialect.name == "postgresql":
        return int(rows.scalars(select(func.nextval(func.pg_get_serial_sequence("candidate", "id")))).one())
    newest = [rows.scalar(select(func.max(table.c.id))) or 0 for table in (candidate, injected_candidate)]
    return int(max(newest)) + 1


def first_free(rows: Connection) -> dict[str, int]:
    """Return the number of the next candidate as its column, if the database would give it one that is taken."""
    if rows.dialect.name == "postgresql":
        return {}  # a sequence gives no number twice
    taken = rows.scalar(select(func.max(injected_candidate.c.id))) or 0
    return {"id": taken + 1} if taken > (rows.scalar(select(func.max(candidate.c.id))) or 0) else {}


def record_injected(rows: Connection, injection_id: int, row: Mapping[str, Any], files: Mapping[str, Any]) -> int:
    """Record the candidate of a blind injection for the queue of labels; return its number.

    Args:
        rows: of the open transaction, which no other writer shares.
        injection_id: row of the table `injection`.
        row: columns of the table `candidate`.
        files: path and sha256 of the waterfall and the stamp, by kind.
    """
    values = {"id": next_number(rows), "injection_id": injection_id, "cadence_id": row["cadence_id"]}
    rows.execute(insert(injected_candidate).values(**values, made_at=now(), row=dict(row), files=dict(files)))
    return values["id"]


def injected_row(rows: Connection, number: int) -> Row | None:
    """Return an injected signal as a row of `candidate`, or None if the number is of none."""
    found = (
        rows.execute(select(injected_candidate).where(injected_candidate.c.id == number, _UNUSED)).mappings().first()
    )
    return None if found is None else _as_candidate(dict(found))


def injected_file(rows: Connection, number: int, kind: str) -> tuple[str, str] | None:
    """Return path and sha256 of the waterfall or stamp of an injected signal, or None."""
    files = rows.scalar(select(injected_candidate.c.files).where(injected_candidate.c.id == number, _UNUSED)) or {}
    return (files[kind][0], files[kind][1]) if kind in files else None


def _as_candidate(found: Mapping[str, Any]) -> Row:
    return {column.name: None for column in candidate.c} | found["row"] | {"id": found["id"]}


def truth(rows: Connection, number: int, person: str) -> Row | None:
    """Return SNR, frequency and drift rate of an injected signal with the `label` of a person; None before that."""
    columns = (injection.c.snr, injection.c.frequency_mhz, injection.c.drift_rate_hz_s, injected_label.c.label)
    mine = (injected_label.c.injected_candidate_id == number) & (injected_label.c.by == person) & _UNUSED
    joined = select(*columns).select_from(injected_label)
    joined = joined.join(injected_candidate).join(injection, injection.c.id == injected_candidate.c.injection_id)
    found = rows.execute(joined.where(mine)).mappings().first()
    return dict(found) if found else None


def open_injected(rows: Connection, asked: Filter, person: str) -> list[tuple[int, Any]]:
    """Return number and value of the sort column of the injected signals that a queue shows a person, in its order.

    Args:
        rows: of the open transaction.
        asked: filter and order of the queue.
        person: who labels; nobody without a name can.
    """
    mine = select(injected_label.c.injected_candidate_id).where(injected_label.c.by == person)
    waiting = in_last(injected_candidate.c.made_at, OPEN_S) & injected_candidate.c.id.not_in(mine) & _UNUSED
    newest = select(injected_candidate).where(waiting).order_by(injected_candidate.c.id.desc()).limit(MOST_OPEN)
    found = [_as_candidate(dict(row)) for row in rows.execute(newest).mappings()] if person else []
    if not found:
        return []
    table = union_all(
        *(select(*(cast(literal(row[c.name], c.type), c.type).label(c.name) for c in _COMPARED)) for row in found)
    ).subquery()

    def of_table(element: Any, **_: Any) -> Any:
        return table.c[element.name] if isinstance(element, Column) and element.table is candidate else None

    column = SORTS[asked.sort.removeprefix("-")].column
    chosen = select(candidate.c.id, column.label("value")).where(*asked.conditions(person))
    chosen = chosen.order_by(*ordering(asked.sort))
    of_these: Any = replacement_traverse(chosen, {}, of_table)
    return [(row.id, row.value) for row in rows.execute(of_these)]


def merged(real: Sequence[tuple[int, Any]], injected: Sequence[tuple[int, Any]], sort: str, most: int) -> list[int]:
    """Return the ids of both in the order of a filter; of the injected ones those before the last real one of a page.

    Args:
        real: id and value of the sort column of candidates, in order.
        injected: the same of injected signals.
        sort: the order.
        most: candidates of a page; with fewer there is no further page.
    """
    descending, reals = sort.startswith("-"), {row_id for row_id, _ in real}

    def place(entry: tuple[int, Any]) -> tuple[bool, Any]:
        absent = entry[1] is None
        return (absent != descending, (0 if absent else entry[1], entry[0]))

    ids = [row_id for row_id, _ in sorted([*real, *injected], key=place, reverse=descending)]
    while len(real) >= most and ids[-1] not in reals:
        ids.pop()
    return ids


def put_injected(rows: Connection, numbers: Sequence[int], word: str, by: str, **about: Any) -> list[int]:
    """Record what a person takes injected signals for; a second label of the same person is not recorded.

    Args:
        rows: of the open transaction.
        numbers: of candidates and injected signals.
        word: candidate, RFI or unsure.
        by: name of the person.
        about: reason, note and blind.

    Returns:
        The numbers that are of injected signals.
    """
    known = list(rows.scalars(select(injected_candidate.c.id).where(injected_candidate.c.id.in_(numbers), _UNUSED)))
    of_person = (injected_label.c.by == by) & injected_label.c.injected_candidate_id.in_(known)
    labeled = set(rows.scalars(select(injected_label.c.injected_candidate_id).where(of_person)))
    for number in known:
        if number not in labeled:
            values = {"injected_candidate_id": number, "label": word, "by": by, "at": now(), **about}
            rows.execute(insert(injected_label).values(**values))
    return known


def reviewers(rows: Connection) -> list[Row]:
    """Return for each person who labeled injected signals how often these, and known interference, got each label.

    Each row has `name`, `injected` and `interference`: counts by label.
    """
    word, by = injected_label.c.label, injected_label.c.by
    counts: dict[str, dict[str, Counter[str]]] = {}
    for name, label, count in rows.execute(select(by, word, func.count()).group_by(by, word)):
        counts.setdefault(name, {"injected": Counter(), "interference": Counter()})["injected"][label] = count
    if not counts:
        return []
    given = standing_labels().subquery()
    known = (candidate.c.seen_of >= FEW_CADENCES) & (2 * candidate.c.seen_cadences >= candidate.c.seen_of)
    known &= candidate.c.seen_targets >= FROM_TARGETS
    query = select(given.c.by, given.c.label, func.count()).join(candidate, candidate.c.id == given.c.candidate_id)
    query = query.where(known, given.c.by.in_(counts)).group_by(given.c.by, given.c.label)
    for name, label, count in rows.execute(query):
        counts[name]["interference"][label] = count
    return [{"name": name, **counts[name]} for name in sorted(counts)]
