"""Start one program of the service: lock, logs, signals, store and heartbeat are the same for all."""

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

from sqlalchemy import delete

from sentinel.config import config_path, load_config
from sentinel.errors import BusyError, SentinelError, StoreError
from sentinel.programs import logs
from sentinel.store.queue import Store, open_store
from sentinel.store.schema import heartbeat

LOG = logging.getLogger(__name__)
PROGRAMS = {
    "cluster": "workers.cluster",
    "watcher": "ingest.service",
    "poster": "notify.poster",
    "web": "web.server",
}
"""Module with the loop of each program. A program imports only its own."""
RUN = "SENTINEL_RUN"
"""Environment variable with the id of this start of the service."""
PR_SET_PDEATHSIG = 1
PERIOD_S = 10.0
"""Longest time between two heartbeats."""
SMALLEST_WAIT_S = 0.2
"""Limits a burst of file events to five passes per second."""


@dataclass(slots=True, kw_only=True)
class ProgramLoop:
    """Waiting, stopping and heartbeat of a program.

    Attributes:
        name: of the program.
        store: that takes the heartbeats.
        period_s: longest time between two heartbeats, seconds.
        state: state directory of the service, part of the heartbeat.
        stopped: whether the program is to end.
    """

    name: str
    store: Store
    period_s: float
    state: str
    stopped: bool = False
    _woken: threading.Event = field(default_factory=threading.Event)

    def wake(self) -> None:
        """End the present wait."""
        self._woken.set()

    def stop(self, *_: object) -> None:
        """End the present wait and the program."""
        self.stopped = True
        self._woken.set()

    def wait(self, seconds: float) -> bool:
        """Wait for `seconds`, or until the loop is woken; return whether to stop."""
        if self._woken.wait(seconds) and not self.stopped:
            threading.Event().wait(SMALLEST_WAIT_S)
        self._woken.clear()
        return self.stopped

    def heartbeat(self, **facts: Any) -> None:
        """Write a heartbeat with the `facts` that are not empty text; log a warning if the store cannot be used."""
        host, facts = socket.gethostname(), {name: fact for name, fact in facts.items() if fact != ""}
        try:
            self._forget_earlier_host(host)
            self.store.record_heartbeat(
                f"{self.name}@{host}",
                self.period_s,
                pid=os.getpid(),
                host=host,
                state=self.state,
                run=os.environ.get(RUN, ""),
                **facts,
            )
        except StoreError as error:
            LOG.warning("no heartbeat: %s", error)

    def _forget_earlier_host(self, host: str) -> None:
        """Delete the heartbeats, of this program and of workers, that have an earlier name of this host.

        `status` would report that name as a lost host.
        """
        memory = Path(self.state) / "run" / f"{self.name}.host"
        try:
            earlier = memory.read_text() if memory.exists() else ""
            if earlier == host:
                return
            if earlier:
                with self.store.write() as rows:
                    worker = heartbeat.c.name.startswith("worker") & (heartbeat.c.host == earlier)
                    rows.execute(delete(heartbeat).where(worker | (heartbeat.c.name == f"{self.name}@{earlier}")))
            memory.write_text(host)
        except OSError as error:  # a check reports the state directory
            LOG.debug("%s: %s", memory, error)


def die_with_parent() -> None:
    """Let the kernel send SIGTERM when supervisord dies, so that a new one finds no second copy. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def only_copy(lock: Path) -> Iterator[None]:
    """Hold a lock file, which the kernel releases when this process ends.

    Raises:
        BusyError: another process holds it.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            held.seek(0)
            raise BusyError(f"{lock}: held by process {held.read() or 'unknown'}: this program already runs") from error
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        yield


def is_held(lock: Path) -> bool:
    """Return whether a process holds a lock file. Nothing is written, so that this works on a full disk."""
    try:
        with lock.open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def main(name: str) -> int:
    """Run one program until it receives SIGTERM or SIGINT; return its exit code."""
    die_with_parent()
    logs.log_as_json(name)
    try:
        config = load_config(config_path())
        with only_copy(config.state_dir / "run" / f"{name}.lock"):
            store = open_store(config.store_url, create=False)
            loop = ProgramLoop(name=name, store=store, period_s=PERIOD_S, state=str(config.state_dir))
            for stop in (signal.SIGTERM, signal.SIGINT):
                signal.signal(stop, loop.stop)
            importlib.import_module(f"sentinel.{PROGRAMS[name]}").run(config, store, loop)
    except SentinelError as error:
        LOG.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
