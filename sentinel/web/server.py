"""The web program: health and metrics for monitors, and the desk, where people look at candidates and label them.

The endpoints of `app` run in threads of one process under uvicorn, so queries of the store block no other client. This
program also sends the canaries.
"""

import asyncio
import ctypes
import logging
import socket
import ssl
import threading
from dataclasses import dataclass
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sentinel.config import Config
from sentinel.injection.canary import Canaries
from sentinel.monitor.metrics import StageHistograms
from sentinel.monitor.probes import machine
from sentinel.monitor.status import quick_store
from sentinel.notify.messages import one_line
from sentinel.programs.program import ProgramLoop
from sentinel.store.queue import Store
from sentinel.web.app import make_app
from sentinel.web.desk import Desk

LOG = logging.getLogger(__name__)
PERIOD_S = 5.0
SLOW_CLIENT_S = 10.0
STOP_S = 5
"""A response that lasts longer ends when the program stops, seconds."""
BACKLOG = 128
M_ARENA_MAX, ARENAS = -8, 2
"""Parameter of `mallopt` (malloc.h of glibc), and its value."""


class _Protocol(H11Protocol):
    """HTTP/1.1, that closes a connection whose request has not arrived within `SLOW_CLIENT_S`."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline = self.loop.call_later(SLOW_CLIENT_S, self._close_if_silent)

    def _close_if_silent(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            LOG.debug("%s sent no request", self.client)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline:
            self._deadline.cancel()
        super().connection_lost(exc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A server in a thread of this process."""

    server: uvicorn.Server
    thread: threading.Thread
    port: int

    @property
    def is_alive(self) -> bool:
        """Whether it answers."""
        return self.thread.is_alive()

    def close(self) -> None:
        """Stop it, and wait until its port is free."""
        self.server.should_exit = True
        self.thread.join(2 * STOP_S)


def serve(config: Config, store: Store, stages: StageHistograms) -> Served:
    """Start a server in a thread of this process.

    Raises:
        OSError: the port cannot be opened, or the certificate cannot be read.
    """
    web = config.web
    family = socket.AF_INET6 if ":" in web.host else socket.AF_INET
    desk = Desk(config=config, store=store, stages=stages)
    tls: dict[str, Any] = {}
    if web.certificate:
        tls = {"ssl_certfile": str(web.certificate), "ssl_keyfile": str(web.key)}
    settings = uvicorn.Config(
        make_app(desk), http=_Protocol, ws="none", loop="asyncio", lifespan="on", log_config=None,
        log_level="warning", access_log=False, proxy_headers=False, server_header=False,
        timeout_graceful_shutdown=STOP_S, **tls,
    )  # fmt: skip
    settings.load()
    listener = socket.create_server((web.host, web.port or 0), family=family, backlog=BACKLOG)
    desk.port = listener.getsockname()[1]
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    return Served(server=server, thread=thread, port=desk.port)


def _share_arenas() -> None:
    """Let all threads allocate from two arenas of glibc: with one for each thread, more freed memory stays unused."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, ARENAS)


def run(config: Config, store: Store, loop: ProgramLoop) -> None:
    """Serve requests and send canaries. A port that cannot be opened is tried again, and canaries are sent anyway."""
    _share_arenas()
    served, stages = None, StageHistograms()
    pages = quick_store(config, upgrade=False)
    canaries, error = Canaries(config=config, store=store), ""
    while True:
        address = "off"
        try:
            if config.web.port is not None:
                served = served if served and served.is_alive else serve(config, pages, stages)
                address = f"{'https' if config.web.certificate else 'http'}://{config.web.host}:{served.port}"
        except (OSError, ssl.SSLError) as refused:
            address = f"not listening on {config.web.host}, port {config.web.port}: {one_line(refused)}"
        try:
            loop.heartbeat(web=address, machine=machine(config, store), error=error)
            error = ""
            canaries.tend()
        except Exception as failed:
            error = one_line(f"{type(failed).__name__}: {failed}")
            LOG.exception("canaries failed; next attempt in %g s", PERIOD_S)
        if loop.wait(PERIOD_S):
            return
