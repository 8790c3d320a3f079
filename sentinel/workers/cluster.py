"""Who searches: one program keeps a Dask LocalCluster, and the watcher reaches it through `Searchers`.

A scheduler's port runs any code it is sent, so ours listens on loopback only. One worker is one process with one task
at a time and the detector already in memory. A death is not retried by Dask but told at once, and the store counts
it.
"""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import dask
from distributed import Client, Future, KilledWorker, LocalCluster
from distributed.security import Security

from sentinel.config import Config
from sentinel.errors import ConfigError
from sentinel.programs.program import ProgramLoop
from sentinel.store.queue import Lease, Store

LOG = logging.getLogger(__name__)
CONNECT_S = 5
LOOK_S = 2.0
PATIENCE = 60
"""Looks at a cluster without a worker before it is given up and started afresh."""


def run(config: Config, _store: Store, loop: ProgramLoop) -> None:
    """Keep a cluster on this machine, or only beat where the configuration names a scheduler elsewhere."""
    if config.cluster.scheduler:
        LOG.info("workers are those of %s", config.cluster.scheduler)
        while not loop.wait(LOOK_S):
            loop.heartbeat(scheduler=config.cluster.scheduler)
        return
    spawned = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    spawned["TF_CPP_MIN_LOG_LEVEL"] = "3"  # its lines are not ours, and no JSON
    dask.config.set({"distributed.scheduler.allowed-failures": 0, "distributed.nanny.pre-spawn-environ": spawned})
    address = _address(config)
    with LocalCluster(
        n_workers=config.cluster.workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        memory_limit=config.cluster.memory_limit or 0,
        preload=["sentinel.workers.preload"],
        env={"SENTINEL_WORKER": "1"},  # the scheduler imports the task's module too, and needs no detector
        local_directory=str(config.state_dir / "run"),
    ) as cluster:
        fresh = address.with_suffix(".new")
        fresh.write_text(cluster.scheduler_address)
        fresh.replace(address)
        empty = 0
        while not loop.wait(LOOK_S):
            workers = len(cluster.scheduler.workers)
            loop.heartbeat(scheduler=cluster.scheduler_address, workers=workers)
            empty = 0 if workers else empty + 1
            if empty > PATIENCE:
                raise RuntimeError(f"no worker for {PATIENCE * LOOK_S:.0f} s: starting the cluster afresh")
        address.unlink(missing_ok=True)


def _security(config: Config) -> Security | None:
    """Return what encrypts, and proves who is at either end; None on this machine alone."""
    if not (ca := config.cluster.tls_ca):
        return None
    files = {"tls_ca_file": ca, "tls_client_cert": config.cluster.tls_cert, "tls_client_key": config.cluster.tls_key}
    if lacking := [str(path) for path in files.values() if not os.access(path or "", os.R_OK)]:
        raise ConfigError(f"cluster: cannot be read: {', '.join(lacking)}")
    return Security(require_encryption=True, **{name: str(path) for name, path in files.items()})


def _address(config: Config) -> Path:
    return config.state_dir / "run" / "scheduler"


class Searchers:
    """The workers behind a scheduler; connects when there is one, and anew when it is lost."""

    def __init__(self, config: Config, ended: Callable[[], None]) -> None:
        self.config = config
        self.ended = ended
        self._client: Client | None = None
        self._flights: dict[Future, Lease] = {}

    def capacity(self) -> int:
        """Return how many cadences may be searched at once; none while no scheduler answers."""
        client = self._connected()
        return (self.config.cluster.in_flight or len(client.nthreads())) if client else 0

    def submit(self, lease: Lease) -> None:
        """Hand a cadence to a worker."""
        from sentinel.workers.task import search_task

        client = self._connected()
        if client is None:
            raise ConnectionError("the scheduler was lost between two steps")
        arguments = (lease.cadence_id, lease.token, self.config.model_dump_json())
        future = client.submit(search_task, *arguments, key=f"search-{lease.token}", pure=False)
        self._flights[future] = lease
        future.add_done_callback(lambda _: self.ended())

    def waiting(self) -> list[str]:
        """Return the tokens of attempts that have not ended, as far as the scheduler knows."""
        return [lease.token for future, lease in self._flights.items() if future.status == "pending"]

    def collect(self) -> Iterator[tuple[Lease, str]]:
        """Forget attempts that have ended; yield those that ended without their worker saying so, and why."""
        for future, lease in list(self._flights.items()):
            if future.status == "pending":
                continue
            del self._flights[future]
            if future.status == "error":
                error = future.exception()
                yield (
                    lease,
                    "its worker died" if isinstance(error, KilledWorker) else f"{type(error).__name__}: {error}",
                )
            elif future.status in ("cancelled", "lost"):
                yield lease, "the scheduler was lost"

    def leave(self) -> list[Lease]:
        """Let go of the scheduler and return what was still being searched."""
        left = list(self._flights.values())
        self._flights.clear()
        if self._client:
            self._client.close(timeout=CONNECT_S)
        return left

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
                named = {"set_as_default": False, "name": "sentinel-watcher"}
                self._client = Client(address, timeout=CONNECT_S, security=_security(self.config), **named)
                LOG.info("connected to the scheduler at %s", address)
            except OSError as error:
                LOG.warning("no scheduler at %s: %s", address, error)
        return self._client
