"""Land cadences for a real service, idle and over a backlog, and print how long after the last byte each step comes.

Run from the repository root: `python benchmarks/latency.py [BACKLOG [LIVE]]`, by default 600 cadences that land at once
and 20 live ones, one every five seconds, before them and again beside them. `up` starts every program as shipped, with
its own workers and release and a Slack on loopback; only how long a file must stand still is shortened, which comes
before what is counted here, and Slack's limits are lifted. A live cadence is six files of 2^18 channels, 16 rows, with
a tone, so that each is announced; the backlog's are of 4,096 channels and hold none.
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
SHOWN = ("stable_to_recorded", "recorded_to_announced", "stable_to_announced")


def live(service: Service, telescope: Telescope, count: int) -> dict[str, np.ndarray]:
    """Land so many cadences one after the other; return the seconds each of them took, once all are announced."""
    names = set()
    for _ in range(count):
        telescope.land(1)
        names.add(f"T{telescope.landed}")
        time.sleep(EVERY_S)

    def announced() -> dict[str, np.ndarray]:
        with service.store.read() as rows:
            mine = [seconds for target, *seconds in newest(rows, cadence.c.target) if target in names]
        taken = dict(zip(STAGES, zip(*mine, strict=True), strict=False))
        whole = len(mine) == count and None not in taken["stable_to_announced"]
        return {name: np.array(taken[name]) for name in SHOWN} if whole else {}

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
                    told = "  ".join(f"p{q} {np.percentile(taken, q):5.1f} s" for q in (50, 95, 99))
                    print(f"{name:8}{stage:24}{told}  of {count}; {left} of the backlog left")
        finally:
            service.run("down", check=False)
            slack.close()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
