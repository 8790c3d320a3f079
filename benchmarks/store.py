"""Measure how many cadences per second the store hands out and records: SQLite and PostgreSQL, one and four processes.

Each step waits for the disk, as in service: SQLite with `synchronous=FULL`, PostgreSQL with its defaults. A step is a
claim (the newest among thousands of cadences whose six files are present) and a record of one candidate.

Run from the repository root: `python benchmarks/store.py`. PostgreSQL is measured if its programs are installed.
"""

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from postgres import Server, programs
from rows import found
from sqlalchemy import insert

from sentinel.store.queue import Store, open_store
from sentinel.store.schema import cadence, cadence_file, file

PROCESSES = (1, 4)
CADENCES = 3000
SECONDS = 5.0


def work(url: str, barrier: Any, counts: Any) -> None:
    """Claim and record cadences for `SECONDS`."""
    store, count = open_store(url), 0
    barrier.wait()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and (lease := store.claim(60)):
        store.complete(lease.token, found())
        count += 1
    counts.put(count)


def fill(store: Store) -> None:
    """Put the cadences and their files into the queue."""
    ready = {"state": "ready", "target": "T", "band_low_mhz": 1, "band_high_mhz": 2, "created_at": 0.0}
    valid = {"state": "valid", "size": 1, "mtime_ns": 1, "inode": "1", "changed_at": 0.0}
    ids = range(1, CADENCES + 1)
    six = [(i, at, f"{i}-{at}") for i in ids for at in range(6)]
    with store.write() as rows:
        rows.execute(insert(cadence), [{**ready, "id": i, "key": str(i), "tstart": 59000.0 + i} for i in ids])
        rows.execute(
            insert(cadence_file), [{"cadence_id": i, "position": at, "observation": name} for i, at, name in six]
        )
        rows.execute(insert(file), [{**valid, "path": name, "observation": name} for _, _, name in six])


def measure(url: str, processes: int) -> float:
    """Return how many cadences per second were claimed and recorded, and check that each was recorded once."""
    store = open_store(url)
    fill(store)
    spawn = multiprocessing.get_context("spawn")
    barrier, counts = spawn.Barrier(processes), spawn.Queue()
    several = [spawn.Process(target=work, args=(url, barrier, counts)) for _ in range(processes)]
    for process in several:
        process.start()
    total = sum(counts.get() for _ in several)
    for process in several:
        process.join()
    assert store.ledger()["done"] == total < CADENCES
    store.engine.dispose()
    return total / SECONDS


def engines() -> Iterator[tuple[str, Any]]:
    """Yield the name of each engine and a function that returns the URL of an empty store."""
    with tempfile.TemporaryDirectory(dir=".") as place:
        yield "SQLite", lambda: f"sqlite:///{Path(tempfile.mkdtemp(dir=place)).absolute()}/store.db"
    if programs() is None:
        print("PostgreSQL is not installed: apt install postgresql")
        return
    server = Server()
    yield "PostgreSQL", server.database
    server.close()


def main() -> None:
    print("| store | processes | cadences claimed and recorded a second |\n|---|---|---|")
    for name, empty in engines():
        for processes in PROCESSES:
            print(f"| {name} | {processes} | {measure(empty(), processes):.0f} |", flush=True)


if __name__ == "__main__":
    main()
