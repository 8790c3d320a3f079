"""What is new, as server-sent events: ids of candidates and of labels, never their content.

The id of an event is a position in the store. A browser that connects again sends the last one, and gets what it has
missed. PostgreSQL commits rows in another order than it numbers them, so a position also names the ids below it that
were missing; they are looked for again.
"""

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, func, select
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sentinel.errors import StoreError
from sentinel.store.queue import Store
from sentinel.store.schema import candidate, label

POLL_S = 1.0
SILENCE_S = 15.0
"""A comment is sent after this time, so that a lost connection is noticed, seconds."""
MOST_IDS = 500
"""Ids in one event."""
MOST_GAPS = 50
"""Missing ids that a position remembers, the newest ones: the others were rolled back long ago."""
MOST_STREAMS = 100
PLACE = re.compile(r"(\d{1,15})((?:\.\d{1,15}){0,50})-(\d{1,15})((?:\.\d{1,15}){0,50})-(\d{1,12}(?:\.\d{1,9})?)")


@dataclass(frozen=True, slots=True)
class Mark:
    """How far the ids of a table are known: the highest, and those below it that were missing."""

    last: int = 0
    gaps: tuple[int, ...] = ()

    def __str__(self) -> str:
        return ".".join(map(str, (self.last, *self.gaps)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a browser knows candidates and labels, and when the last label that it knows was undone."""

    candidates: Mark = field(default_factory=Mark)
    labels: Mark = field(default_factory=Mark)
    undone_at: float = 0.0

    def __str__(self) -> str:
        return f"{self.candidates}-{self.labels}-{self.undone_at:.6f}"

    @staticmethod
    def parse(text: str) -> "Position | None":
        """Return the position that a text spells, or None."""
        found = PLACE.fullmatch(text)
        if not found:
            return None
        marks = [Mark(int(found[i]), tuple(map(int, found[i + 1].split(".")[1:]))) for i in (1, 3)]
        return Position(candidates=marks[0], labels=marks[1], undone_at=float(found[5]))


def position_now(rows: Connection) -> Position:
    """Return the position of a store as it is."""
    marks = [_advance(rows, table, Mark(max(0, _newest(rows, table) - MOST_GAPS)))[0] for table in (candidate, label)]
    return Position(candidates=marks[0], labels=marks[1], undone_at=_undone_at(rows))


def news(rows: Connection, known: Position) -> tuple[Position, dict[str, list[int]]]:
    """Return the new position, and the ids of candidates that are new, and of those whose labels changed."""
    candidates, added = _advance(rows, candidate, known.candidates)
    labels, given = _advance(rows, label, known.labels)
    undone = select(label.c.candidate_id).where(label.c.undone_at > known.undone_at + 1e-6)
    changed = set(rows.scalars(select(label.c.candidate_id).where(label.c.id.in_(given)))) if given else set()
    at = _undone_at(rows)
    changed |= set(rows.scalars(undone)) if at > known.undone_at + 1e-6 else set()
    found = {"candidates": added, "labels": sorted(changed)}
    return Position(candidates=candidates, labels=labels, undone_at=max(at, known.undone_at)), found


def _newest(rows: Connection, table: Any) -> int:
    return int(rows.scalar(select(func.max(table.c.id))) or 0)


def _undone_at(rows: Connection) -> float:
    return float(rows.scalar(select(func.max(label.c.undone_at))) or 0.0)


def _advance(rows: Connection, table: Any, mark: Mark) -> tuple[Mark, list[int]]:
    """Return the new mark of a table, and the ids that have appeared since the earlier one."""
    ids = list(rows.scalars(select(table.c.id).where(table.c.id > mark.last).order_by(table.c.id).limit(MOST_IDS)))
    if mark.gaps:  # a query of its own: with OR, SQLite would read the whole table
        ids = sorted({*ids, *rows.scalars(select(table.c.id).where(table.c.id.in_(mark.gaps)))})
    if not ids:
        return mark, []
    last = max(mark.last, ids[-1])
    missing = {*mark.gaps, *range(max(mark.last + 1, last - MOST_GAPS, 1), last)} - set(ids)
    return Mark(last, tuple(sorted(missing)[-MOST_GAPS:])), ids


@dataclass(slots=True)
class Pulse:
    """Asks the store at most once a `POLL_S` whether anything is new, for all browsers together."""

    store: Store
    _seen: Position = field(default_factory=Position)
    _asked: float = float("-inf")
    _lock: threading.Lock = field(default_factory=threading.Lock)
    streams: int = 0

    def now(self) -> Position:
        """Return the position of the store, at most `POLL_S` old."""
        with self._lock:
            if time.monotonic() - self._asked >= POLL_S:
                with self.store.read() as rows:
                    self._seen = position_now(rows)
                self._asked = time.monotonic()
            return self._seen

    def since(self, known: Position) -> tuple[Position, dict[str, list[int]]]:
        """Return what is new since a position."""
        if self.now() == known:
            return known, {}
        with self.store.read() as rows:
            return news(rows, known)


def event(position: Position, found: dict[str, list[int]]) -> str:
    """Return one server-sent event."""
    return f"id: {position}\ndata: {json.dumps(found, separators=(',', ':'))}\n\n"


async def stream(pulse: Pulse, known: Position, request: Request) -> AsyncIterator[str]:
    """Yield an event whenever there is news, until the browser is gone."""
    pulse.streams += 1
    silent = time.monotonic()
    try:
        yield f"retry: 2000\nid: {known}\ndata: {{}}\n\n"
        while not await request.is_disconnected():
            try:
                known, found = await run_in_threadpool(pulse.since, known)
            except StoreError:
                return  # the browser connects again, with the last id
            if any(found.values()):
                yield event(known, found)
                silent = time.monotonic()
            elif time.monotonic() - silent > SILENCE_S:
                yield ": still here\n\n"
                silent = time.monotonic()
            await asyncio.sleep(POLL_S)
    finally:
        pulse.streams -= 1


async def respond(pulse: Pulse, request: Request) -> Response:
    """Return the stream of events after the id that a browser knows, or from now on."""
    given = request.headers.get("last-event-id") or request.query_params.get("since", "")
    known = Position.parse(given)
    if known is None:
        known = await run_in_threadpool(pulse.now)
    if pulse.streams >= MOST_STREAMS:
        return Response("too many streams of events\n", 503, {"Retry-After": "30"}, "text/plain")
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream(pulse, known, request), media_type="text/event-stream", headers=headers)
