"""The watcher program: scan, group, claim, submit to a worker, record attempts that ended without a record.

Each step can be repeated, because the state is in the store. If this program is killed, one pass is lost. It submits
no more cadences than there are free workers, counted in the store, so no queue forms inside the cluster.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sentinel.config import Config, Watch
from sentinel.errors import Cause, LeaseLostError, StoreError
from sentinel.failpoint import failpoint
from sentinel.ingest.cadences import group
from sentinel.ingest.watcher import OVERFLOWS, Scanner, listen
from sentinel.monitor.probes import RootReports
from sentinel.notify.messages import one_line
from sentinel.programs.program import ProgramLoop
from sentinel.store.queue import Lease, Store
from sentinel.workers.cluster import Searchers

LOG = logging.getLogger(__name__)
RENEWAL_S = 60.0
"""Time for workers to renew their leases once the store is back, seconds: twice their longest wait."""


def one_pass(
    *,
    scan: Callable[[], object],
    group: Callable[[], object],
    renew_waiting: Callable[[], object],
    expire: Callable[[], object],
    collect: Callable[[], Iterable[tuple[Lease, str, Cause]]],
    record_failure: Callable[[Lease, str, Cause], object],
    free_workers: Callable[[], int],
    claim: Callable[[], Lease | None],
    submit: Callable[[Lease], object],
) -> None:
    """Take every cadence one step further.

    Args:
        scan: updates the rows of files.
        group: forms cadences of valid files.
        renew_waiting: renews the leases of cadences that no worker has begun. The worker renews them afterwards.
        expire: takes back leases that have ended.
        collect: returns attempts that ended without a record by their worker, with text and cause.
        record_failure: records such an attempt.
        free_workers: returns how many more cadences can be submitted.
        claim: leases the next cadence; None if none is due.
        submit: hands a leased cadence to the cluster.
    """
    scan()
    group()
    renew_waiting()
    expire()
    for lease, why, cause in collect():
        failpoint("result-known")
        record_failure(lease, why, cause)
    for _ in range(free_workers()):
        if (claimed := claim()) is None:
            return
        submit(claimed)


@dataclass(slots=True, kw_only=True)
class _Heartbeat:
    loop: ProgramLoop
    reports: RootReports
    roots: Sequence[Path]
    capacity: Callable[[], int]
    _at: float = 0.0

    def write(self, error: str = "") -> None:
        self._write(error, "" if error else self.capacity())  # the connection to the workers may be the error

    def progress(self) -> None:
        """Write a heartbeat if the last is old: the scan of a large tree takes longer than a period.

        Workers are not counted: without a scheduler, that takes seconds, and would do so at every file.
        """
        if time.monotonic() - self._at > self.loop.period_s / 2:
            self._write("", "")

    def _write(self, error: str, workers: object) -> None:
        roots = self.reports.facts(self.roots)
        self.loop.heartbeat(workers=workers, overflowed=OVERFLOWS.count, roots=roots, error=error)
        self._at = time.monotonic()


def expire_leases(store: Store, away_at: float, lease_s: float | None = None) -> int:
    """Take back leases that have ended, but not shortly after the store was away: workers could not renew them.

    Args:
        store: that holds the leases.
        away_at: when the store was last away, by the monotonic clock, seconds.
        lease_s: longest lease, seconds.
    """
    return 0 if time.monotonic() - away_at < RENEWAL_S else store.expire(lease_s)


def run(config: Config, store: Store, loop: ProgramLoop) -> None:
    """Watch, queue and submit cadences until the loop stops; then release the leases of unfinished ones."""
    from aetherscan.io import verify_complete

    canaries = (config.canaries,) if config.sends_canaries else ()
    watch = config.watch.model_copy(update={"roots": (*config.watch.roots, *canaries)})
    rules, searchers = config.cadence_rules, Searchers(config, loop.wake)
    verify = partial(verify_complete, decode=watch.complete.decoded)
    reports = RootReports(memory=config.state_dir / "run" / "mounts.json", scan_s=watch.scan_s)
    heartbeat = _Heartbeat(loop=loop, reports=reports, roots=watch.roots, capacity=searchers.capacity)
    scanner = Scanner(
        store=store, watch=watch, verify=verify, wake=loop.wake, reports=reports, progress=heartbeat.progress
    )
    _listen(config, watch, scanner)

    def record_failure(lease: Lease, why: str, cause: Cause) -> None:
        attempts, wait_s = config.max_attempts, config.retry_after_s
        try:
            state = store.fail(lease.token, why, cause, max_attempts=attempts, retry_after_s=wait_s)
            LOG.warning("cadence %d, attempt %d: %s: %s", lease.cadence_id, lease.attempt, why, state)
        except LeaseLostError:
            LOG.info("cadence %d: %s, but the attempt had ended before", lease.cadence_id, why)

    def renew_waiting() -> None:
        store.renew_waiting(searchers.waiting(), config.lease_s, longest_s=config.search_limit_s)

    away_at = -math.inf
    while True:
        try:
            one_pass(
                scan=scanner.scan_and_open,
                group=lambda: group(store, watch, rules),
                renew_waiting=renew_waiting,
                expire=partial(expire_leases, store, away_at, config.lease_s),
                collect=searchers.collect,
                record_failure=record_failure,
                free_workers=lambda: searchers.capacity() - store.leased_count(config.service),
                claim=lambda: store.claim(config.lease_s, config.service),
                submit=searchers.submit,
            )
            heartbeat.write()
        except Exception as error:
            away_at = time.monotonic() if isinstance(error, StoreError) else away_at
            traceback = not isinstance(error, StoreError)  # whose message names the store and the cause
            LOG.error("pass failed, next one in %g s: %s", config.watch.scan_s, error, exc_info=traceback)
            heartbeat.write(one_line(f"{type(error).__name__}: {error}"))
        if loop.wait(min(config.watch.scan_s, loop.period_s / 2)):
            break
    for lease in searchers.disconnect():
        try:
            store.release_lease(lease.token)
        except (LeaseLostError, StoreError) as error:
            LOG.info("cadence %d: lease not released: %s", lease.cadence_id, error)


def _listen(config: Config, watch: Watch, scanner: Scanner) -> None:
    for root in watch.roots:
        if root.is_relative_to(config.state_dir.parent):  # any other missing root may be a mount that is away
            root.mkdir(parents=True, exist_ok=True)
    if watch.use_events:
        listen(watch.roots, scanner.on_event)
    LOG.info("watching %s", ", ".join(map(str, watch.roots)))
