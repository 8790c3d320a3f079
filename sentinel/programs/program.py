"""What each program of the service does before its loop: one copy, one parent, one way to stop, one heartbeat."""

import contextlib
import ctypes
import fcntl
import importlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sentinel.config import config_path, load_config
from sentinel.errors import BusyError, SentinelError, StoreAwayError
from sentinel.programs import logs
from sentinel.store.queue import Store, open_store

LOG = logging.getLogger(__name__)
PROGRAMS = {
    "cluster": "workers.cluster",
    "watcher": "ingest.service",
    "poster": "notify.poster",
    "web": "web.server",
}
"""Each, and the module that is its loop: a program loads no other's."""
PR_SET_PDEATHSIG = 1
SMALLEST_WAIT_S = 0.2
"""A storm of events makes five passes a second, not thousands."""


@dataclass(slots=True, kw_only=True)
class ProgramLoop:
    """Wakes a program, stops it, and tells the store that it lives."""

    name: str
    store: Store
    period_s: float
    state: str
    stopped: bool = False
    _rung: threading.Event = field(default_factory=threading.Event)

    def ring(self) -> None:
        """End the present wait."""
        self._rung.set()

    def stop(self, *_: object) -> None:
        """End the present wait, and the program."""
        self.stopped = True
        self._rung.set()

    def wait(self, seconds: float) -> bool:
        """Wait until `seconds` are over or the loop rings; return whether to stop."""
        if self._rung.wait(seconds) and not self.stopped:
            threading.Event().wait(SMALLEST_WAIT_S)
        self._rung.clear()
        return self.stopped

    def beat(self, **facts: Any) -> None:
        """Write a heartbeat; while the store is away nobody could read it either."""
        host = socket.gethostname()
        try:
            self.store.beat(f"{self.name}@{host}", self.period_s, pid=os.getpid(), host=host, state=self.state, **facts)
        except StoreAwayError as error:
            LOG.warning("no heartbeat: %s", error)


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when supervisord dies, so that its successor finds no second copy; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def only_copy(lock: Path) -> Iterator[None]:
    """Hold a lock file that the kernel frees however this process ends.

    Raises:
        BusyError: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            held.seek(0)
            raise BusyError(f"{lock}: held by process {held.read() or 'unknown'}: one copy is enough") from error
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        yield


def main(name: str) -> int:
    """Run one program until it is told to stop."""
    die_with_parent()
    logs.set_up(name)
    try:
        config = load_config(config_path())
        with only_copy(config.state_dir / "run" / f"{name}.lock"):
            store = open_store(config.store_url)
            period_s = max(10.0, 2 * config.watch.scan_s)
            loop = ProgramLoop(name=name, store=store, period_s=period_s, state=str(config.state_dir))
            for stop in (signal.SIGTERM, signal.SIGINT):
                signal.signal(stop, loop.stop)
            importlib.import_module(f"sentinel.{PROGRAMS[name]}").run(config, store, loop)
    except SentinelError as error:
        LOG.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
