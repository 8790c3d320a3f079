"""Measure how late live cadences are recorded, with and without a backlog, and how memory, descriptors and log grow.

Run from the repository root: `python benchmarks/backlog.py [BACKLOG [SECONDS]]`, by default 10,000 cadences of six tiny
files and 120 s of live arrivals. Watcher, grouping, queue, leases and store are the service's own code, in one process.
A search is replaced by a pause of 50 ms without candidates, so that the service is measured and not the search. The
latency of a cadence runs from the landing of its last file to its record; by default a file settles for 10 s and a scan
runs every 5 s.
"""

import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from sqlalchemy import select

from aetherscan.header import gbt_header
from aetherscan.io import verify_complete, write_fil
from sentinel.config import Config
from sentinel.ingest.cadences import group
from sentinel.ingest.service import one_pass
from sentinel.ingest.watcher import Scanner
from sentinel.programs.program import ProgramLoop
from sentinel.store.queue import Lease, SearchRecord, Store, open_store
from sentinel.store.schema import cadence
from sentinel.workers.task import search_lease

SEARCH_S, EVERY_S, IDLE_S = 0.05, 4.0, 60.0
STEP_DAYS = 341 / 86_400
HEADER = gbt_header(16, rows=4)
POWER = np.full((4, 16), 100, np.float32)
NOTHING = SearchRecord(candidates=(), pictures=(), release=("none", "0" * 64), run={}, message=None)


def write_cadence(folder: Path, target: str, tstart: float) -> None:
    """Write six files under their final names."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(6):
        name, away = (target, 0) if i % 2 == 0 else (f"OFF{i}", 2 * i)
        header = replace(
            HEADER, source_name=name, src_dej=HEADER.src_dej + away, tstart=tstart + i * STEP_DAYS, telescope_id=6
        )
        write_fil(folder / f"{target}-{i}.fil", header, [POWER])


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Resources that must not grow with the backlog."""

    rss_mb: float
    descriptors: int
    wal_mb: float


def size(state: Path) -> Size:
    """Measure this process and the store's write-ahead log."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    wal = state / "sentinel.db-wal"
    return Size(
        rss_mb=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
        wal_mb=wal.stat().st_size / 1e6 if wal.exists() else 0.0,
    )


@contextmanager
def service(place: Path, workers: int) -> Iterator[tuple[Path, Store]]:
    """Run the service's loop in a thread, with workers in others; yield the watched folder and the store."""
    config = Config(state_dir=place, watch={"roots": (place / "in",)}, lease_s=600)
    (place / "in").mkdir()
    store = open_store(config.store_url)
    loop = ProgramLoop(name="watcher", store=store, period_s=10, state=place)
    scanner = Scanner(store=store, watch=config.watch, verify=verify_complete, wake=loop.wake)

    def search(*_: Any) -> SearchRecord:
        time.sleep(SEARCH_S)
        return NOTHING

    def work(lease: Lease) -> None:
        search_lease(store, config, lease.cadence_id, lease.token, search)
        loop.wake()

    def scan(pool: ThreadPoolExecutor) -> None:
        while not loop.wait(config.watch.scan_s):
            one_pass(
                scan=scanner.scan_and_open,
                group=lambda: group(store, config.watch),
                renew_waiting=tuple,
                expire=store.expire,
                collect=tuple,
                record_failure=lambda *_: None,
                free_workers=lambda: workers - store.leased_count(),
                claim=lambda: store.claim(config.lease_s),
                submit=lambda lease: pool.submit(work, lease),
            )

    with ThreadPoolExecutor(workers) as pool:
        watcher = threading.Thread(target=scan, args=(pool,))
        watcher.start()
        try:
            yield place / "in", store
        finally:
            loop.stop()
            watcher.join()
    store.engine.dispose()


def live(root: Path, first: int, seconds: float) -> dict[str, float]:
    """Land a cadence every few seconds, each newer than the last; return the time at which each landed."""
    landed, end = {}, time.monotonic() + seconds
    while time.monotonic() < end:
        target = f"LIVE{first + len(landed)}"
        write_cadence(root / target, target, 61000.0 + 0.2 * (first + len(landed)))
        landed[target] = time.time()
        time.sleep(EVERY_S)
    return landed


def latencies(store: Store, landed: Mapping[str, float], patience_s: float = 300) -> np.ndarray:
    """Wait until live cadences are recorded; return the latency of each, in seconds."""
    ended: dict[str, float] = {}
    end = time.monotonic() + patience_s
    while len(ended) < len(landed):
        assert time.monotonic() < end, f"expected {len(landed)} live cadences recorded, found {len(ended)}"
        time.sleep(1)
        with store.read() as rows:
            found = rows.execute(select(cadence.c.target, cadence.c.ended_at).where(cadence.c.state == "done")).all()
        ended = {target: at for target, at in found if target in landed}
    return np.array([ended[target] - landed[target] for target in landed])


def run(
    backlog: int, seconds: float, idle_s: float = IDLE_S, *, drain: bool = False, workers: int = 2
) -> dict[str, Any]:
    """Measure idle, land the backlog at once, measure under load; then drain the backlog if `drain`."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for number in range(backlog):
            write_cadence(place / "session" / f"{number // 100}", f"OLD{number}", 58000.0 + 0.2 * number)
        with service(place, workers) as (root, store):
            idle = latencies(store, live(root, 0, idle_s))
            sizes = [size(place)]
            (place / "session").rename(root / "session")
            loaded = latencies(store, live(root, 1000, seconds))
            sizes.append(size(place))
            while drain and store.ledger()["done"] < backlog + len(idle) + len(loaded):
                time.sleep(1)
                sizes.append(size(place))
            ledger = store.ledger()
            sizes.append(size(place))
    return {"idle_s": idle, "loaded_s": loaded, "sizes": sizes, "ledger": ledger}


def main(backlog: int = 10_000, seconds: float = 120) -> None:
    """Print latencies, their ratio, and sizes before, under load and at the end."""
    found = run(backlog, seconds)
    for name in ("idle_s", "loaded_s"):
        p50, p95 = np.percentile(found[name], (50, 95))
        print(f"{name:9} p50 {p50:6.1f}  p95 {p95:6.1f}  of {len(found[name])}")
    print(f"ratio of p95: {np.percentile(found['loaded_s'], 95) / np.percentile(found['idle_s'], 95):.2f}")
    for measured in found["sizes"]:
        memory, log = f"RSS {measured.rss_mb:.0f} MB", f"write-ahead log {measured.wal_mb:.1f} MB"
        print(f"{memory}, {measured.descriptors} descriptors, {log}")
    print(" ".join(f"{name} {count}" for name, count in found["ledger"].items()))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
