"""What is answered, and to whom: hosts, peers, methods and origins of requests, headers of responses, rates.

A page of another site may send requests to loopback from the browser of a person (DNS rebinding, forged forms).
Therefore the Host header must name this server, and a request that stores something needs the origin of this server,
a session and the token of that session's forms.
"""

import ipaddress
import logging
import socket
import threading
import time
from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sentinel.config import LOOPBACK, Web
from sentinel.notify.messages import one_line

LOG = logging.getLogger(__name__)
MOST_BODY = 2**16
"""Bytes of a form."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""Headers that a proxy adds."""
Refusal = tuple[int, str]
"""Status code and text."""


def split_host(host: str) -> str:
    """Return the name or address in a Host header, without the port; empty if it is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if host == host.strip() and "/" not in host else ""
    except ValueError:
        return ""


def peer_of(scope: Scope) -> str:
    """Return the address of the client, in its canonical form."""
    address = ipaddress.ip_address((scope.get("client") or ("127.0.0.1", 0))[0].partition("%")[0])
    return str(getattr(address, "ipv4_mapped", None) or address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The rules of `web` in the configuration, applied to one request."""

    web: Web

    @property
    def names(self) -> frozenset[str]:
        """Names by which a browser may ask for this server."""
        own = (*LOOPBACK, self.web.host, *self.web.hosts, urlsplit(self.web.url or "").hostname or "")
        there = () if self.web.is_local else (socket.gethostname(), socket.getfqdn())
        return frozenset(name.lower() for name in (*own, *there) if name)

    def refusal(self, scope: Scope) -> Refusal | None:
        """Return why a request is not answered, or None."""
        headers, peer = Headers(scope=scope), peer_of(scope)
        if not (self.web.is_local or self.web.certificate or peer in self.web.proxies):
            return 403, f"without TLS only a proxy of web.proxies is answered, found {peer}"
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_known(split_host(hosts[0])):
            return 421, f"expected a Host header that names this server, or web.hosts, found {one_line(hosts, 200)}"
        if scope["method"] not in {"GET", "HEAD", "POST"}:
            return 405, f"expected GET, HEAD or POST, found {one_line(scope['method'], 20)}"
        return self._post_refusal(scope, headers, hosts[0]) if scope["method"] == "POST" else None

    def _is_known(self, name: str) -> bool:
        if name in self.names:
            return True
        try:  # an address cannot be rebound to another: nobody has its name
            return bool(ipaddress.ip_address(name)) and not self.web.is_local
        except ValueError:
            return False

    def _post_refusal(self, scope: Scope, headers: Headers, host: str) -> Refusal | None:
        if self.web.read_only and scope["path"] != "/logout":
            return 403, "web.read_only is set: nothing can be stored"
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BODY:
            return 413, f"expected at most {MOST_BODY} bytes"
        if not self._same_origin(headers, host):
            return 403, f"expected a request from a page of this server, found {one_line(headers.get('origin'), 200)}"
        return None

    def _same_origin(self, headers: Headers, host: str) -> bool:
        """Return whether a page of this server sent a form. `Referrer-Policy` makes the origin of a form `null`."""
        origin = headers.get("origin", "null")
        if origin == "null":
            return headers.get("sec-fetch-site") == "same-origin"
        sent, ours = urlsplit(origin), urlsplit(self.web.url or "")
        by_proxy = bool(self.web.url) and (sent.scheme, sent.netloc) == (ours.scheme, ours.netloc)
        scheme = "https" if self.web.certificate else "http"
        return by_proxy or (sent.scheme, sent.netloc) == (scheme, host)

    def named_by_proxy(self, scope: Scope) -> str:
        """Return the person that a trusted proxy names, or an empty string."""
        if not self.web.user_header or peer_of(scope) not in self.web.proxies:
            return ""
        named = Headers(scope=scope).getlist(self.web.user_header)
        return one_line(named[0].strip(), 64) if len(named) == 1 else ""

    def must_log_in(self, scope: Scope) -> bool:
        """Return whether reading needs a person: beyond loopback, and through a proxy."""
        headers = Headers(scope=scope)
        forwarded = any(name in headers for name in FORWARDED)
        return not self.web.is_local or peer_of(scope) in self.web.proxies or forwarded


@dataclass(slots=True, kw_only=True)
class RateLimit:
    """At most `most` events of each key in any `seconds`."""

    most: int
    seconds: float
    _times: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def exceeded(self, key: str) -> bool:
        """Count an event; return whether it is one too many."""
        at = time.monotonic()
        with self._lock:
            times = self._times[key]
            while times and times[0] < at - self.seconds:
                times.popleft()
            if len(times) >= self.most:
                return True
            times.append(at)
            if len(self._times) > 1000:  # keys of clients that are gone
                self._times = defaultdict(deque, {name: held for name, held in self._times.items() if held})
            return False


class Exposure:
    """ASGI middleware: refuse requests by `Access`, add headers to responses, and answer errors without details."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        began = False

        async def send_guarded(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                _add_headers(MutableHeaders(scope=message), HEADERS)
            await send(message)

        if refused := self.access.refusal(scope):
            await PlainTextResponse(f"{refused[1]}\n", refused[0])(scope, receive, send_guarded)
            return
        try:
            await self.app(scope, receive, send_guarded)
        except Exception:
            LOG.exception("request for %r failed", scope["path"])
            if not began:
                text = "internal error: see the log of the web program\n"
                await PlainTextResponse(text, 500)(scope, receive, send_guarded)


def _add_headers(headers: MutableHeaders, added: Mapping[str, str]) -> None:
    for name, value in added.items():
        headers.setdefault(name, value)
    headers.setdefault("Cache-Control", "no-store")
