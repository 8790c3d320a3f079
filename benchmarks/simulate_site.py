"""Simulate the 64 nodes of Green Bank and some workers: when a cadence is recorded, where a site saturates.

Run from the repository root: `python benchmarks/simulate_site.py [RUN.json | GB_S]`. The speed of a worker of two
threads is that of a recorded search: its stage times and bytes in a `run.json`, which `sentinel.py search` writes. A
number is taken as it is, in GB/s of float32; without an argument, a cadence of 2^22 channels is searched first. Events
are simulated, not processes: files land, a free worker takes the oldest cadence, workers share the network and the
disks of the nodes, workers die and their cadences return when the lease ends. Between events all rates are constant.

The site: each node records 187.5 MHz in channels of 2.79 Hz and 16 rows of float32 for each of six scans, 341 s apart
(Lebofsky et al. 2019, arXiv:1906.07391). bitshuffle leaves 73% of the bytes. Nodes finish their cadences at one time.
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from aetherscan.detector.detector import load_detector
from aetherscan.header import gbt_header
from aetherscan.io import open_cadence
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.interference import zoo
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.config import ROOT

NODES, CHANNELS, ROWS, SCANS, STEP_S, PACKED = 64, 64 * 2**20, 16, 6, 341.0, 0.73
CADENCE_GB = SCANS * ROWS * CHANNELS * 4 / 1e9
CADENCE_S = SCANS * STEP_S
SESSION = 12
"""Cadences in a session of seven hours."""
TEN_GIGABIT, DISK_GB_S = 1.25, 1.0
LEASE_S, RESTART_S = 120.0, 60.0
THREADS = 2
"""Of a worker; stage times are summed over threads."""
WORKERS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What is bought: workers, and what they read through. Rates in GB/s of stored bytes, except `worker`."""

    workers: int
    worker: float  # GB/s of float32 that one worker searches, when nothing else is slower
    link: float = TEN_GIGABIT
    disk: float = DISK_GB_S
    life_s: float = inf


@dataclass(slots=True, kw_only=True)
class Job:
    """The cadence of one node."""

    node: int
    landed: float
    left_gb: float = CADENCE_GB
    dies: float = inf


def simulate(site: Site, nodes: int, seed: int = 1) -> tuple[np.ndarray, float]:
    """Return the delays from landing to record in seconds, and the share of time that the workers were busy."""
    rng = np.random.default_rng(seed)
    coming = [
        (CADENCE_S * (k + 1), Job(node=n, landed=CADENCE_S * (k + 1))) for k in range(SESSION) for n in range(nodes)
    ]
    coming.sort(key=lambda event: event[0], reverse=True)
    waiting: list[Job] = []
    active: list[Job] = []
    away: list[float] = []  # when dead workers are back
    now, busy, delays = 0.0, 0.0, []
    while coming or waiting or active:
        while waiting and len(active) + len(away) < site.workers:
            job = waiting.pop(0)
            job.dies = now + rng.exponential(site.life_s) if site.life_s < inf else inf
            active.append(job)
        on_disk = Counter(job.node for job in active)
        share = site.link / max(1, len(active))
        rates = [min(site.worker, min(share, site.disk / on_disk[job.node]) / PACKED) for job in active]
        ends = [now + job.left_gb / rate for job, rate in zip(active, rates, strict=True)]
        after = min([*ends, *(job.dies for job in active), *away, *(when for when, _ in coming[-1:])])
        for job, rate in zip(active, rates, strict=True):
            job.left_gb -= rate * (after - now)
        busy += len(active) * (after - now)
        now = after
        done = [job for job, end in zip(active, ends, strict=True) if end <= now]
        delays += [now - job.landed for job in done]
        dead = [job for job in active if job.dies <= now and job not in done]
        coming += [(now + LEASE_S, Job(node=job.node, landed=job.landed)) for job in dead]
        coming.sort(key=lambda event: event[0], reverse=True)
        away = [when for when in away if when > now] + [now + RESTART_S] * len(dead)
        active = [job for job in active if job not in done and job not in dead]
        while coming and coming[-1][0] <= now:
            waiting.append(coming.pop()[1])
        waiting.sort(key=lambda job: job.landed)
    return np.array(delays), busy / (site.workers * now)


def recorded_speed(given: str) -> float:
    """Return the GB/s of float32 of a worker: as given, from a recorded search, or from one that is made here."""
    if given.replace(".", "").isdigit():
        return float(given)
    if given:
        found = json.loads(Path(given).read_text())["cadences"]
        work_s = sum(sum(each["stage_s"].values()) for each in found)
        return float(THREADS * sum(each["bytes_read"] for each in found) / work_s / 1e9)
    header, rng = gbt_header(2**22), np.random.default_rng(1)
    with TemporaryDirectory() as folder:
        paths = write_cadence(Path(folder), Sky(header=header, emitters=tuple(zoo(rng, header))), seed=1)
        detector = load_detector(ROOT / "models" / "equinox")
        with open_cadence(paths) as observations:
            search_cadence(observations, detector)  # compiles
            made = search_cadence(observations, detector)
    return float(THREADS * made.bytes_read / sum(made.stage_s.values()) / 1e9)


def row(site: Site, nodes: int = NODES) -> str:
    """Return a line of the table: delays in minutes, and whether the site keeps up."""
    delays, busy = simulate(site, nodes)
    keeps_up = delays[-nodes:].max() < 1.5 * max(delays[:nodes].max(), CADENCE_S)
    p50, p95 = np.percentile(delays / 60, (50, 95))
    state = "keeps up" if keeps_up else "falls behind"
    return f"{p50:9.1f} {p95:9.1f} {delays.max() / 60:9.1f} {busy:7.0%}  {state}"


def main(given: str = "") -> None:
    speed = recorded_speed(given)
    each = CADENCE_GB / CADENCE_S
    recorded = f"a node records {each * 1e3:.0f} MB/s, {NODES} nodes {NODES * each:.2f} GB/s"
    print(f"{recorded}; a worker searches {speed:.2f} GB/s")
    print(f"{'minutes from the last byte to the record:':<44}{'p50':>9} {'p95':>9} {'most':>9} {'busy':>7}")
    for name, link in (("10 Gbit/s", TEN_GIGABIT), ("100 Gbit/s", 10 * TEN_GIGABIT)):
        for workers in WORKERS:
            print(f"{workers:3} workers on one host, {name:<20} {row(Site(workers=workers, worker=speed, link=link))}")
    own = Site(workers=NODES, worker=speed, link=inf)
    print(f"{NODES:3} workers, one on each node{'':<16} {row(own)}")
    for life in (3600.0, 600.0):
        mortal = replace(own, workers=8, link=10 * TEN_GIGABIT, life_s=life)
        print(f"  8 workers that live {life / 60:.0f} min on average{'':<8} {row(mortal)}")
    for workers in WORKERS:
        site = Site(workers=workers, worker=speed)
        limit = min(workers * speed, site.link / PACKED)
        bound = "network" if workers * speed > site.link / PACKED else "workers"
        print(f"{workers:3} workers, 10 Gbit/s: saturated by {limit / each:5.0f} nodes, limit: {bound}")


if __name__ == "__main__":
    main(*sys.argv[1:])
