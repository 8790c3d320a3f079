"""Labels that people give to candidates, and the one that is in force.

Rows are only added, never changed, but for the time at which a label was undone. Of each person the last label that was
not undone counts. The most frequent of these is in force, and a tie is `unsure`. It is kept in
`candidate.label_in_force`, in the transaction that changes a label.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, exists, func, insert, select, update

from sentinel.errors import StoreError
from sentinel.store.schema import candidate, label, now, outbox

LABELS = ("candidate", "RFI", "unsure")
UNSURE = "unsure"
EARLIER = "earlier"
"""`via` of labels that a service of a version before 10 wrote."""
BATCH = 500
"""Ids in one statement; SQLite allows 32,766."""


def standing_labels() -> Select[Any]:
    """Select the labels that count: of each person the last one that was not undone."""
    later = label.alias()
    same = (later.c.candidate_id == label.c.candidate_id) & (_person(later) == _person(label))
    replaced = exists().where(same, later.c.id > label.c.id, later.c.undone_at.is_(None)).correlate(label)
    return select(label).where(label.c.undone_at.is_(None), ~replaced)


def disagreed() -> Select[tuple[int]]:
    """Select the ids of the candidates that people label differently."""
    counted = standing_labels().subquery()
    several = func.count(counted.c.label.distinct()) > 1
    return select(counted.c.candidate_id).group_by(counted.c.candidate_id).having(several)


def put_labels(
    rows: Connection,
    candidate_ids: Sequence[int],
    word: str,
    by: str | None,
    *,
    via: str,
    reason: str | None = None,
    note: str | None = None,
    blind: bool = False,
) -> list[int]:
    """Record what a person takes candidates for; return the ids of the labels.

    The messages that list them are marked to be edited.

    Args:
        rows: of the open transaction.
        candidate_ids: numbers of the rows.
        word: candidate, RFI or unsure.
        by: name of the person.
        via: how it was given: command or page.
        reason: what kind of interference, or why a candidate.
        note: free text.
        blind: whether the person saw neither the probability nor other labels.

    Raises:
        StoreError: there is no such row, or no such label; nothing was recorded.
    """
    if word not in LABELS:
        raise StoreError(f"expected a label of {', '.join(LABELS)}, found {word}")
    known = _lock(rows, candidate_ids)
    if missing := sorted(set(candidate_ids) - known):
        raise StoreError(f"candidate {missing[0]}: no such row")
    values = {"label": word, "by": by, "via": via, "reason": reason, "note": note, "blind": blind}
    statement = insert(label).returning(label.c.id)
    ids = [rows.scalars(statement.values(candidate_id=each, at=now(), **values)).one() for each in candidate_ids]
    _count(rows, known)
    _edit_messages(rows, known)
    return ids


def undo_labels(rows: Connection, label_ids: Sequence[int], by: str | None) -> list[int]:
    """Undo labels of a person, so that an earlier one of that person counts; return the ids of those undone.

    Labels of other persons, and those already undone, are left.

    Args:
        rows: of the open transaction.
        label_ids: numbers of the labels.
        by: name of the person.
    """
    mine = label.c.id.in_(label_ids) & label.c.undone_at.is_(None) & label.c.by.is_not_distinct_from(by)
    ids = _lock(rows, list(rows.scalars(select(label.c.candidate_id).where(mine))))
    undone = list(rows.scalars(update(label).where(mine).values(undone_at=now()).returning(label.c.id)))
    _count(rows, ids)
    _edit_messages(rows, ids)
    return sorted(undone)


def copy_labels(rows: Connection, copies: Iterable[tuple[int, int]]) -> None:
    """Copy the labels that count from candidates to others, of which a later search found the same line.

    Args:
        rows: of the open transaction.
        copies: ids of the candidate that has the labels, and of the one that gets them.
    """
    names = ("label", "by", "at", "reason", "note", "blind")
    for old, new in copies:
        for row in rows.execute(standing_labels().where(label.c.candidate_id == old)).mappings().all():
            rows.execute(insert(label).values(candidate_id=new, via="search", **{name: row[name] for name in names}))
            _count(rows, {new})


def count_earlier_labels(rows: Connection) -> None:
    """Count the labels that a service of a version before 10 wrote, which knows no label in force."""
    new = label.c.via.is_(None)
    if ids := list(rows.scalars(select(label.c.candidate_id).where(new).distinct())):
        _lock(rows, ids)
        rows.execute(update(label).where(new, label.c.candidate_id.in_(ids)).values(via=EARLIER))
        _count(rows, ids)


def in_force(words: Iterable[str]) -> str | None:
    """Return the label in force, of one label a person; None of none."""
    ranked = Counter(words).most_common(2)
    tied = len(ranked) > 1 and ranked[0][1] == ranked[1][1]
    return UNSURE if tied else ranked[0][0] if ranked else None


def _person(labels: Any) -> ColumnElement[str]:
    return func.coalesce(labels.c.by, "")


def _batches(ids: Iterable[int]) -> Iterator[list[int]]:
    every = sorted(set(ids))
    return (every[first : first + BATCH] for first in range(0, len(every), BATCH))


def _lock(rows: Connection, ids: Iterable[int]) -> set[int]:
    """Lock candidates, so that of two persons who label one at once the second counts both; return those that exist."""
    locked = select(candidate.c.id).order_by(candidate.c.id).with_for_update()
    return {each for some in _batches(ids) for each in rows.scalars(locked.where(candidate.c.id.in_(some)))}


def _count(rows: Connection, ids: Iterable[int]) -> None:
    """Set the label in force of candidates."""
    for some in _batches(ids):
        words = defaultdict[int, list[str]](list)
        for row in rows.execute(standing_labels().where(label.c.candidate_id.in_(some))):
            words[row.candidate_id].append(row.label)
        for word in (*LABELS, None):
            if same := [each for each in some if in_force(words[each]) == word]:
                rows.execute(update(candidate).where(candidate.c.id.in_(same)).values(label_in_force=word))


def _edit_messages(rows: Connection, ids: Iterable[int]) -> None:
    """Mark the messages that list candidates to be edited."""
    for some in _batches(ids):
        cadences = select(candidate.c.cadence_id).where(candidate.c.id.in_(some))
        messages = select(func.coalesce(outbox.c.parent_id, outbox.c.id)).where(outbox.c.cadence_id.in_(cadences))
        posted = outbox.c.id.in_(messages) & (outbox.c.state != "off")
        rows.execute(update(outbox).where(posted).values(stale_at=now()))
