"""The task that a Dask worker runs: search one cadence under its lease, and record what was found.

Candidates, message and the state `done` are written in one transaction that checks the fencing token; the message is
sent afterwards. A task reports to the store and not to the watcher that submitted it, because that program may have
ended meanwhile.
"""

import hashlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from aetherscan.errors import ReadError
from aetherscan.header import SCAN_STEP_S, SECONDS_PER_DAY
from aetherscan.io import Absent, Observation, open_cadence
from sentinel.config import Config
from sentinel.errors import LeaseLostError, StoreAwayError, retriable
from sentinel.failpoint import failpoint
from sentinel.notify.messages import STORM, message_text
from sentinel.notify.poster import deliver_due
from sentinel.programs import logs
from sentinel.store.queue import Found, Store, patiently
from sentinel.store.releases import serving
from sentinel.store.schema import candidate
from sentinel.workers.process import _store, code_version, detector_for

LOG = logging.getLogger(__name__)
RENEWALS = 6
"""How often a lease is renewed within its length."""
PICTURES = 20
"""Candidates of one cadence that are drawn and kept to learn from, best first; a storm of them would fill the disk."""

Search = Callable[[Sequence[Path], Callable[[float], None]], Found]


def search_task(cadence_id: int, token: str, config_json: str) -> dict[str, object]:
    """Search one cadence and record what was found; return the outcome and the release that was used."""
    config = Config.model_validate_json(config_json)
    store = _store(config.store_url)
    used: dict[str, object] = {}

    def search(paths: Sequence[Path], progress: Callable[[float], None]) -> Found:
        detector = detector_for(serving(store, config.release))
        used.update(release=detector.release.sha256)
        return search_files(paths, store.pattern(cadence_id), progress, config, detector, cadence_id)

    with logs.bound(cadence=cadence_id, attempt=token[:8]):
        outcome = search_lease(store, config, cadence_id, token, search)
        deliver_due(config, store)
        if outcome == "done":
            inject_blind(store, config, cadence_id, token)
            watch_with_shadow(store, config, cadence_id)
    return {"outcome": outcome, **used}


def inject_blind(store: Store, config: Config, cadence_id: int, token: str) -> bool:
    """Search a part of some cadences again, with a signal put in; return whether this was one of them."""
    from aetherscan.options.search import SearchSettings
    from sentinel.injection.blind import search_blind

    rng = np.random.default_rng(int(token, 16))
    if rng.random() >= config.injections.blind_share:
        return False
    paths, settings = store.paths(cadence_id), SearchSettings(**config.search.model_dump())
    on = tuple(i for i, letter in enumerate(store.pattern(cadence_id)) if letter == "A")
    if len(paths) != 6 or paths[0].is_relative_to(config.canaries):
        return False
    try:
        row = search_blind(paths, on, settings, detector_for(serving(store, config.release)), rng)
    except ReadError as error:  # recorded already, and free to be moved away
        LOG.info("no signal was put in: %s", error)
        return False
    store.put_injection(cadence_id=cadence_id, name=token, **row)
    return True


def watch_with_shadow(store: Store, config: Config, cadence_id: int) -> None:
    """Search a cadence with the release in the shadow, if there is one; whatever goes wrong is logged, and no more."""
    if config.shadow is None:
        return
    from aetherscan.detector.release import read_release
    from aetherscan.options.search import SearchSettings
    from sentinel.workers.shadow import search_shadow

    paths, pattern = store.paths(cadence_id), store.pattern(cadence_id)
    on = tuple(i for i, letter in enumerate(pattern) if letter == "A")
    if len(paths) != 6 or paths[0].is_relative_to(config.canaries):
        return
    settings = SearchSettings(**{**config.search.model_dump(), "threshold": None})
    try:
        detector = _shadow(config.shadow, read_release(config.shadow).sha256)
        search_shadow(store, cadence_id, paths, on, detector, settings)
    except Exception:
        LOG.exception("nothing from the shadow; the cadence is recorded")


@lru_cache(maxsize=1)
def _shadow(folder: Path, _sha256: str) -> Any:
    from aetherscan.detector.detector import load_detector

    return load_detector(folder)


def search_lease(store: Store, config: Config, cadence_id: int, token: str, search: Search) -> str:
    """Search under a lease: renew it as the search advances, record the end of it, and return that end."""
    who = f"{socket.gethostname()}:{os.getpid()}"
    renewed = -1e9

    def failed(cause: str, *, again: bool) -> str:
        tries, wait_s = config.max_attempts, config.retry_after_s
        return store.fail(token, cause, retriable=again, max_attempts=tries, retry_after_s=wait_s)

    def over_limit() -> None:
        LOG.error("over the limit of %g s: this worker ends and starts afresh", config.search_limit_s)
        try:
            failed(f"over search_limit_s, {config.search_limit_s:g} s", again=True)
        finally:
            os._exit(1)  # nothing else ends a search that hangs

    def progress(fraction: float) -> None:
        nonlocal renewed
        if fraction:
            failpoint("mid-read", cadence_id)
        if time.monotonic() - renewed > config.lease_s / RENEWALS:
            try:
                store.renew(token, config.lease_s, progress=fraction, worker=who)
                renewed = time.monotonic()
            except StoreAwayError as error:
                LOG.warning("%s: searching on", error)

    limit = threading.Timer(config.search_limit_s, over_limit)
    limit.daemon = True
    limit.start()
    try:
        failpoint("started", cadence_id)
        progress(0.0)
        found = search(patiently(lambda: store.paths(cadence_id)), progress)
        limit.cancel()  # what was found may have to wait for the store
        failpoint("before-commit")
        patiently(lambda: store.complete(token, found))
        failpoint("after-commit")
    except LeaseLostError as error:
        LOG.warning("nothing recorded: %s", error)
        store.fenced(token)
        return "fenced"
    except Exception as error:
        LOG.exception("the attempt failed")
        cause, again = f"{type(error).__name__}: {error}", retriable(error)
        return patiently(lambda: failed(cause, again=again))
    finally:
        limit.cancel()
    LOG.info("done: %d candidates", len(found.candidates))
    return "done"


def search_files(
    paths: Sequence[Path],
    pattern: str,
    progress: Callable[[float], None],
    config: Config,
    detector: Any,
    cadence_id: int,
) -> Found:
    """Search the files of a cadence, draw what was found, and keep what the release was shown of it."""
    from aetherscan.options.search import SearchSettings
    from aetherscan.plotting.waterfall import waterfall_png
    from aetherscan.search.features import packed
    from aetherscan.search.pipeline import search_cadence

    on = tuple(i for i, letter in enumerate(pattern) if letter == "A")
    canary = paths[0].is_relative_to(config.canaries)
    with open_cadence(paths) as there:
        observations = in_place(there, pattern)
        headers = [observation.header for observation in observations]
        settings = SearchSettings(**config.search.model_dump())
        result = search_cadence(observations, detector, settings, progress, on)
        order = sorted(range(len(result.candidates)), key=lambda i: -result.candidates[i].probability)
        ranked = [result.candidates[i] for i in order]
        pictures, examples = list[tuple[int, str, str]](), list[tuple[int, str, str]]()
        for which, i in enumerate([] if canary else order[:PICTURES]):
            progress(1.0)  # a storm's pictures take longer than its search
            path = config.pictures / f"{cadence_id:06d}-{ranked[which].frequency_mhz:.6f}MHz.png"
            pictures.append((which, *keep(path, waterfall_png(observations, ranked[which], on))))
            shown = packed(result.snippets[i], result.measurements[i])
            examples.append((which, *keep(path.with_suffix(".npz"), shown)))
    drawn = {which: path for which, path, _ in pictures}
    release = detector.release
    rows = [
        {
            **{
                name: ", ".join(value) if name == "allocations" else value
                for name, value in asdict(one).items()
                if name in candidate.c
            },
            "release_name": release.name,
            "release_sha256": release.sha256,
            "code_version": code_version(),
            "config_sha256": config.sha256,
            "picture": drawn.get(which),
        }
        for which, one in enumerate(ranked)
    ]

    def message(recorded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        link = config.web.url and f"{config.web.url}/cadences/{cadence_id}"
        where = (ranked[0].target, headers[0].band_mhz, headers[0].tstart)
        text = message_text(*where, release.name, recorded, link=link or "")
        best = [path for _, path, _ in pictures[: config.slack.pictures]] if len(recorded) <= STORM else []
        told = {"text": text, "pictures": best, "sequence": f"{headers[0].telescope_id} {ranked[0].target}"}
        return {"posters": config.posters or ("slack",), "state": "pending" if config.posters else "off", **told}

    run: dict[str, Any] = {
        "counts": result.counts,
        "stage_s": result.stage_s,
        "bytes_read": result.bytes_read,
        "release": release.sha256,
    }
    if canary:
        rows, run["found"] = [], [(one.frequency_mhz, one.drift_rate_hz_s, one.probability) for one in ranked]
    return Found(
        candidates=rows,
        pictures=pictures,
        examples=examples,
        release=(release.name, release.sha256),
        run=run,
        message=message if rows else None,
    )


def in_place(there: Sequence[Observation], pattern: str) -> list[Observation]:
    """Return six observations in time order: for a dot in the pattern, an OFF that is missing, one without power."""
    rest = iter(there)
    six = {i: next(rest) for i, letter in enumerate(pattern) if letter != "."}
    for i in sorted({*range(6)} - {*six}):
        beside, way = (six[i - 1].header, 1) if i else (six[1].header, -1)  # an ON: those are always there
        tstart = beside.tstart + way * SCAN_STEP_S / SECONDS_PER_DAY
        six[i] = Absent(replace(beside, tstart=tstart, source_name="absent"))
    return [six[i] for i in range(6)]


def keep(path: Path, content: bytes) -> tuple[str, str]:
    """Write a file of a candidate, which always has the same name, and return its path and checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    failpoint("mid-picture")
    fresh.replace(path)
    return str(path), hashlib.sha256(content).hexdigest()
