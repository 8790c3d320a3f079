"""Measure how long after a cadence's last byte a real service records and announces it, idle and with a backlog.

Run from the repository root: `python benchmarks/latency.py [BACKLOG [LIVE]]`, by default 600 cadences that land at once
and 20 live ones, one every five seconds, before the backlog and again during it. `up` starts every program with its
default configuration, workers and release, and a Slack server on loopback. Two settings differ: files settle for 2 s,
which is not part of the latency, and Slack's rate limits are lifted. A live cadence is six files of 2^18 channels and
16 rows with a tone, so each is announced. The backlog's files have 4,096 channels and no tone.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from fake_slack import FakeSlack
from running import Service, Telescope, done

from sentinel.config import ROOT, load_config
from sentinel.monitor.latency import STAGES, newest
from sentinel.store.schema import cadence

EVERY_S, NCHANS = 5.0, 2**18
STEPS = ("stable_to_recorded", "recorded_to_announced", "stable_to_announced")


def live(service: Service, telescope: Telescope, count: int) -> dict[str, np.ndarray]:
    """Land `count` cadences, wait until all are announced, and return the latencies of each step in seconds."""
    names = set()
    for _ in range(count):
        telescope.land(1)
        names.add(f"T{telescope.landed}")
        time.sleep(EVERY_S)

    def announced() -> dict[str, np.ndarray]:
        with service.store.read() as rows:
            every = newest(rows, cadence.c.target, service.config.canaries)
            mine = [seconds for target, *seconds in every if target in names]
        taken = dict(zip(STAGES, zip(*mine, strict=True), strict=False))
        whole = len(mine) == count and None not in taken["stable_to_announced"]
        return {name: np.array(taken[name]) for name in STEPS} if whole else {}

    return service.until(announced, 600)


def main(backlog: int = 600, count: int = 20) -> None:
    slack = FakeSlack()
    shipped = load_config(ROOT / "config.yaml")
    with TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("scratch", "old"):
            (place / name).mkdir()
        service = Service(
            place / "service", slack, lease_s=shipped.lease_s, retry_after_s=shipped.retry_after_s,
            watch={"roots": [str(place / "in")], "settle_s": 2},
        )  # fmt: skip
        bright = Telescope(place / "in", place / "scratch", nchans=NCHANS, every=1)
        quiet = Telescope(place / "session", place / "old", every=0)
        quiet.land(backlog)
        bright.landed = backlog  # targets of its own, and newer
        try:
            service.run("up")
            done(service)
            for name in ("idle", "loaded"):
                if name == "loaded":
                    quiet.root.rename(bright.root / "session")
                found = live(service, bright, count)
                left = bright.landed - len(done(service)) if name == "loaded" else 0
                for stage, taken in found.items():
                    percentiles = "  ".join(f"p{q} {np.percentile(taken, q):5.1f} s" for q in (50, 95, 99))
                    print(f"{name:8}{stage:24}{percentiles}  of {count}; {left} of the backlog left")
        finally:
            service.run("down", check=False)
            slack.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
