"""The life of a cadence, read aloud: look, group, claim, hand to a worker, note what became of it.

Every step can be repeated, because the store remembers and nothing here does: whoever kills this program loses one
pass. How many are searched at once is decided here, against the store, so that a queue never builds up inside the
cluster.
"""

import logging
from collections.abc import Callable, Iterable
from functools import partial

from sentinel.config import Config
from sentinel.errors import LeaseLostError, StoreError
from sentinel.failpoint import failpoint
from sentinel.ingest.cadences import group
from sentinel.ingest.watcher import OVERFLOWS, Scanner, listen
from sentinel.programs.program import ProgramLoop
from sentinel.store.queue import Lease, Store
from sentinel.workers.cluster import Searchers

LOG = logging.getLogger(__name__)


def one_pass(
    *,
    look: Callable[[], object],
    group: Callable[[], object],
    keep: Callable[[], object],
    expire: Callable[[], object],
    collect: Callable[[], Iterable[tuple[Lease, str]]],
    failed: Callable[[Lease, str], object],
    free: Callable[[], int],
    claim: Callable[[], Lease | None],
    submit: Callable[[Lease], object],
) -> None:
    """Take every cadence one step further.

    `keep` renews what waits inside the cluster: a lease's clock is its worker's from when one takes it up. `collect`
    yields attempts that ended without a word from their worker.
    """
    look()
    group()
    keep()
    expire()
    for lease, cause in collect():
        failpoint("result-known")
        failed(lease, cause)
    for _ in range(free()):
        if (claimed := claim()) is None:
            return
        submit(claimed)


def _watch(config: Config, ring: Callable[[], None]) -> None:
    for root in config.watch.roots:
        if root.is_relative_to(config.state_dir.parent):  # elsewhere it may be a mount that is away
            root.mkdir(parents=True, exist_ok=True)
    if config.watch.use_events:
        listen(config.watch.roots, ring)
    LOG.info("watching %s", ", ".join(map(str, config.watch.roots)))


def run(config: Config, store: Store, loop: ProgramLoop) -> None:
    """Watch, queue and hand out work until the loop says to stop; then give back what has not been finished."""
    from aetherscan.io import verify_complete

    verify = partial(verify_complete, decode=config.watch.complete.decoded)
    ours = (config.canaries,) if config.sends_canaries else ()
    watch = config.watch.model_copy(update={"roots": (*config.watch.roots, *ours)})
    searchers = Searchers(config, loop.ring)
    scanner = Scanner(store=store, watch=watch, verify=verify, ring=loop.ring)
    _watch(config.model_copy(update={"watch": watch}), scanner.event)

    def failed(lease: Lease, cause: str) -> None:
        try:
            state = store.fail(
                lease.token, cause, retriable=True, max_attempts=config.max_attempts, retry_after_s=config.retry_after_s
            )
            LOG.warning("cadence %d, attempt %d: %s: %s", lease.cadence_id, lease.attempt, cause, state)
        except LeaseLostError:
            LOG.info("cadence %d: %s, but another attempt had ended it", lease.cadence_id, cause)

    while True:
        try:
            one_pass(
                look=scanner.look,
                group=lambda: group(store, watch),
                keep=lambda: store.keep(searchers.waiting(), config.lease_s, longest_s=config.search_limit_s),
                expire=lambda: store.expire(config.max_attempts),
                collect=searchers.collect,
                failed=failed,
                free=lambda: searchers.capacity() - store.leased(config.service),
                claim=lambda: store.claim(config.lease_s, config.service),
                submit=searchers.submit,
            )
            loop.beat(workers=searchers.capacity(), overflowed=OVERFLOWS.count)
        except Exception as error:
            known = isinstance(error, StoreError)  # it says what and where, each time
            LOG.error("a pass failed, the next comes in %g s: %s", config.watch.scan_s, error, exc_info=not known)
        if loop.wait(config.watch.scan_s):
            break
    for lease in searchers.leave():
        try:
            store.give_back(lease.token)
        except (LeaseLostError, StoreError) as error:
            LOG.info("cadence %d was not given back: %s", lease.cadence_id, error)
