"""The application: which function answers which path."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from anyio import to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from sentinel import COMMAND
from sentinel.errors import StoreError
from sentinel.notify.messages import one_line
from sentinel.web import candidate, events, export, follow, labels, login, monitors, night, places, stamp, table
from sentinel.web.desk import NOBODY, Act, Desk, Page, act, page, refuse
from sentinel.web.exposure import Exposure

THREADS = 10
"""Requests that are answered at once. SQLAlchemy keeps 15 connections."""
STATIC = Path(__file__).parent / "static"
PAGES: dict[str, Page] = {
    "/": night.show,
    "/night.json": night.points,
    "/candidates": table.candidates,
    "/candidates.json": partial(export.table, suffix=".json"),
    "/candidates.csv": partial(export.table, suffix=".csv"),
    "/candidates.ecsv": partial(export.table, suffix=".ecsv"),
    "/candidates/{candidate_id:int}": candidate.show,
    "/candidates/{candidate_id:int}/picture.png": candidate.picture,
    "/candidates/{candidate_id:int}/thumbnail.png": candidate.thumbnail,
    "/candidates/{candidate_id:int}/stamp": stamp.respond,
    "/candidates/{candidate_id:int}/follow": follow.respond,
    "/label": labels.queue,
    "/labels": labels.state,
    "/cadences/{cadence_id:int}": places.one_cadence,
    "/at/{mhz}": places.at,
    "/go": places.go,
    "/guide": places.guide,
}
"""Pages for people. Beyond loopback they need a login."""
OPEN: dict[str, Page] = {
    "/healthz": monitors.healthz,
    "/readyz": monitors.readyz,
    "/metrics": monitors.metrics,
    "/login": login.show,
}
"""Paths that are answered without a login: for monitors, and to log in. They show no candidate."""
ACTS: dict[str, Act] = {
    "/labels": labels.put,
    "/labels/undo": labels.undo,
    "/logout": login.log_out,
}
"""Forms that need a session and its token."""


def make_app(desk: Desk) -> Starlette:
    """Return the application of a desk."""
    routes: list[BaseRoute] = [Route(path, page(desk, function)) for path, function in PAGES.items()]
    routes += [Route(path, _open(desk, function)) for path, function in OPEN.items()]
    routes += [Route(path, act(desk, function), methods=["POST"]) for path, function in ACTS.items()]
    routes += [Route("/login", login.redeem_endpoint(desk), methods=["POST"])]
    routes += [Route("/events", partial(_events, desk)), Mount("/static", StaticFiles(directory=STATIC))]
    return Starlette(
        routes=routes,
        lifespan=_few_threads,
        middleware=[Middleware(Exposure, access=desk.access)],
        exception_handlers={StoreError: _store_away, HTTPException: _refused},
    )


@asynccontextmanager
async def _few_threads(_: Starlette) -> AsyncIterator[None]:
    """Limit the threads, each of which holds memory and a connection to the store."""
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    yield


def _open(desk: Desk, function: Page) -> Callable[[Request], Response]:
    return lambda request: function(desk, request, desk.visitor(request) if request.url.path == "/login" else NOBODY)


async def _events(desk: Desk, request: Request) -> Response:
    visitor = await run_in_threadpool(desk.visitor, request)
    if not visitor.name and desk.access.must_log_in(request.scope):
        return refuse(request, 401, f"log in first: {COMMAND} web login")
    return await events.respond(desk.pulse, request)


def _store_away(_: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{one_line(error)}\n", 503)


def _refused(_: Request, error: Exception) -> Response:
    status, text = getattr(error, "status_code", 500), getattr(error, "detail", "")
    if status == 404 and text == "Not Found":
        known = [path.replace("{candidate_id:int}", "ID").replace("{cadence_id:int}", "ID") for path in (*PAGES, *OPEN)]
        text = f"no such page: expected {' '.join(known).replace('{mhz}', 'MHZ')}"
    return PlainTextResponse(f"{one_line(text)}\n", status, getattr(error, "headers", None))
