"""A cadence, a frequency through all cadences, and the guide."""

import re
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, case, func, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sentinel.store.filters import KEYS
from sentinel.store.labels import LABELS
from sentinel.store.occupancy import Memory, lines_at
from sentinel.store.queue import SAME_FREQUENCY_MHZ
from sentinel.store.schema import attempt, cadence, cadence_file, candidate, file, superseded
from sentinel.web.candidate import REASONS
from sentinel.web.desk import Desk, Visitor
from sentinel.web.query import SHOWN, Row, add_people, at_frequency

EXAMPLES = 4
"""Candidates of each label that the guide shows."""
MOST_ROWS = 500


def one_cadence(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Show the files of a cadence, the counts of its search, and its candidates."""
    number = int(request.path_params["cadence_id"])
    with desk.store.read() as rows:
        query = select(cadence).where(cadence.c.id == number)
        found = rows.execute(query).mappings().first() if number < 2**31 else None
        if found is None:
            raise HTTPException(404, f"no cadence {number}")
        tried = select(attempt).where(attempt.c.cadence_id == number).order_by(attempt.c.id.desc())
        values = {
            "cadence": dict(found),
            "files": _files(rows, number),
            "attempts": [dict(row) for row in rows.execute(tried).mappings()],
            "rows": _candidates(rows, number),
            "counts": (found["run"] or {}).get("counts", {}),
        }
    warns = found["state"] in {"ready", "done"} and found["why"]
    return desk.render("cadence.html", request, visitor, warnings=warns or "", **values)


def _files(rows: Connection, number: int) -> list[Row]:
    newest = select(func.max(file.c.id)).where(file.c.observation == cadence_file.c.observation)
    columns = (cadence_file.c.position, file.c.path, file.c.size, file.c.present, file.c.tstart, file.c.header)
    query = select(*columns).outerjoin(file, file.c.id == newest.correlate(cadence_file).scalar_subquery())
    query = query.where(cadence_file.c.cadence_id == number).order_by(cadence_file.c.position)
    return [{**row, "name": Path(row["path"] or "").name} for row in rows.execute(query).mappings()]


def _candidates(rows: Connection, number: int) -> list[Row]:
    replaced = superseded()
    query = select(*SHOWN, replaced.label("superseded")).where(candidate.c.cadence_id == number)
    query = query.order_by(case((replaced, 1), else_=0), candidate.c.probability.desc(), candidate.c.id).limit(
        MOST_ROWS
    )
    found = [dict(row) for row in rows.execute(query).mappings()]
    add_people(rows, found)
    return found


def at(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Show what was found at a frequency in all cadences, and in how many a line there was rejected."""
    text = request.path_params["mhz"]
    if not re.fullmatch(r"\d{1,7}(\.\d{1,12})?", text):
        raise HTTPException(404, "expected a frequency in MHz, such as /at/1420.4058")
    with desk.store.read() as rows:
        found = at_frequency(rows, float(text), most=MOST_ROWS)
        lines = lines_at(rows, float(text), Memory(**desk.config.memory.model_dump()))
    cadences, targets = len({row["cadence_id"] for row in found}), len({row["target"] for row in found})
    values: dict[str, Any] = {"cadences": cadences, "targets": targets, "half_khz": SAME_FREQUENCY_MHZ * 1e3}
    return desk.render("at.html", request, visitor, mhz=float(text), rows=found, lines=lines, **values)


def go(_: Desk, request: Request, __: Visitor) -> Response:
    """Go to the candidate or the frequency that is typed into the field of every page."""
    text = request.query_params.get("to", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return RedirectResponse(f"/candidates/{text}", 303)
    if re.fullmatch(r"\d{1,7}\.\d{1,12}", text):
        return RedirectResponse(f"/at/{text}", 303)
    raise HTTPException(404, "expected the number of a candidate, or a frequency in MHz with a decimal point")


def guide(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Show examples of each label from this store, the keys, and the meaning of columns and filters."""
    examples: dict[str, list[dict[str, Any]]] = {}
    with desk.store.read() as rows:
        for word in LABELS:
            chosen = (candidate.c.label_in_force == word) & candidate.c.picture.is_not(None) & ~superseded()
            query = select(*SHOWN, superseded().label("superseded")).where(chosen)
            examples[word] = [
                dict(row) for row in rows.execute(query.order_by(candidate.c.id.desc()).limit(EXAMPLES)).mappings()
            ]
            add_people(rows, examples[word])
    return desk.render("guide.html", request, visitor, examples=examples, keys=KEYS, reasons=REASONS)
