"""Pages for people."""

from typing import Any

from sqlalchemy import case, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from sentinel.notify.messages import remarks
from sentinel.store.schema import cadence, candidate, labeled
from sentinel.web.desk import Desk, Visitor

ROWS = 500
"""Candidates on a page, the newest first."""


def night(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Show what there is to see."""
    return desk.render("night.html", request, visitor)


def candidates(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Show the newest candidates."""
    return desk.render("candidates.html", request, visitor, rows=_rows(desk), cadence=None)


def one_cadence(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Show the state of a cadence and its candidates."""
    cadence_id = int(request.path_params["cadence_id"])
    columns = (cadence.c.id, cadence.c.target, cadence.c.pattern, cadence.c.state, cadence.c.why)
    with desk.store.read() as rows:
        known = (
            cadence_id < 2**31 and rows.execute(select(*columns).where(cadence.c.id == cadence_id)).mappings().first()
        )
    if not known:
        raise HTTPException(404, f"no cadence {cadence_id}")
    return desk.render("candidates.html", request, visitor, rows=_rows(desk, cadence_id), cadence=known)


def _rows(desk: Desk, cadence_id: int | None = None) -> list[dict[str, Any]]:
    warnings = case((cadence.c.state.in_(("ready", "done")), cadence.c.why), else_=None).label("warnings")
    query = labeled().add_columns(warnings).join(cadence, cadence.c.id == candidate.c.cadence_id)
    if cadence_id is not None:
        query = query.where(candidate.c.cadence_id == cadence_id)
    with desk.store.read() as rows:
        found = rows.execute(query.order_by(candidate.c.id.desc()).limit(ROWS)).mappings()
        return [{**row, "remarks": remarks(dict(row))} for row in found]
