"""What the pages ask of the store: a page of a table, counts of its facets, one candidate, a night."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from sentinel.errors import ConfigError
from sentinel.notify.messages import remarks
from sentinel.store.filters import SORTS, Filter, beyond, ordering
from sentinel.store.injected import injected_row
from sentinel.store.labels import standing_labels
from sentinel.store.queue import SAME_FREQUENCY_MHZ
from sentinel.store.schema import cadence, candidate, label, labeled, superseded

ROWS = 100
"""Candidates on one page of the table."""
MOST_VALUES = 8
"""Values of a facet that are listed."""
NONE = "none"
Row = dict[str, Any]
SHOWN = tuple(column for column in candidate.c if column.name not in {"latents", "latents_f32", "config_sha256"})
"""Columns that pages show; latents are most of the bytes of a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TablePage:
    """Rows of a table in order, and the positions before and after them; empty where there are no more."""

    rows: Sequence[Row]
    before: str
    after: str


def table_page(rows: Connection, asked: Filter, person: str, *, after: str = "", before: str = "") -> TablePage:
    """Return the page of a table after, or before, a position.

    Args:
        rows: of the open transaction.
        asked: filter and order.
        person: who looks.
        after: position of the last row of the page before.
        before: position of the first row of the page after.

    Raises:
        ConfigError: a position is none.
    """
    backward = bool(before) and not after
    column = SORTS[asked.sort.removeprefix("-")].column
    query = select(candidate.c.id).where(*asked.conditions(person))
    if position := after or before:
        query = query.where(beyond(asked.sort, *_place(position, column), backward=backward))
    # The ids first: a sort would otherwise carry, and compute, every column of every row.
    ids = list(rows.scalars(query.order_by(*ordering(asked.sort, backward=backward)).limit(ROWS + 1)))
    more, shown = len(ids) > ROWS, ids[:ROWS][::-1] if backward else ids[:ROWS]
    whole = select(*SHOWN, superseded().label("superseded")).where(candidate.c.id.in_(shown))
    by_id = {row["id"]: dict(row) for row in rows.execute(whole).mappings()}
    kept = [by_id[row_id] for row_id in shown]
    is_first, is_last = (not more, False) if backward else (not position, not more)
    ends = [json.dumps([row[column.name], row["id"]]) for row in (kept[:1] + kept[-1:] if kept else [])]
    add_people(rows, kept)
    return TablePage(
        rows=kept, before="" if is_first or not ends else ends[0], after="" if is_last or not ends else ends[1]
    )


def _place(position: str, column: Any) -> tuple[Any, int]:
    """Return value and id of a position.

    Raises:
        ConfigError: it is none.
    """
    try:
        value, row_id = json.loads(position)
        kind = str if column.type.python_type is str else (int, float)
        valid = isinstance(row_id, int) and abs(row_id) < 2**31 and (value is None or isinstance(value, kind))
    except (ValueError, TypeError, RecursionError):
        valid = False
    if not valid:
        raise ConfigError("filter: expected the position of a page that this server gave, found another")
    return value, row_id


def add_people(rows: Connection, found: Sequence[Row]) -> None:
    """Add to each row who labeled it and how (`people`: name and label), and its `remarks`."""
    said: dict[int, list[tuple[str, str]]] = {}
    ids = [row["id"] for row in found]
    for each in rows.execute(standing_labels().where(label.c.candidate_id.in_(ids))):
        said.setdefault(each.candidate_id, []).append((each.by or "", each.label))
    for row in found:
        row["people"] = said.get(row["id"], [])
        row["remarks"] = remarks({**row, "label": None})


def total(rows: Connection, asked: Filter, person: str) -> int:
    """Return how many candidates a filter selects."""
    return int(rows.scalar(select(func.count()).select_from(candidate).where(*asked.conditions(person))) or 0)


def _listed(text: str | None) -> list[str]:
    return text.split(", ") if text else [NONE]


def _band(count: int | None) -> list[str]:
    return ["0" if not count else "1..9" if count < 10 else "10.."]


FACETS: Mapping[str, tuple[Any, Callable[[Any], list[str]]]] = {
    "label": (candidate.c.label_in_force, lambda word: [word or NONE]),
    "telescope": (candidate.c.telescope, lambda name: [name or NONE]),
    "release": (candidate.c.release_name, lambda name: [name]),
    "allocation": (candidate.c.allocations, _listed),
    "comb": (candidate.c.comb_teeth, lambda lines: ["yes" if lines else "no"]),
    "seen": (candidate.c.seen_cadences, _band),
    "kind": (candidate.c.kind, lambda name: [name or NONE]),
}
"""For each key of the filter that has a facet, its column, and the values that a row with this entry counts for. The
columns have the order of the index `candidate_filter`, so that SQLite groups without sorting."""


def facets(rows: Connection, asked: Filter, person: str) -> tuple[int, dict[str, list[tuple[str, int]]]]:
    """Return how many candidates a filter selects, and for each facet its most frequent values.

    The count of a value is that of the candidates that have it and meet the terms of all other keys.
    """
    counts: dict[str, Counter[str]] = {key: Counter() for key in FACETS}
    count = _count(rows, asked.conditions(person), tuple(FACETS), counts)
    for key in FACETS.keys() & asked.terms.keys():
        counts[key] = Counter()
        _count(rows, asked.conditions(person, without=key), (key,), counts)
    return count, {key: counts[key].most_common(MOST_VALUES) for key in FACETS}


def _count(rows: Connection, conditions: Sequence[Any], keys: Sequence[str], counts: dict[str, Counter[str]]) -> int:
    """Add the values of facets to their counts; return the number of rows."""
    columns = [FACETS[key][0] for key in keys]
    count = 0
    for *entries, n in rows.execute(select(*columns, func.count()).where(*conditions).group_by(*columns)):
        count += n
        for key, entry in zip(keys, entries, strict=True):
            for value in FACETS[key][1](entry):
                counts[key][value] += n
    return count


def one_candidate(rows: Connection, candidate_id: int) -> Row | None:
    """Return a candidate or injected signal with its cadence's pattern, warnings, counts and pictures, or None."""
    about = (cadence.c.pattern, cadence.c.run, cadence.c.why, cadence.c.state.label("cadence_state"))
    query = labeled().add_columns(*about).join(cadence, cadence.c.id == candidate.c.cadence_id)
    found = rows.execute(query.where(candidate.c.id == candidate_id)).mappings().one_or_none()
    row = dict(found) if found else _injected(rows, candidate_id, about)
    if row is None:
        return None
    row["on"] = [letter == "A" for letter in row["pattern"] or ""]
    row["label_in_force"] = row.pop("label")
    add_people(rows, [row])
    return row


def _injected(rows: Connection, number: int, about: Sequence[Any]) -> Row | None:
    row = injected_row(rows, number)
    if row is None:
        return None
    of_cadence = rows.execute(select(*about).where(cadence.c.id == row["cadence_id"])).mappings().one()
    return row | dict(of_cadence) | {"label": None, "superseded": False}


def at_frequency(rows: Connection, mhz: float, width_mhz: float = SAME_FREQUENCY_MHZ, most: int = 500) -> list[Row]:
    """Return the candidates within a distance of a frequency, the newest first.

    Args:
        rows: of the open transaction.
        mhz: the frequency.
        width_mhz: largest distance from it.
        most: most rows.
    """
    near = candidate.c.frequency_mhz.between(mhz - width_mhz, mhz + width_mhz)
    query = select(*SHOWN, superseded().label("superseded")).where(near, ~superseded())
    found = [dict(row) for row in rows.execute(query.order_by(candidate.c.tstart_mjd.desc()).limit(most)).mappings()]
    add_people(rows, found)
    return found
