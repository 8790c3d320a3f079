"""Health and metrics over HTTP: on loopback unless a certificate is configured, and only ever read.

The standard library's threading server does: the callers are a monitor every few seconds and a person now and then,
every answer is made whole from the store, and nothing is ever sent to it. A framework would bring an event loop around
blocking queries. `/healthz` says that this program answers, `/readyz` that the service can search, `/metrics` what
Prometheus asks for, `/candidates` and `/cadences/ID` what a message links to. Names in pages are escaped.

This program also sends the canaries, since it is the one that watches.
"""

import logging
import socket
import ssl
import threading
from collections.abc import Callable
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sentinel.config import Config
from sentinel.injection.canary import Canaries
from sentinel.monitor.metrics import Stages, exposition
from sentinel.monitor.status import CRITICAL, lines, look
from sentinel.notify.messages import one_line, remarks
from sentinel.programs.program import ProgramLoop
from sentinel.store.queue import Store
from sentinel.store.schema import candidate, labeled

LOG = logging.getLogger(__name__)
LOOK_S = 5.0
SLOW_CALLER_S = 10.0
ROWS = 500
Answer = tuple[int, str, bytes]


def answer(path: str, config: Config, store: Store, stages: Stages) -> Answer:
    """Return status, kind and body of the answer to a GET of `path`."""
    if path == "/healthz":
        return 200, "text/plain", b"ok\n"
    if path == "/readyz":
        seen = look(config, store)
        return 503 if seen.level >= CRITICAL else 200, "text/plain", (lines(seen)[0] + "\n").encode()
    if path == "/metrics":
        return 200, "text/plain; version=0.0.4", exposition(config, store, stages)
    if path == "/candidates":
        return 200, "text/html", _page(store)
    cadence_id = path.removeprefix("/cadences/")
    if path != cadence_id and cadence_id.isdecimal() and len(cadence_id) < 10:
        return 200, "text/html", _page(store, int(cadence_id))
    return 404, "text/plain", b"/healthz /readyz /metrics /candidates /cadences/ID\n"


def _page(store: Store, cadence_id: int | None = None) -> bytes:
    """Return candidates as a table: those of a cadence, or the newest."""
    wanted = labeled().order_by(candidate.c.id.desc()).limit(ROWS)
    with store.read() as rows:
        found = rows.execute(wanted if cadence_id is None else wanted.where(candidate.c.cadence_id == cadence_id))
        told = [dict(row) for row in found.mappings()]
    shown = ("id", "cadence_id", "target", "frequency_mhz", "drift_rate_hz_s", "probability", "tstart_mjd", "picture")
    table = [
        [*(one[name] for name in shown), " ".join(f"{snr:.1f}" for snr in one["snr"]), remarks(one)] for one in told
    ]
    head = "".join(f"<th>{name}" for name in (*shown, "snr", "remarks"))
    body = "".join("<tr>" + "".join(f"<td>{escape(one_line(cell))}" for cell in row) for row in table)
    return f'<!doctype html><meta charset="utf-8"><title>Candidates</title><table><tr>{head}{body}</table>'.encode()


def serve(config: Config, reply: Callable[[str], Answer]) -> ThreadingHTTPServer:
    """Start to answer in threads of this process; OSError where the port is not to be had."""

    class Handler(BaseHTTPRequestHandler):
        timeout = SLOW_CALLER_S
        server_version, sys_version = "Sentinel", ""

        def do_GET(self) -> None:
            try:
                status, kind, body = reply(self.path.partition("?")[0])
            except Exception:
                LOG.exception("no answer to %r", self.path)
                status, kind, body = 500, "text/plain", b"see the log\n"
            self.send_response(status)
            for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))),
                                ("Content-Security-Policy", "default-src 'none'"),
                                ("X-Content-Type-Options", "nosniff")):  # fmt: skip
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            LOG.debug(format, *args)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in config.web.host else socket.AF_INET

        def finish_request(self, request: Any, client_address: Any) -> None:
            # In the caller's own thread, so that a handshake that stalls holds up nobody else.
            request.settimeout(SLOW_CALLER_S)
            with tls.wrap_socket(request, server_side=True) if tls else request as caller:
                super().finish_request(caller, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
            LOG.debug("%s left", client_address)

    tls = None
    if config.web.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(config.web.certificate, config.web.key)
    server = Server((config.web.host, config.web.port or 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def run(config: Config, store: Store, loop: ProgramLoop) -> None:
    """Answer, and see to the canaries; a port that is taken is tried again, and keeps nothing else from working."""
    server, stages = None, Stages()
    canaries = Canaries(config=config, store=store)
    while True:
        at = "off"
        try:
            if config.web.port is not None:
                server = server or serve(config, lambda path: answer(path, config, store, stages))
                at = f"{'https' if config.web.certificate else 'http'}://{config.web.host}:{server.server_port}"
        except (OSError, ssl.SSLError) as error:
            at = f"not listening: {one_line(error)}"
        try:
            loop.heartbeat(web=at)
            canaries.tend()
        except Exception:
            LOG.exception("the next look comes in %g s", LOOK_S)
        if loop.wait(LOOK_S):
            return
