"""The table of candidates, with facets; all of its state is in the query of the URL."""

from collections.abc import Iterable

from starlette.requests import Request
from starlette.responses import Response

from sentinel.errors import ConfigError
from sentinel.store.filters import KEYS, Filter, parse_filter
from sentinel.web.desk import Desk, Visitor
from sentinel.web.events import position_now
from sentinel.web.query import FACETS, facets, table_page

POSITIONS = ("after", "before")
SORTED = {
    "id": "id",
    "target": "target",
    "mhz": "MHz",
    "drift": "drift",
    "width": "width",
    "snr": "SNR",
    "p": "p",
    "strangeness": "strange",
    "seen": "remarks",
    "utc": "UTC",
}
"""Heads of the columns that the table can be ordered by."""


def terms_of(request: Request, without: Iterable[str] = POSITIONS) -> list[tuple[str, str]]:
    """Return the terms of the filter in a URL."""
    left_out = set(without)
    return [(key, value) for key, value in request.query_params.multi_items() if key not in left_out]


def candidates(desk: Desk, request: Request, visitor: Visitor) -> Response:
    """Show the candidates that a filter selects."""
    try:
        asked = parse_filter(terms_of(request))
        place = {name: request.query_params.get(name, "") for name in POSITIONS}
        with desk.store.read() as rows:
            found = table_page(rows, asked, visitor.name, **place)
            count, counted = desk.counted(rows, asked.query(), visitor.name, lambda: facets(rows, asked, visitor.name))
            since = position_now(rows)
    except ConfigError as error:
        return desk.render("problem.html", request, visitor, 400, problem=str(error), keys=KEYS)
    return desk.render(
        "candidates.html", request, visitor, page=found, asked=asked, count=count, facets=counted, keys=KEYS,
        heads={key: (text, _sort_link(asked, key)) for key, text in SORTED.items()}, links=_links(asked),
        queries=_facet_queries(asked, counted), since=since,
    )  # fmt: skip


def _sort_link(asked: Filter, key: str) -> str:
    """Return the query that orders by a column: descending first, ascending if it is that already."""
    return asked.query(sort=key if asked.sort == f"-{key}" else f"-{key}")


def _links(asked: Filter) -> dict[str, str]:
    """Return the queries of this filter for the exports and the queue; a suffix that begins with ? or is empty."""
    query = asked.query()
    return {"same": f"?{query}" if query else "", "join": f"?{query}&" if query else "?",
            "queue": f"?{query}" if query else "?label=none"}  # fmt: skip


def _facet_queries(asked: Filter, counted: dict[str, list[tuple[str, int]]]) -> dict[tuple[str, str], str]:
    """Return for each value of each facet the query that adds the value, or removes it."""
    queries = {}
    for key in FACETS:
        present = asked.terms.get(key, ())
        for value in dict.fromkeys((*(value for value, _ in counted[key]), *present)):
            changed = tuple(v for v in present if v != value) if value in present else (*present, value)
            queries[key, value] = asked.query({key: changed})
    return queries
