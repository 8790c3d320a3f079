"""One candidate: its page, its waterfall, and the candidates that look like it."""

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from aetherscan.plotting.style import FOOT_IN, HEAD_IN, PANELS
from sentinel.notify.messages import remarks
from sentinel.store.injected import truth
from sentinel.store.queue import written_file
from sentinel.store.schema import candidate, label, superseded
from sentinel.web.desk import Desk, Visitor
from sentinel.web.events import position_now
from sentinel.web.query import SHOWN, Row, add_people, at_frequency, one_candidate

ALIKE = 12
"""Look-alikes that a page shows."""
MOST_ELSEWHERE = 20
THUMB_PX = (220, 160)
"""Width and height of a small picture, which shows the panels only."""
BORDER_IN = 0.02
"""Width of the border of the panels of a waterfall, with some space, inches."""
DPI = 100.0
YEAR = "private, max-age=31536000, immutable"
"""A picture has its checksum in its address, so a browser may keep it."""
REASONS = (
    "known transmitter",
    "seen at other targets",
    "visible in an OFF",
    "comb or clock",
    "broad or changing shape",
    "too faint to tell",
)
"""Reasons that a label may carry, by the keys 1 to 6."""


def candidate_id(request: Request) -> int:
    """Return the number in the path.

    Raises:
        HTTPException: no store has so many rows.
    """
    number = int(request.path_params["candidate_id"])
    if number >= 2**31:
        raise HTTPException(404, f"no candidate {number}")
    return number


def show(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Show a candidate; `?card` is the part of the page that the queue of labels shows."""
    number, blind = candidate_id(request), "blind" in request.query_params
    with desk.store.read() as rows:
        facts = facts_of(desk, rows, number, visitor, blind=blind) | {"since": position_now(rows)}
    template = "card_only.html" if "card" in request.query_params else "candidate.html"
    return desk.render(template, request, visitor, blind=blind, **facts)


def facts_of(desk: Desk, rows: Connection, number: int, visitor: Visitor, *, blind: bool) -> dict[str, Any]:
    """Return what the page of a candidate shows. In blind mode neither the probability nor labels are part of it.

    An injected signal is shown as a candidate until the visitor has labeled it; then `injected` says what it was.

    Args:
        desk: whose latents are compared.
        rows: of the open transaction.
        number: of the candidate.
        visitor: who looks.
        blind: whether the reviewer sees the signal only.

    Raises:
        HTTPException: there is no such row.
    """
    row = one_candidate(rows, number)
    if row is None:
        raise HTTPException(404, f"no candidate {number}")
    picture = written_file(rows, number, "waterfall")
    facts: dict[str, Any] = {"row": row, "picture": picture and f"/candidates/{number}/picture.png?v={picture[1][:12]}"}
    kept = written_file(rows, number, "stamp")
    facts["stamp"] = kept and f"/candidates/{number}/stamp?v={kept[1][:12]}"
    facts |= {"reasons": REASONS, "alike": [], "elsewhere": [], "history": []}
    facts["injected"] = truth(rows, number, visitor.name)
    if blind:
        hidden = ("probability", "probability_spread", "strangeness", "label_in_force", "kind", "kind_probability")
        row |= dict.fromkeys(hidden) | {"people": []}
        row["remarks"] = remarks(row)
        return facts
    elsewhere = at_frequency(rows, row["frequency_mhz"], most=MOST_ELSEWHERE + 1)
    given = select(label).where(label.c.candidate_id == number).order_by(label.c.id.desc())
    return facts | {
        "alike": look_alikes(desk, rows, row),
        "elsewhere": [other for other in elsewhere if other["id"] != number][:MOST_ELSEWHERE],
        "history": [dict(each) for each in rows.execute(given).mappings()],
    }


def look_alikes(desk: Desk, rows: Connection, row: Row, count: int = ALIKE) -> list[Row]:
    """Return the candidates nearest in latent space that no later search replaced, with their `distance`.

    Args:
        desk: whose latents are compared.
        rows: of the open transaction.
        row: of the candidate.
        count: most look-alikes.
    """
    near = dict(desk.latents.nearest(rows, row, 4 * count))
    query = select(*SHOWN).where(candidate.c.id.in_(near), ~superseded())
    found = [{**row, "superseded": False, "distance": near[row["id"]]} for row in rows.execute(query).mappings()]
    found = sorted(found, key=lambda row: row["distance"])[:count]
    add_people(rows, found)
    return found


def picture(desk: Desk, request: Request, _: Visitor) -> Response:
    """Return the waterfall of a candidate; `?blind` cuts off the head, which names the probability."""
    path, kept = _picture_path(desk, request), {"Cache-Control": YEAR}
    if "blind" in request.query_params:
        return Response(_headless(path, path.stat().st_mtime_ns), media_type="image/png", headers=kept)
    return FileResponse(path, media_type="image/png", headers=kept)


def thumbnail(desk: Desk, request: Request, _: Visitor) -> Response:
    """Return the waterfall of a candidate in a small size."""
    path = _picture_path(desk, request)
    return Response(_small(path, path.stat().st_mtime_ns), media_type="image/png", headers={"Cache-Control": YEAR})


def _picture_path(desk: Desk, request: Request) -> Path:
    """Return the path of a picture, which must be inside the picture folder, whatever the store says."""
    with desk.store.read() as rows:
        found = written_file(rows, number := candidate_id(request), "waterfall")
    path = Path(found[0]).resolve() if found else None
    if path is None or not path.is_relative_to(desk.config.pictures.resolve()) or not path.is_file():
        raise HTTPException(404, f"no picture of candidate {number}")
    return path


@lru_cache(maxsize=512)
def _small(path: Path, _: int) -> bytes:
    from PIL import Image

    with Image.open(path) as whole:
        dots = _dots_per_inch(whole)
        high = (HEAD_IN - BORDER_IN) * dots, whole.height - FOOT_IN * dots
        panels = (PANELS[0] * whole.width, high[0], PANELS[1] * whole.width, high[1])
        small = whole.convert("RGB").resize(THUMB_PX, Image.Resampling.BOX, panels).quantize(64)
    stream = io.BytesIO()
    small.save(stream, "PNG", optimize=True)
    return stream.getvalue()


@lru_cache(maxsize=64)
def _headless(path: Path, _: int) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    with Image.open(path) as whole:
        whole.crop((0, round((HEAD_IN - BORDER_IN) * _dots_per_inch(whole)), *whole.size)).save(stream, "PNG")
    return stream.getvalue()


def _dots_per_inch(image: Any) -> float:
    return float(image.info.get("dpi", (DPI, DPI))[1])


def ids_of(values: Sequence[str]) -> list[int] | None:
    """Return the ids that the fields of a form hold, each once, or None if one is no id."""
    if not all(value.isascii() and value.isdecimal() and len(value) < 10 for value in values):
        return None
    return list(dict.fromkeys(map(int, values)))
