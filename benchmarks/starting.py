"""Measure what a person waits for before the work begins: help, a search, a service that starts and stops.

Run from the repository root: `python benchmarks/starting.py [REPEATS]`. Everything ran once before, so kernels are
compiled and files are in the page cache; only a first start compiles them, once. The reference is a Python that imports
the libraries that a search cannot do without. A search is of six files of 2^20 channels with a tone; its own work is
the sum of the stages in `run.json`, and the rest of its time is its start. Seconds are the smallest of some repeats,
with CPU seconds beside them: other work on the machine changes the former only.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import yaml

from aetherscan.header import gbt_header
from aetherscan.simulate.interference import random_signal
from aetherscan.simulate.sky import Sky, write_cadence
from sentinel.config import ROOT

NCHANS = 2**20
COMMAND = (sys.executable, "-P", "-m", "sentinel.cli")
BARE = "import h5py, numba, numpy, onnxruntime, scipy.special"


@contextmanager
def service(place: Path) -> Iterator[Callable[..., None]]:
    """Yield a function that runs a command with a state folder of its own; stop the service in the end."""
    (place / "incoming").mkdir()
    settings = {"watch": {"roots": ["incoming"]}, "web": {"port": 0}, "injections": {"canary_s": 0}}
    (place / "config.yaml").write_text(yaml.safe_dump({**settings, "release": str(ROOT / "models" / "equinox")}))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SENTINEL")}
    environment = {**clean, "SENTINEL_CONFIG": str(place / "config.yaml"), "PYTHONPATH": str(ROOT)}

    def run(*arguments: str, **changed: str) -> None:
        command = [*COMMAND, *arguments]
        subprocess.run(command, env=environment | changed, cwd=place, stdout=subprocess.DEVNULL, check=True)

    try:
        yield run
    finally:
        run("down")


def seconds(does: Callable[[], object], repeats: int, uncounted: int = 1) -> tuple[float, float]:
    """Return the smallest wall and CPU times of some runs, after those that are not counted."""
    for _ in range(uncounted):
        does()
    taken = []
    for _ in range(repeats):
        began, before = time.perf_counter(), os.times()
        does()
        after = os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        taken.append((time.perf_counter() - began, cpu))
    return min(wall for wall, _ in taken), min(cpu for _, cpu in taken)


def main(repeats: int = 3) -> None:
    rows: dict[str, tuple[float, float]] = {}
    with TemporaryDirectory() as folder, service(Path(folder)) as run:
        header, sky = gbt_header(NCHANS), Path(folder) / "sky"
        sky.mkdir()
        tone = random_signal(np.random.default_rng(1), header.frequency(NCHANS // 2), 40.0, 0.5)
        files = map(str, write_cadence(sky, Sky(header=header, emitters=(tone,)), seed=1))
        search = ("search", *files, "--output", "found")
        bare = (sys.executable, "-c", BARE)
        rows["reference: import of the libraries"] = seconds(lambda: subprocess.run(bare, check=True), repeats)
        rows["--help"] = seconds(lambda: run("--help"), repeats)
        first = {"NUMBA_CACHE_DIR": f"{folder}/compiled"}
        rows["search of one cadence, first start"] = seconds(lambda: run(*search, **first), 1, 0)
        rows["search of one cadence"] = seconds(lambda: run(*search), repeats)
        report = json.loads((Path(folder) / "found" / "run.json").read_text())
        assert report["cadences"][0]["candidates"] == 1
        work = sum(report["cadences"][0]["stage_s"].values())
        first["NUMBA_CACHE_DIR"] += "-by-a-worker"
        first_up, _ = seconds(lambda: run("up", **first), 1, 0)
        run("down")
        run("up")
        run("down")
        began = time.perf_counter()
        run("up")
        up = time.perf_counter() - began
        run("down")
        down = time.perf_counter() - began - up
    for what, (wall, cpu) in rows.items():
        print(f"{what:<40} {wall:6.2f} s {cpu:6.2f} s of CPU")
    print(f"{'  of which the stages of the search':<40} {work:6.2f} s")
    for what, wall in {"up, first start": first_up, "up, until a worker is ready": up, "down": down}.items():
        print(f"{what:<40} {wall:6.2f} s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
