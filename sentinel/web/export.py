"""Exports of the candidates that a filter selects, as .csv, .ecsv and .json."""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from sentinel.config import Config
from sentinel.errors import ConfigError
from sentinel.monitor.status import quick_store
from sentinel.programs.program import die_with_parent
from sentinel.store.filters import KEYS, Filter, parse_filter
from sentinel.web.desk import Desk, Visitor, refuse
from sentinel.web.table import terms_of

PART = 2**18
"""Bytes that are sent at a time."""
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
    with tempfile.TemporaryDirectory(prefix="export") as folder:
        path = Path(folder) / f"candidates{suffix}"
        # In a process of its own, because the libraries that write tables, and the rows, would stay in memory.
        with ProcessPoolExecutor(1, get_context("spawn"), initializer=die_with_parent) as pool:
            pool.submit(_write, desk.config, path, asked, visitor.name).result()
        size, stream = path.stat().st_size, path.open("rb")  # read after its name is gone, so that nothing is left
    headers = {"Content-Disposition": f'attachment; filename="{path.name}"', "Content-Length": str(size)}
    return StreamingResponse(_parts(stream), media_type=KINDS[suffix], headers=headers)


def _parts(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while part := stream.read(PART):
            yield part


def _write(config: Config, path: Path, asked: Filter, person: str) -> None:
    from sentinel.store.tables import write_candidates

    write_candidates(quick_store(config, upgrade=False), path, asked, person)
