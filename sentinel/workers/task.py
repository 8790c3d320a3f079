"""The task that a Dask worker runs: search one cadence under its lease and record the result.

Candidates, message and the state `done` are written in one transaction that checks the fencing token. The message is
sent, and the pictures are drawn, afterwards. The task reports to the store and not to the watcher, which may have
ended in the meantime.

The watcher and the scheduler import this module, so the search itself is imported inside the functions.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from aetherscan.detector.release import OBSERVATIONS
from aetherscan.errors import ReadError
from sentinel.config import Config
from sentinel.errors import Cause, LeaseLostError, StoreAwayError, StoreError, cause_of
from sentinel.failpoint import failpoint
from sentinel.notify.poster import deliver_due
from sentinel.programs import logs
from sentinel.store.queue import ClaimedCadence, InjectedRecord, SearchRecord, Store, retry_while_away
from sentinel.store.releases import active_release
from sentinel.workers.process import COMPILED, cached_store, detector_for

LOG = logging.getLogger(__name__)
RENEWALS = 6
"""Renewals of a lease within its length."""
WAIT_S = 1.0
"""Time between two renewals while the search is compiled; a renewal that is not due does nothing."""

Search = Callable[[ClaimedCadence, Callable[[float], None]], SearchRecord]


def search_task(cadence_id: int, token: str, config_json: str) -> dict[str, object]:
    """Search one cadence and record the result; return the outcome and the sha256 of the release."""
    from sentinel.workers.search import search_files

    config = Config.model_validate_json(config_json)
    store = retry_while_away(lambda: cached_store(config.store_url))
    summary: dict[str, object] = {}
    claimed: ClaimedCadence | None = None

    def search(cadence: ClaimedCadence, progress: Callable[[float], None]) -> SearchRecord:
        nonlocal claimed
        claimed = cadence
        while not COMPILED.wait(WAIT_S):
            progress(0.0)  # which renews the lease
        detector = detector_for(active_release(store, config.release))
        summary["release"] = detector.release.sha256
        return search_files(cadence.paths, cadence.pattern, progress, config, detector, cadence_id)

    with logs.log_context(cadence=cadence_id, attempt=token[:8]):
        summary["outcome"] = search_lease(store, config, cadence_id, token, search)
        steps: list[Callable[[], object]] = [lambda: deliver_due(config, store, held=False)]
        if (cadence := claimed) and summary["outcome"] == "done":
            steps += [lambda: inject_blind(store, config, cadence), lambda: search_with_shadow(store, config, cadence)]
        for step in steps:
            try:
                step()
            except Exception:
                LOG.exception("a step after the search failed; what was recorded stays")
    return summary


def search_lease(store: Store, config: Config, cadence_id: int, token: str, search: Search) -> str:
    """Search under a lease: renew it while the search advances, and record how it ended.

    Args:
        store: that holds the lease.
        config: of the service; its `lease_s` and `search_limit_s` are in seconds.
        cadence_id: the leased cadence.
        token: fencing token of the lease.
        search: called with the claimed cadence and a callback for the searched fraction.

    Returns:
        `done`, `fenced` (another attempt holds the cadence), or the state after a failure.
    """
    worker = f"{socket.gethostname()}:{os.getpid()}"
    renewed = -1e9

    def fail(text: str, cause: Cause) -> str:
        attempts, wait_s = config.max_attempts, config.retry_after_s
        return store.fail(token, text, cause, max_attempts=attempts, retry_after_s=wait_s)

    def end_process() -> None:
        LOG.error("search exceeds search_limit_s, %g s: this worker process exits", config.search_limit_s)
        try:
            fail(f"over search_limit_s, {config.search_limit_s:g} s", Cause.UNKNOWN)
        finally:
            os._exit(1)  # a search that hangs cannot be ended otherwise

    def progress(fraction: float) -> None:
        nonlocal renewed
        if fraction:
            failpoint("mid-read", cadence_id)
        if time.monotonic() - renewed > config.lease_s / RENEWALS:
            try:
                store.renew(token, config.lease_s, progress=fraction, worker=worker)
                renewed = time.monotonic()
            except StoreAwayError as error:
                LOG.warning("lease not renewed, the search continues: %s", error)

    limit = threading.Timer(config.search_limit_s, end_process)
    limit.daemon = True
    limit.start()
    try:
        progress(0.0)
        failpoint("started", cadence_id)
        result = search(retry_while_away(lambda: store.claimed(token)), progress)
        limit.cancel()  # recording may wait for the store longer than a search may take
        failpoint("before-commit")
        retry_while_away(lambda: store.complete(token, result))
        failpoint("after-commit")
    except LeaseLostError as error:
        LOG.warning("nothing recorded: %s", error)
        store.mark_fenced(token)
        return "fenced"
    except Exception as error:
        LOG.exception("attempt failed")
        text, cause = f"{type(error).__name__}: {error}", cause_of(error)
        return retry_while_away(lambda: fail(text, cause))
    finally:
        limit.cancel()
    LOG.info("done: %d candidates", len(result.candidates))
    _draw(store, cadence_id, result, config.stamp_bytes)
    return "done"


def _draw(store: Store, cadence_id: int, result: SearchRecord, stamp_bytes: int) -> None:
    if result.pictures:
        from sentinel.workers.pictures import draw_recorded

        draw_recorded(store, cadence_id, result.examples, stamp_bytes)


def inject_blind(store: Store, config: Config, cadence: ClaimedCadence) -> bool:
    """Search a random fraction of the recorded cadences again with an injected tone; return whether this one was.

    The token of the attempt, 32 hexadecimal digits, seeds the draw and names the injection.
    """
    rng = np.random.default_rng(int(cadence.token, 16))
    if rng.random() >= config.injections.blind_share or not _whole(cadence, config):
        return False
    from sentinel.injection.blind import search_blind

    detector = detector_for(active_release(store, config.release))
    found: list[InjectedRecord] = []

    def keep(*searched: Any) -> None:
        from sentinel.workers.injected import keep_injected

        try:
            release = (detector.release.name, detector.release.sha256)
            found.append(keep_injected(store, config, cadence, release, *searched))
        except (OSError, StoreError) as error:
            LOG.warning("the injected signal does not enter the queue of labels: %s", error)

    enters = rng.random() < config.injections.review_share
    try:
        row = search_blind(cadence.paths, cadence.on, config.search.settings(), detector, rng, keep if enters else None)
    except ReadError as error:  # the cadence is recorded, so its files may be moved away at any time
        LOG.info("no blind injection: %s", error)
        return False
    kept = found[0] if found else None
    store.record_injection(found=kept, cadence_id=cadence.cadence_id, name=cadence.token, **row)
    return True


def search_with_shadow(store: Store, config: Config, cadence: ClaimedCadence) -> None:
    """Search a recorded cadence with the shadow release, if one is configured."""
    if config.shadow is None or not _whole(cadence, config):
        return
    from aetherscan.detector.release import read_release
    from sentinel.workers.shadow import search_shadow

    settings = config.search.settings(threshold=None)
    detector = _shadow_detector(config.shadow, read_release(config.shadow).sha256)
    search_shadow(store, cadence.cadence_id, cadence.paths, cadence.on, detector, settings)


def _whole(cadence: ClaimedCadence, config: Config) -> bool:
    """Return whether a cadence has its three ONs and three OFFs, which a release scores, and is no canary."""
    scored = len(cadence.paths) == 2 * len(cadence.on) == OBSERVATIONS
    return scored and not cadence.paths[0].is_relative_to(config.canaries)


@lru_cache(maxsize=1)
def _shadow_detector(folder: Path, _sha256: str) -> Any:
    from aetherscan.detector.detector import load_detector

    return load_detector(folder)
