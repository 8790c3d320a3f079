"""Compare the CPU time and memory of a search with those at another commit, on the same files and in turns.

Run from the repository root: `python benchmarks/against.py COMMIT [CHANNELS] [ROUNDS]` (default 2**22 channels: 1.6 GB
of float32, and 5 rounds); a folder with a checkout of the other commit serves, too. The sky is that of `searching.py`.
Every search is a process of its own with one thread, which searches once to compile and warm up and is measured while
it searches again. Other work on the machine changes CPU time far less than wall time. The result is a digest of
candidates, measurements, rejected lines and counts.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from searching import ROOT, sky

SEARCH = """
import hashlib, json, resource, sys
from pathlib import Path
from aetherscan.detector.detector import load_detector
from aetherscan.io import open_cadence
from aetherscan.options.search import SearchSettings
from aetherscan.search.pipeline import search_cadence
from sentinel.config import load_config

detector = load_detector(load_config(Path("config.yaml")).release)
for _ in range(2):
    with open_cadence(sys.argv[1:]) as observations:
        before = resource.getrusage(resource.RUSAGE_SELF)
        found = search_cadence(observations, detector, SearchSettings(threads=1))
        after = resource.getrusage(resource.RUSAGE_SELF)
told = found.candidates, found.measurements.tobytes(), found.rejected_mhz.tobytes(), sorted(found.counts.items())
print(json.dumps({
    "user": after.ru_utime - before.ru_utime,
    "system": after.ru_stime - before.ru_stime,
    "peak": after.ru_maxrss / 2**20,
    "result": hashlib.sha256(repr(told).encode()).hexdigest()[:12],
}))
"""


def search(checkout: Path, paths: list[Path]) -> dict[str, Any]:
    """Search in a process of its own with the code of a checkout; return its costs and the digest of its result."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-c", SEARCH, *map(str, paths)]
    done = subprocess.run(command, cwd=checkout, env=environment, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout))


def main(commit: str, nchans: int = 2**22, rounds: int = 5) -> None:
    with tempfile.TemporaryDirectory() as place:
        other = Path(commit).resolve()
        if not other.is_dir():
            other, git = Path(place) / "checkout", shutil.which("git") or "git"
            subprocess.run([git, "clone", "-q", "--shared", "--no-checkout", str(ROOT), str(other)], check=True)
            subprocess.run([git, "-C", str(other), "checkout", "-q", commit], check=True)
        paths = sky(Path(place) / "sky", nchans)
        pairs = [(search(other, paths), search(ROOT, paths)) for _ in range(rounds)]
    print(f"| {nchans:,} channels | at {commit} | here | ratio, median of {rounds} |\n|---|---|---|---|")
    for name, unit in (("user", "s"), ("system", "s"), ("peak", "GiB")):
        then, now = ([one[name] for one in side] for side in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in zip(then, now, strict=True))
        print(f"| {name} | {statistics.median(then):.2f} {unit} | {statistics.median(now):.2f} {unit} | {ratio:.2f} |")
    print(f"| result | {pairs[0][0]['result']} | {pairs[0][1]['result']} | |")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:4]))
