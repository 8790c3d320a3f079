"""The web program: health, metrics and candidate pages, read-only, on loopback unless a certificate is configured.

`/healthz` says that this program runs, `/readyz` that the service can search, and `/metrics` is for Prometheus.
Messages link to `/candidates` and `/cadences/ID`. Names in pages are escaped. The standard library's threading server
is enough for a monitor and a few people; a framework would add an event loop around blocking queries.

This program also sends the canaries.
"""

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sqlalchemy import case, select

from sentinel.config import Config
from sentinel.errors import StoreError
from sentinel.injection.canary import Canaries
from sentinel.monitor.metrics import StageHistograms, exposition
from sentinel.monitor.probes import MachineProbe
from sentinel.monitor.status import CRITICAL, lines, quick_store, read_status
from sentinel.notify.messages import one_line, remarks
from sentinel.programs.program import ProgramLoop
from sentinel.store.queue import Store
from sentinel.store.schema import cadence, candidate, labeled

LOG = logging.getLogger(__name__)
PERIOD_S = 5.0
SLOW_CLIENT_S = 10.0
ROWS = 500
"""Candidates on a page, the newest first."""
COLUMNS: dict[str, Callable[[Any], str]] = {
    **dict.fromkeys(("id", "cadence_id", "target"), str),
    "frequency_mhz": "{:.6f}".format,
    "drift_rate_hz_s": "{:+.3f}".format,
    "probability": lambda value: "not scored" if value is None else f"{value:.3f}",
    "snr": lambda snrs: " ".join(f"{snr:.1f}" for snr in snrs),
    "tstart_mjd": "{:.5f}".format,
    "picture": lambda path: Path(path or "").name,
    "warnings": lambda text: text or "",
}
"""Columns of a table of candidates, and the text of their cells."""
HEAD = '<!doctype html><meta charset="utf-8"><title>Sentinel</title>'
PAGES = {
    "/candidates": "the newest candidates",
    "/healthz": "whether this program runs",
    "/readyz": "whether the service can search",
    "/metrics": "for Prometheus",
}
LINKS = "".join(f'<li><a href="{page}">{page}</a> {text}' for page, text in PAGES.items())
Response = tuple[int, str, bytes]
"""Status code, content type, body."""


def respond(path: str, config: Config, store: Store, stages: StageHistograms) -> Response:
    """Return the response to a GET request.

    Args:
        path: of the URL, without the query.
        config: of the service.
        store: that the response is read from.
        stages: latency histograms of this program.
    """
    pages: dict[str, Callable[[], Response]] = {
        "/": lambda: (200, "text/html", f"{HEAD}<ul>{LINKS}</ul>".encode()),
        "/healthz": lambda: (200, "text/plain", b"ok\n"),
        "/readyz": lambda: _ready(config, store),
        "/metrics": lambda: (200, "text/plain; version=0.0.4", exposition(config, store, stages)),
        "/candidates": lambda: (200, "text/html", _page(store)),
    }
    if page := pages.get(path):
        return page()
    cadence_id = path.removeprefix("/cadences/")
    if path == cadence_id or not (cadence_id.isascii() and cadence_id.isdecimal() and len(cadence_id) < 10):
        return 404, "text/plain", f"expected {' '.join(PAGES)} /cadences/ID\n".encode()
    with store.read() as rows:
        known = rows.scalar(select(cadence.c.id).where(cadence.c.id == int(cadence_id)))
    if known is None:
        return 404, "text/plain", f"no cadence {cadence_id}\n".encode()
    return 200, "text/html", _page(store, known)


def _ready(config: Config, store: Store) -> Response:
    status = read_status(config, lambda: store)
    return 503 if status.level >= CRITICAL else 200, "text/plain", (lines(status)[0] + "\n").encode()


def _page(store: Store, cadence_id: int | None = None) -> bytes:
    """Return a table of the candidates of a cadence, or of the newest candidates."""
    warnings = case((cadence.c.state.in_(("ready", "done")), cadence.c.why), else_=None).label("warnings")
    query = labeled().add_columns(warnings).join(cadence, cadence.c.id == candidate.c.cadence_id)
    query, about = query.order_by(candidate.c.id.desc()).limit(ROWS), ""
    with store.read() as rows:
        if cadence_id is not None:
            query = query.where(candidate.c.cadence_id == cadence_id)
            columns = (cadence.c.target, cadence.c.pattern, cadence.c.state, cadence.c.why)
            found = rows.execute(select(*columns).where(cadence.c.id == cadence_id)).one()
            about = f"<p>{escape(' '.join(one_line(value) for value in found if value))}"
        table = [
            [*(show(row[name]) for name, show in COLUMNS.items()), remarks(dict(row))]
            for row in rows.execute(query).mappings()
        ]
    head = "".join(f"<th>{name}" for name in (*COLUMNS, "remarks"))
    body = "".join("<tr>" + "".join(f"<td>{escape(one_line(cell))}" for cell in row) for row in table)
    empty = "" if table else "<p>no candidates"
    return f'{HEAD}{about}<table cellpadding="6"><tr align="left">{head}{body}</table>{empty}'.encode()


def serve(config: Config, reply: Callable[[str], Response]) -> ThreadingHTTPServer:
    """Start a server in threads of this process.

    Raises:
        OSError: the port cannot be opened.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = SLOW_CLIENT_S
        server_version, sys_version = "Sentinel", ""

        def do_GET(self) -> None:
            try:
                status, kind, body = reply(self.path.partition("?")[0])
            except StoreError as error:
                status, kind, body = 503, "text/plain", f"{one_line(error)}\n".encode()
            except Exception:
                LOG.exception("request for %r failed", self.path)
                status, kind, body = 500, "text/plain", b"internal error: see the log of the web program\n"
            self.send_response(status)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))),
                                ("Content-Security-Policy", "default-src 'none'"),
                                ("X-Content-Type-Options", "nosniff")):  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            LOG.debug(format, *args)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in config.web.host else socket.AF_INET

        def finish_request(self, request: Any, client_address: Any) -> None:
            # In the client's own thread, so that a stalled handshake blocks no other client.
            request.settimeout(SLOW_CLIENT_S)
            with tls.wrap_socket(request, server_side=True) if tls else request as stream:
                super().finish_request(stream, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
            LOG.debug("%s disconnected", client_address)

    tls = None
    if config.web.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(config.web.certificate, config.web.key)
    server = Server((config.web.host, config.web.port or 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def run(config: Config, store: Store, loop: ProgramLoop) -> None:
    """Serve requests and send canaries. A port that cannot be opened is tried again, and canaries are sent anyway."""
    server, stages, machine = None, StageHistograms(), MachineProbe(config)
    pages = quick_store(config, upgrade=False)
    canaries, error = Canaries(config=config, store=store), ""
    while True:
        address = "off"
        try:
            if config.web.port is not None:
                server = server or serve(config, lambda path: respond(path, config, pages, stages))
                address = f"{'https' if config.web.certificate else 'http'}://{config.web.host}:{server.server_port}"
        except (OSError, ssl.SSLError) as refused:
            address = f"not listening on {config.web.host}, port {config.web.port}: {one_line(refused)}"
        try:
            loop.heartbeat(web=address, machine=machine.facts(store), error=error)
            error = ""
            canaries.tend()
        except Exception as failed:
            error = one_line(f"{type(failed).__name__}: {failed}")
            LOG.exception("canaries failed; next attempt in %g s", PERIOD_S)
        if loop.wait(PERIOD_S):
            return
