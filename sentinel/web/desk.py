"""What every page needs: store, configuration, the visitor, templates, and the checks before something is stored."""

import functools
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import parse_qs

import jinja2
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response

from sentinel import COMMAND
from sentinel.config import Config
from sentinel.monitor.metrics import StageHistograms
from sentinel.notify.messages import one_line
from sentinel.store.queue import Store
from sentinel.web import texts
from sentinel.web.alike import Latents
from sentinel.web.events import Pulse, position_now
from sentinel.web.exposure import MOST_BODY, Access, RateLimit, peer_of
from sentinel.web.session import server_secret, session_name

T = TypeVar("T")
COUNTED_S = 10.0
MOST_COUNTED = 200
MOST_FIELDS = 2000
"""Fields of a form: a label of many candidates names each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """Whoever sends a request.

    Attributes:
        name: of the person; empty if nobody has logged in.
        token: that the forms of this person carry; empty without a name.
        by_proxy: whether a trusted proxy named the person.
    """

    name: str = ""
    token: str = ""
    by_proxy: bool = False


NOBODY = Visitor()


@dataclass(slots=True, kw_only=True)
class Desk:
    """The web program as its pages see it."""

    config: Config
    store: Store
    stages: StageHistograms
    port: int = 0
    acts: RateLimit = field(default_factory=lambda: RateLimit(most=200, seconds=20.0))
    logins: RateLimit = field(default_factory=lambda: RateLimit(most=10, seconds=60.0))
    exports: RateLimit = field(default_factory=lambda: RateLimit(most=20, seconds=60.0))
    latents: Latents = field(default_factory=Latents)
    pulse: Pulse = field(init=False)
    _secret: str = ""
    _counted: dict[tuple[str, str], tuple[str, float, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Let all browsers share one look at the store."""
        self.pulse = Pulse(store=self.store)

    def counted(self, rows: Connection, asked: str, person: str, count: Callable[[], T]) -> T:
        """Return counts; those of the last `COUNTED_S` are used again while nothing has changed.

        Args:
            rows: of the open transaction.
            asked: what is counted, such as the query of a filter.
            person: who looks.
            count: makes the counts.
        """
        key, state, at = (asked, person), str(position_now(rows)), time.monotonic()
        held = self._counted.get(key)
        if held is None or held[0] != state or at - held[1] > COUNTED_S:
            if len(self._counted) >= MOST_COUNTED:
                self._counted.clear()
            held = self._counted[key] = (state, at, count())
        return cast("T", held[2])

    @property
    def access(self) -> Access:
        """The rules of the configuration."""
        return Access(web=self.config.web)

    @property
    def cookie(self) -> str:
        """Name of the cookie of a session. Browsers send a cookie to every port of a host, so the name has the port."""
        return f"sentinel_{self.config.web.port or self.port}"

    def visitor(self, request: Request) -> Visitor:
        """Return who sends a request."""
        if named := self.access.named_by_proxy(request.scope):
            return Visitor(name=named, token=self._token(f"proxy {named}"), by_proxy=True)
        cookie = request.cookies.get(self.cookie, "")
        name = session_name(self.store, cookie) if cookie else None
        return Visitor(name=name, token=self._token(f"session {cookie}")) if name else NOBODY

    def _token(self, identity: str) -> str:
        self._secret = self._secret or server_secret(self.store)
        return hmac.new(self._secret.encode(), identity.encode(), sha256).hexdigest()

    def render(self, template: str, request: Request, visitor: Visitor, status: int = 200, **values: Any) -> Response:
        """Return a page.

        Args:
            template: name of its file.
            request: that asked for it.
            visitor: who sees it.
            status: code of the response.
            values: for the template.
        """
        can_label = bool(visitor.name) and not self.config.web.read_only
        shared = {"visitor": visitor, "can_label": can_label, "read_only": self.config.web.read_only}
        text = templates().get_template(template).render(path=request.url.path, **shared, **values)
        return HTMLResponse(text, status)


@functools.cache
def templates() -> jinja2.Environment:
    """Return the templates. Every value is escaped, and shown on one line without control characters."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: one_line(value) if type(value) is str and not value.isprintable() else value,
    )  # fmt: skip
    environment.filters |= texts.FILTERS
    return environment


Page = Callable[[Desk, Request, Visitor], Response]
Act = Callable[[Desk, Request, Visitor, Mapping[str, list[str]]], Response]


def page(desk: Desk, function: Page) -> Callable[[Request], Response]:
    """Return the endpoint of a page, which a person must log in for where `Access` says so."""

    def endpoint(request: Request) -> Response:
        visitor = desk.visitor(request)
        if not visitor.name and desk.access.must_log_in(request.scope):
            return desk.render("login.html", request, visitor, 401, code="", problem="")
        return function(desk, request, visitor)

    return endpoint


def act(desk: Desk, function: Act) -> Callable[[Request], Any]:
    """Return the endpoint of a form that stores something for a person."""

    def checked(request: Request, fields: Mapping[str, list[str]]) -> Response:
        visitor = desk.visitor(request)
        if not visitor.name:
            return refuse(request, 401, f"log in first: {COMMAND} web login")
        if not hmac.compare_digest(fields.get("token", [""])[0].encode(), visitor.token.encode()):
            return refuse(request, 403, "the token of this form is void: load the page again")
        if desk.acts.exceeded(visitor.name):
            return refuse(request, 429, "too many requests: wait some seconds")
        return function(desk, request, visitor, fields)

    async def endpoint(request: Request) -> Response:
        fields = await read_form(request)
        if fields is None:
            return refuse(request, 413, f"expected a form of at most {MOST_BODY} bytes and {MOST_FIELDS} fields")
        return await run_in_threadpool(checked, request, fields)

    return endpoint


async def read_form(request: Request) -> dict[str, list[str]] | None:
    """Return the fields of a form, or None if it is too long or no form."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BODY:
            return None
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        return None


def wants_json(request: Request) -> bool:
    """Return whether a script of a page sent a request, not a form."""
    return "application/json" in request.headers.get("accept", "")


def refuse(request: Request, status: int, text: str) -> Response:
    """Return a response that says in one line why nothing was done."""
    headers = {"Retry-After": "5"} if status == 429 else None
    if wants_json(request):
        return JSONResponse({"error": text}, status, headers)
    return PlainTextResponse(f"{text}\n", status, headers)


def back(fields: Mapping[str, list[str]], otherwise: str) -> Response:
    """Return to the page of this server that a form names in `next`."""
    target = fields.get("next", [""])[0]
    is_ours = target.startswith("/") and not target.startswith(("//", "/\\")) and target.isprintable()
    return RedirectResponse(target if is_ours else otherwise, 303)


def client_of(request: Request) -> str:
    """Return the address of the client."""
    return peer_of(request.scope)
