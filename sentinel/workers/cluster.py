"""The cluster program, which keeps a Dask LocalCluster, and `Searchers`, through which the watcher uses it.

A scheduler runs any code that is sent to its port, so ours listens on loopback only. A worker is one process that runs
one task at a time, with the detector in memory. Dask does not retry a task whose worker died: the store counts
attempts.
"""

import itertools
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.comm import CommClosedError
from distributed.core import Status
from distributed.security import Security

from sentinel.config import Config
from sentinel.errors import Cause, ConfigError, cause_of
from sentinel.programs.program import ProgramLoop
from sentinel.store.queue import Lease, Store

LOG = logging.getLogger(__name__)
CONNECT_S = 5
CHECK_S = 2.0
EMPTY_CHECKS = 150
"""Checks in a row without a worker after which the cluster is started again."""
START_AGAIN_CHECKS = 5
"""Checks between two starts of workers that could not start."""
LOST_S = 3600
"""Dask gives up a worker that has not restarted within this time, seconds. Its default is shorter than a start."""


def run(config: Config, _store: Store, loop: ProgramLoop) -> None:
    """Keep a cluster on this machine, or only send heartbeats if the configuration names another scheduler."""
    if config.cluster.scheduler:
        LOG.info("using the workers of the scheduler at %s", config.cluster.scheduler)
        while not loop.wait(CHECK_S):
            loop.heartbeat(scheduler=config.cluster.scheduler)
        return
    spawned = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    dask.config.set(
        {
            "distributed.scheduler.allowed-failures": 0,
            "distributed.nanny.pre-spawn-environ": spawned,
            "distributed.deploy.lost-worker-timeout": LOST_S,
        }
    )
    address = _address(config)
    with LocalCluster(
        n_workers=config.cluster.workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=config.cluster.memory_limit or 0,
        preload=["sentinel.workers.preload"],
        env={"SENTINEL_WORKER": "1"},  # the scheduler imports the task too, without a detector
        local_directory=str(config.state_dir / "run"),
    ) as cluster:
        new = address.with_suffix(".new")
        new.write_text(cluster.scheduler_address)
        new.replace(address)
        empty, checks = 0, itertools.count(1)
        while not loop.wait(CHECK_S):
            workers = len(cluster.scheduler.workers)
            loop.heartbeat(scheduler=cluster.scheduler_address, workers=workers)
            if next(checks) % START_AGAIN_CHECKS == 0:
                start_failed_again(cluster, config.cluster.workers)
            empty = 0 if workers else empty + 1
            if empty > EMPTY_CHECKS:
                raise RuntimeError(f"no worker for {EMPTY_CHECKS * CHECK_S:.0f} s: starting the cluster again")
        address.unlink(missing_ok=True)


def start_failed_again(cluster: LocalCluster, count: int) -> None:
    """Start the workers again that could not start, for instance while the release was away: Dask does not."""
    for name, nanny in list(cluster.workers.items()):
        if nanny.status in (Status.closed, Status.failed):
            del cluster.workers[name]
    if len(cluster.workers) < count:
        cluster.scale(count)


def _security(config: Config) -> Security | None:
    """Return the TLS files for a scheduler elsewhere; None without TLS, on this machine."""
    if not (ca := config.cluster.tls_ca):
        return None
    files = {"tls_ca_file": ca, "tls_client_cert": config.cluster.tls_cert, "tls_client_key": config.cluster.tls_key}
    if unreadable := [str(path) for path in files.values() if not os.access(path or "", os.R_OK)]:
        raise ConfigError(f"cluster: expected files that can be read, found {', '.join(unreadable)}")
    return Security(require_encryption=True, **{name: str(path) for name, path in files.items()})


def _address(config: Config) -> Path:
    return config.state_dir / "run" / "scheduler"


class Searchers:
    """The workers of a scheduler. Connects when there is one, and again when the connection is lost."""

    def __init__(self, config: Config, ended: Callable[[], None]) -> None:
        self.config = config
        self.ended = ended
        self._client: Client | None = None
        self._futures: dict[Future, Lease] = {}

    def capacity(self) -> int:
        """Return how many cadences may be searched at once; 0 without a scheduler."""
        client = self._connected()
        return (self.config.cluster.in_flight or len(client.nthreads())) if client else 0

    def submit(self, lease: Lease) -> None:
        """Give a cadence to a worker."""
        from sentinel.workers.task import search_task

        client = self._connected()
        if client is None:
            raise ConnectionError("the connection to the scheduler was lost")
        arguments = (lease.cadence_id, lease.token, self.config.model_dump_json())
        future = client.submit(search_task, *arguments, key=f"search-{lease.token}", pure=False)
        self._futures[future] = lease
        future.add_done_callback(lambda _: self.ended())

    def waiting(self) -> list[str]:
        """Return the tokens of the submitted attempts that have not ended."""
        return [lease.token for future, lease in self._futures.items() if future.status == "pending"]

    def collect(self) -> Iterator[tuple[Lease, str, Cause]]:
        """Drop the attempts that have ended; yield each that its worker did not record, with text and cause."""
        for future, lease in list(self._futures.items()):
            if future.status == "pending":
                continue
            del self._futures[future]
            if future.status == "error":
                error = future.exception()
                if isinstance(error, KilledWorker):
                    yield lease, "its worker died", Cause.DEATH
                else:
                    lost = isinstance(error, CommClosedError)
                    yield lease, f"{type(error).__name__}: {error}", Cause.MACHINE if lost else cause_of(error)
            elif future.status in ("cancelled", "lost"):
                yield lease, "the scheduler was lost", Cause.MACHINE

    def disconnect(self) -> list[Lease]:
        """Disconnect from the scheduler; return the leases of the searches that have not ended."""
        unfinished = list(self._futures.values())
        self._futures.clear()
        if self._client:
            self._client.close(timeout=CONNECT_S)
        return unfinished

    def _connected(self) -> Client | None:
        address = self.config.cluster.scheduler
        if not address:
            file = _address(self.config)
            address = file.read_text() if file.exists() else None
        if self._client and (self._client.status != "running" or self._client.scheduler.address != address):
            LOG.warning("lost the scheduler at %s", self._client.scheduler.address if self._client.scheduler else "?")
            self._client.close(timeout=1)
            self._client = None
        if self._client is None and address:
            try:
                options = {"set_as_default": False, "name": "sentinel-watcher"}
                self._client = Client(address, timeout=CONNECT_S, security=_security(self.config), **options)
                LOG.info("connected to the scheduler at %s", address)
            except OSError as error:
                LOG.warning("no scheduler at %s: %s", address, error)
        return self._client
