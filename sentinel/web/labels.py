"""Labels: the queue of candidates that are judged one at a time, and the forms that store or undo labels."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from sentinel.errors import ConfigError, StoreAwayError, StoreError
from sentinel.failpoint import failpoint
from sentinel.notify.messages import one_line
from sentinel.store.filters import KEYS, SORTS, Filter, ordering, parse_filter
from sentinel.store.injected import merged, open_injected, put_injected, truth
from sentinel.store.labels import LABELS, put_labels, undo_labels
from sentinel.store.schema import candidate, label
from sentinel.web import texts
from sentinel.web.candidate import REASONS, facts_of, ids_of
from sentinel.web.desk import Desk, Visitor, back, refuse, wants_json
from sentinel.web.events import position_now
from sentinel.web.query import add_people, total
from sentinel.web.table import terms_of

QUEUE = 200
"""Candidates that a page of the queue knows; after these it is loaded again."""
LONGEST_NOTE = 2000
MOST_AT_ONCE = 500
PAGE = "page"
"""`via` of labels that are given here."""
Fields = Mapping[str, list[str]]


def queue(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Show the first candidate of a filter, or the one named by `start`, to be labeled by keys."""
    blind = "blind" in request.query_params
    try:
        asked = queue_filter(terms_of(request, without=("blind", "start")), blind=blind)
    except ConfigError as error:
        return desk.render("problem.html", request, visitor, 400, problem=str(error), keys=KEYS)
    with desk.store.read() as rows:
        column = SORTS[asked.sort.removeprefix("-")].column.label("value")
        query = select(candidate.c.id, column).where(*asked.conditions(visitor.name)).order_by(*ordering(asked.sort))
        injected = open_injected(rows, asked, visitor.name)
        found = [(row.id, row.value) for row in rows.execute(query.limit(QUEUE))]
        ids = merged(found, injected, asked.sort, QUEUE)
        start = request.query_params.get("start", "")
        ids = ids[ids.index(int(start)) :] if start.isdecimal() and int(start) in ids else ids
        facts: dict[str, Any] = facts_of(desk, rows, ids[0], visitor, blind=blind) if ids else {"row": None}
        count = total(rows, asked, visitor.name) + len(injected)
        values: dict[str, Any] = {"count": count, "since": position_now(rows)}
    query_text = asked.query() + ("&blind=1" if blind else "")
    return desk.render("label.html", request, visitor, ids=ids, blind=blind, query=query_text, **values, **facts)


def queue_filter(terms: list[tuple[str, str]], *, blind: bool) -> Filter:
    """Return the filter of a queue: what has no label, most probable first; in blind mode by id, which tells nothing.

    Raises:
        ConfigError: a term is none.
    """
    asked = parse_filter(terms, sort="-p")
    asked = asked if "label" in asked.terms else parse_filter([*terms, ("label", "none")], sort="-p")
    return asked.ordered("id") if blind else asked


def put(desk: Desk, request: Request, visitor: Visitor, fields: Fields) -> Response:
    """Store one label for one or more candidates, all or none. Of injected signals the answer tells what they were.

    Args:
        desk: whose store is written.
        request: that sent the form.
        visitor: whose label it is.
        fields: `row` (ids of candidates), `label`, `reason`, `note`, `blind`, `next`.
    """
    word, reason = fields.get("label", [""])[0], fields.get("reason", [""])[0]
    note, ids = fields.get("note", [""])[0].strip(), ids_of(fields.get("row", []))
    if not ids or len(ids) > MOST_AT_ONCE:
        return refuse(request, 400, f"expected the ids of 1 to {MOST_AT_ONCE} candidates")
    if word not in LABELS:
        return refuse(request, 400, f"expected a label of {', '.join(LABELS)}, found {one_line(word, 40)}")
    if reason not in {"", *REASONS} or len(note) > LONGEST_NOTE:
        return refuse(request, 400, f"expected one of the reasons, and a note of at most {LONGEST_NOTE} characters")
    about: dict[str, Any] = {"reason": reason or None, "note": note or None, "blind": "blind" in fields}
    try:
        with desk.store.write() as rows:
            injected = put_injected(rows, ids, word, visitor.name, **about)
            real = [each for each in ids if each not in injected]
            given = put_labels(rows, real, word, visitor.name, via=PAGE, **about)
            failpoint("before-label")
            told = {number: truth(rows, number, visitor.name) for number in injected}
    except StoreAwayError:
        raise
    except StoreError as error:
        return refuse(request, 404, one_line(error))
    if injected and not wants_json(request):
        return RedirectResponse(f"/candidates/{injected[0]}", 303)  # its page tells what it was
    lines = [f"candidate {number} {texts.injected(facts)}" for number, facts in told.items()]
    return _answer(desk, request, fields, real, given, told=lines)


def undo(desk: Desk, request: Request, visitor: Visitor, fields: Fields) -> Response:
    """Undo labels of the person who asks, so that an earlier one counts again.

    Args:
        desk: whose store is written.
        request: that sent the form.
        visitor: who asks.
        fields: `given` (ids of labels), `next`.
    """
    numbers = ids_of(fields.get("given", []))
    if not numbers or len(numbers) > MOST_AT_ONCE:
        return refuse(request, 400, f"expected the ids of 1 to {MOST_AT_ONCE} labels")
    with desk.store.write() as rows:
        undone = undo_labels(rows, numbers, visitor.name)
        ids = list(rows.scalars(select(label.c.candidate_id).where(label.c.id.in_(undone)).distinct()))
    return _answer(desk, request, fields, ids, undone)


def state(desk: Desk, request: Request, _: Visitor) -> Response:
    """Return the labels of candidates, for pages that show them already."""
    ids = ids_of(request.query_params.getlist("row"))
    if ids is None or len(ids) > MOST_AT_ONCE:
        return refuse(request, 400, f"expected at most {MOST_AT_ONCE} ids of candidates")
    with desk.store.read() as rows:
        return JSONResponse({"candidates": _labels(rows, ids)})


def _answer(
    desk: Desk, request: Request, fields: Fields, ids: list[int], given: list[int], *, told: Sequence[str] = ()
) -> Response:
    """Return what is in force now. This is sent after the commit, so whatever it says is stored."""
    if not wants_json(request):
        return back(fields, f"/candidates/{ids[0]}" if ids else "/candidates")
    with desk.store.read() as rows:
        found = {"given": given, "candidates": _labels(rows, ids)}
    return JSONResponse(found | ({"told": told} if told else {}))


def _labels(rows: Connection, ids: list[int]) -> list[dict[str, Any]]:
    query = select(candidate.c.id, candidate.c.label_in_force).where(candidate.c.id.in_(ids))
    found = [dict(row) for row in rows.execute(query).mappings()]
    add_people(rows, found)
    return [{"id": row["id"], "label": row["label_in_force"], "people": row["people"]} for row in found]
