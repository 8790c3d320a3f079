"""Measure the cost of a search of a simulated cadence, each figure beside a reference in the same run.

Run from the repository root: `python benchmarks/searching.py [CHANNELS]` (default 2**23: 23 MHz, 3.2 GB of float32).
The sky holds 15 interferers per MHz, real filter shapes and bursts. Files stay in the page cache, as they do while they
land. Figures are medians of `ROUNDS`; "GB" is float32 after decoding. Searches on one thread are compared by their CPU
time, on which other work on the machine has little influence. turboSETI is timed if its command is installed; it is not
a dependency of Sentinel. Its start is left out: its rate is that of the coarse channels that the larger of two files
has more than the smaller.
"""

import json
import multiprocessing
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from aetherscan.detector.detector import load_detector
from aetherscan.header import gbt_header
from aetherscan.io import open_cadence, open_observation
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence
from aetherscan.simulate.interference import zoo
from aetherscan.simulate.sky import Sky, random_levels, write_cadence
from sentinel.config import load_config

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 3
COARSE = 2**20
L_BAND_GB, OBSERVED_S = 6 * 318e6 * 16 * 4 / 1e9, 1800
"""Size of a full L-band cadence, and the duration of its observation."""


def sky(folder: Path, nchans: int) -> list[Path]:
    rng, header = np.random.default_rng(1), gbt_header(nchans)
    gains, bursts = random_levels(rng)
    folder.mkdir()
    return list(write_cadence(folder, Sky(header=header, emitters=zoo(rng, header), gains=gains, bursts=bursts), 1))


def search(paths: list[Path], mode: str = "tracks", threads: int = 1) -> dict[str, Any]:
    """Search in this process, once to warm up and then `ROUNDS` times; return the costs."""
    detector, took = load_detector(load_config(ROOT / "config.yaml").release), []
    for _ in range(ROUNDS + 1):
        with open_cadence(paths) as observations:
            began = time.perf_counter(), time.process_time()
            found = search_cadence(observations, detector, SearchSettings(mode=mode, threads=threads))
            took.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    seconds, cpu_s = map(statistics.median, zip(*took[1:], strict=True))
    rss, gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, found.bytes_read / 1e9
    return {"cpu_s": cpu_s, "gb_s": gb / seconds, "gb_cpu_s": gb / cpu_s, "rss": rss, "stage_s": found.stage_s}


def decode(paths: list[Path]) -> dict[str, Any]:
    """Read the files a coarse channel at a time into one buffer; return the rate."""
    took, size = [], 0
    for _ in range(ROUNDS + 1):
        began, size = time.perf_counter(), 0
        for path in paths:
            with open_observation(path) as observation:
                power = np.empty((observation.header.ntime, COARSE), np.float32)
                for start in range(0, observation.header.nchans, COARSE):
                    observation.read(start, start + COARSE, power)
                    size += power.nbytes
        took.append(time.perf_counter() - began)
    return {"gb_s": size / statistics.median(took[1:]) / 1e9}


def at_once(work: Callable[..., dict[str, Any]], each: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Run the work in a fresh process for each tuple of arguments, all at once."""
    with multiprocessing.get_context("spawn").Pool(len(each), maxtasksperchild=1) as pool:
        return pool.starmap(work, each, chunksize=1)


def turbo_seti(smaller: Path, larger: Path, folder: Path) -> float | None:
    """Return GB per CPU second of turboSETI's FindDoppler with drifts to 4 Hz/s and SNR 10; None if it is missing."""
    if not (command := shutil.which("turboSETI")):
        return None
    took = []
    for path in (smaller, larger):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([command, "-M", "4", "-s", "10", "-o", str(folder), str(path)], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return (path_gb(larger) - path_gb(smaller)) / (took[1] - took[0])


def path_gb(path: Path) -> float:
    with open_observation(path) as observation:
        return observation.header.nchans * observation.header.ntime * 4 / 1e9


def wall(*command: str) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def main(nchans: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        small, tenth, whole = (
            sky(folder / name, n) for name, n in (("one", COARSE), ("tenth", nchans // 8), ("whole", nchans))
        )
        (one,) = at_once(search, [(whole,)])
        (part,) = at_once(search, [(tenth,)])
        windows = at_once(search, [(tenth, "windows"), (tenth, "windows")])
        pair = at_once(search, [(whole,), (whole,)])
        raw = at_once(decode, [(whole,), (whole,)])
        both, raw_both = sum(each["gb_s"] for each in pair), sum(each["gb_s"] for each in raw)
        windows_both = sum(each["gb_s"] for each in windows)
        turbo = turbo_seti(small[0], whole[0], folder)
        ready = "from pathlib import Path; import aetherscan.search.pipeline; "
        ready += "from aetherscan.detector.detector import load_detector; "
        ready += f"load_detector(Path({str(load_config(ROOT / 'config.yaml').release)!r}))"
        stages = {name: round(seconds / sum(one["stage_s"].values()), 2) for name, seconds in one["stage_s"].items()}
    nothing = f"{wall('-c', 'pass'):.2f} s"
    rows = [
        ("search, one thread, CPU time", f"{one['gb_cpu_s']:.2f} GB/s"),
        ("turboSETI, CPU time", f"{turbo:.4f} GB/s" if turbo else "not installed"),
        (f"{one['gb_cpu_s'] / turbo:.0f} x" if turbo else "-",),
        ("search, two processes", f"{both:.2f} GB/s"),
        ("raw decode, two processes", f"{raw_both:.2f} GB/s"),
        (f"{100 * both / raw_both:.0f}%",),
        ("L-band cadence, two processes, extrapolated", f"{L_BAND_GB / both:.0f} s"),
        ("its observation", f"{OBSERVED_S} s"),
        (f"{OBSERVED_S * both / L_BAND_GB:.0f} x",),
        ("the same, --mode windows", f"{L_BAND_GB / windows_both:.0f} s"),
        ("its observation", f"{OBSERVED_S} s"),
        (f"{OBSERVED_S * windows_both / L_BAND_GB:.0f} x",),
        (f"{nchans:,} channels, CPU time", f"{one['cpu_s']:.2f} s"),
        (f"8 x {nchans // 8:,}", f"{8 * part['cpu_s']:.2f} s"),
        (f"{one['cpu_s'] / part['cpu_s'] / 8:.2f} x",),
        (f"peak memory, {nchans:,} channels", f"{one['rss']:.2f} GiB"),
        (f"{nchans // 8:,} channels", f"{part['rss']:.2f} GiB"),
        (f"{one['rss'] / part['rss']:.2f} x",),
        ("worker start to ready, warm", f"{wall('-c', ready):.1f} s"),
        ("python -c pass", nothing),
        ("-",),
        ("sentinel.py --help", f"{wall('sentinel.py', '--help'):.2f} s"),
        ("python -c pass", nothing),
        ("-",),
    ]
    print("| what | ours | reference in the same run | its figure | ratio |\n|---|---|---|---|---|")
    for ours, reference, ratio in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        print(f"| {' | '.join((*ours, *reference, *ratio))} |")
    print(f"\nShare of the one-process search by stage: {json.dumps(stages)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2**23)
