"""Exports of the candidates that a filter selects, as .csv, .ecsv and .json."""

import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from sentinel.config import Config
from sentinel.errors import ConfigError
from sentinel.monitor.status import quick_store
from sentinel.programs.program import die_with_parent
from sentinel.store.filters import KEYS, Filter, parse_filter
from sentinel.web.desk import Desk, Visitor, refuse
from sentinel.web.table import terms_of

KINDS = {".csv": "text/csv", ".ecsv": "text/plain", ".json": "application/json"}


def table(desk: Desk, request: Request, visitor: Visitor, suffix: str) -> Response:
    """Return a table of the candidates that a filter selects, in its order.

    Args:
        desk: whose store is read.
        request: with the filter.
        visitor: who asks.
        suffix: of the format: .csv, .ecsv or .json.
    """
    if desk.exports.exceeded(visitor.name or "anyone"):
        return refuse(request, 429, "too many exports: wait a minute")
    try:
        asked = parse_filter(terms_of(request))
    except ConfigError as error:
        return desk.render("problem.html", request, visitor, 400, problem=str(error), keys=KEYS)
    with tempfile.NamedTemporaryFile(prefix="candidates", suffix=suffix, delete=False) as made:
        path = Path(made.name)
    try:
        # In a process of its own, because the libraries that write tables, and the rows, would stay in memory.
        with ProcessPoolExecutor(1, get_context("spawn"), initializer=die_with_parent) as pool:
            pool.submit(_write, desk.config, path, asked, visitor.name).result()
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    gone = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(path, media_type=KINDS[suffix], filename=f"candidates{suffix}", background=gone)


def _write(config: Config, path: Path, asked: Filter, person: str) -> None:
    from sentinel.store.tables import write_candidates

    write_candidates(quick_store(config, upgrade=False), path, asked, person)
