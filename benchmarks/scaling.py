"""Measure how many cadences a service records in a minute with 1, 2, 4 and 8 workers on loopback.

Run from the repository root: `python benchmarks/scaling.py [CADENCES [SECONDS]]`, by default 12 cadences for each
worker, and 3 s. A search is a pause of that many seconds and a search of 4,096 channels, so that queue, leases, store
and Dask are measured and not the processors, which eight real searches would share. The reference in the same run is
the number that one worker records, times the number of workers.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests"))

from fake_slack import FakeSlack
from running import Service, Telescope, done
from sqlalchemy import func, select

from sentinel.store.schema import attempt

WORKERS = (1, 2, 4, 8)


def per_minute(place: Path, workers: int, cadences: int, pause_s: float) -> float:
    """Return the cadences that a new service records in a minute, from the first lease to the last record."""
    (place / "scratch").mkdir(parents=True)
    slack = FakeSlack()
    limits = {"workers": workers, "memory_limit": None}
    service = Service(place, slack, cluster=limits, lease_s=120, watch={"roots": ["incoming"], "settle_s": 0})
    Telescope(place / "incoming", place / "scratch", every=0).land(cadences)
    try:
        service.run("up", SENTINEL_FAILPOINT=f"started:sleep={pause_s}", SENTINEL__CLUSTER__IN_FLIGHT=str(workers))
        service.until(lambda: len(done(service)) == cadences, 60 + 3 * cadences * (pause_s + 3))
        ((first, last),) = service.rows(select(func.min(attempt.c.started_at), func.max(attempt.c.ended_at)))
        return 60 * cadences / (last - first)
    finally:
        service.run("down", check=False)
        slack.close()


def main(each: int = 12, pause_s: float = 3.0) -> None:
    one = 0.0
    for workers in WORKERS:
        with TemporaryDirectory() as folder:
            began = time.perf_counter()
            rate = per_minute(Path(folder) / "service", workers, each * workers, pause_s)
        one = one or rate
        print(f"{workers} workers  {rate:6.1f} cadences a minute  {rate / one / workers:4.0%} of {workers} x one worker"
              f"  ({time.perf_counter() - began:.0f} s)", flush=True)  # fmt: skip


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(*map(int, arguments[:1]), *map(float, arguments[1:2]))
