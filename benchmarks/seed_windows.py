"""Score windows from Aetherscan's own generator, and print recall at 1% and 0.01% false positives.

Run from the repository root: `python benchmarks/seed_windows.py [FALSE [LEARNED [RELEASE]]]`, by default 30,000 windows
without a signal and 15,000 with one for testing, 12,000 for training, and models/equinox. Aetherscan 1.2.0 is
installed without its dependencies into a temporary folder and runs in a process of its own, because our library has the
same name. Its defaults are kept: SNR 1-100 over six scans without pauses, signals drawn at 2.8 Hz per channel into
backgrounds binned by eight. Half of the windows without a signal hold a line in all six scans, and half of those with
one.

Backgrounds are noise, or noise and our interference at 15 emitters per MHz, both with filter shape, gains and bursts.
Two windows of a kind share a background, so that one false alarm does not count many times. The score of a window is
that of `search --test-files`: of its most probable line, by the released forest and by a forest fitted on further
windows. The last lines print the limit that noise sets: the recall of a matched filter that knows each signal's width
and adds up the ONs, on one line or on a number of lines that may hold the signal.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.stats import norm

from aetherscan.cadence.geometry import Geometry
from aetherscan.detector.detector import Detector, forest_features, load_detector
from aetherscan.detector.saved_forest import tree_share
from aetherscan.search.stamps import stamp_geometries, stamp_lines
from aetherscan.train.random_forest import fit_forest
from aetherscan.train.random_skies import ExampleSettings, draw_emitters, draw_power

PACKAGE = "aetherscan==1.2.0"
ROWS, BINS, BINNING, HZ = 16, 512, 8, 2.7939677238464355
GIVEN = {"snr_base": 1, "snr_range": 99, "width_bin": BINS, "freq_resolution": HZ, "time_resolution": 18.25361108}
KINDS = {
    "quiet": ("create_false", {"inject": False}),
    "line": ("create_false", {"inject": True}),
    "signal": ("create_true_single", {}),
    "both": ("create_true_double", {"dynamic_range": 1.0}),
}
TRUE, FALSE = ("signal", "both"), ("quiet", "line")
BATCH, SHARED = 1000, 2
RATES, EDGES = (1e-2, 1e-4), (1, 2, 4, 6, 10, 20, 100)
LINES = (1, 512, 50_000)
"""Lines that the matched filter searches: the true one, one from each bin, or as many as the generator draws from."""
GAUSSIAN = 0.7527
"""Sum over channels of the square of a Gaussian of height 1, in its widths at half height."""
Draw = Callable[[int, str, np.ndarray, int], tuple[np.ndarray, np.ndarray]]
"""Takes seed, kind, backgrounds and count; returns windows, and the SNR and width of their signals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The lines that the search found in windows of one kind."""

    features: np.ndarray  # a row per line
    window: np.ndarray  # index of the window of each line
    signals: np.ndarray  # SNR (in the generator's definition) and width in Hz of each window's signal


@contextmanager
def seeds_generator(place: Path) -> Iterator[Draw]:
    """Install Aetherscan into a folder and start its generator."""
    library = place / "library"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "-t", library, PACKAGE], check=True)
    names = {name: str(place / f"{name}.npy") for name in ("plates", "windows", "signals")}

    def draw(seed: int, kind: str, plates: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        np.save(names["plates"], plates)
        function, more = KINDS[kind]
        asked = {"seed": seed, "function": function, "given": GIVEN | more, "count": count, **names}
        print(json.dumps(asked), file=running.stdin, flush=True)
        while (reply := running.stdout.readline()) != "drawn\n":
            assert reply, "expected windows, found that Aetherscan's generator has ended"
        return np.load(names["windows"]), np.load(names["signals"])

    with (
        (place / "log").open("w") as log,
        subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("draw_seeds_windows.py"))],
            env=os.environ | {"PYTHONPATH": str(library)}, cwd=place, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        ) as running,
    ):  # fmt: skip
        yield draw
        running.stdin.close()


def draw_plates(rng: np.random.Generator, sky: str, count: int) -> np.ndarray:
    """Return `count` backgrounds, binned by eight: (count, 6, 16, 512)."""
    settings = ExampleSettings(tones=0, interference=3 if sky == "zoo" else 0)
    each, cut = settings.chans // (BINS * BINNING), []
    for _ in range(-(-count // each)):
        power = draw_power(rng, draw_emitters(rng, settings)[1], settings)
        cut.append(power.reshape(6, ROWS, each, BINS, BINNING).sum(axis=-1).transpose(2, 0, 1, 3))
    return np.concatenate(cut)[:count]


def read_window(window: np.ndarray, timings: Sequence[Geometry], detector: Detector) -> np.ndarray:
    """Return the features of each line in a window."""
    snippets, measurements = stamp_lines(window, timings, detector.release.snippet)
    return forest_features(["mean"], detector.encode_snippets(snippets), measurements)


def find(draw: Draw, detector: Detector, sky: str, stream: int, counts: dict[str, int]) -> dict[str, Found]:
    """Return the lines found in windows of each kind; a thousand are searched while the next are drawn."""
    found, timings = {}, stamp_geometries((ROWS, BINS), BINS)
    batches = {kind: range(0, count, BATCH) for kind, count in counts.items()}

    def batch(kind: str, first: int) -> tuple[np.ndarray, np.ndarray]:
        seed, size = [stream, list(KINDS).index(kind), first], min(BATCH, counts[kind] - first)
        plates = draw_plates(np.random.default_rng(seed), sky, -(-size // SHARED))
        return draw(int(np.random.SeedSequence(seed).generate_state(1)[0]), kind, plates, size)

    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [(kind, first) for kind, firsts in batches.items() for first in firsts]
        coming = [ahead.submit(batch, *jobs[0])]
        for kind, firsts in batches.items():
            features, window, signals = [], [], []
            for first in firsts:
                windows, drawn_signals = coming.pop().result()
                coming += [ahead.submit(batch, *job) for job in jobs[jobs.index((kind, first)) + 1 :][:1]]
                rows = list(pool.map(lambda drawn: read_window(drawn, timings, detector), windows))
                features += rows
                window += [first + i for i, of in enumerate(rows) for _ in of]
                signals.append(drawn_signals)
            found[kind] = Found(
                features=np.concatenate(features), window=np.array(window, int), signals=np.concatenate(signals)
            )
    return found


def main(false: int = 30_000, learned: int = 12_000, release: str = "models/equinox") -> None:
    detector = load_detector(Path(__file__).resolve().parents[1] / release)
    with TemporaryDirectory() as folder, seeds_generator(Path(folder)) as draw:
        for sky in ("noise", "zoo"):
            known = find(draw, detector, sky, 1, dict.fromkeys(KINDS, learned // 4))
            labels = [np.full(len(of.features), kind in TRUE, np.float32) for kind, of in known.items()]
            fitted = fit_forest(np.concatenate([of.features for of in known.values()]), np.concatenate(labels), 1, 500)
            shares = {kind: false // 2 if kind in FALSE else false // 4 for kind in KINDS}
            unseen = find(draw, detector, sky, 2, shares)
            print(f"\nplates of {sky}: {false:,} windows without a signal, {false // 2:,} with one")
            report(detector.release.name, detector.forests["tracks"], unseen)
            report(f"fitted on {learned:,} such windows", fitted, unseen)
            for rate in RATES:
                best = (f"{ideal(signals(unseen)[1], rate, lines):.4f} along {lines:,}" for lines in LINES)
                print(f"a matched filter that knows the width, {100 * rate:g}% false: {', '.join(best)}")


def report(name: str, forest: object, unseen: dict[str, Found]) -> None:
    """Print recall at each rate: of all, by the generator's SNR, and above a matched filter's SNR in one ON."""
    scores = {}
    for kind, of in unseen.items():
        scores[kind] = np.zeros(len(of.signals))
        np.maximum.at(scores[kind], of.window, tree_share(forest, of.features))
    quiet, bright = (np.concatenate([scores[kind] for kind in kinds]) for kinds in (FALSE, TRUE))
    snrs, in_an_on = signals(unseen)
    for rate in RATES:
        passed = bright > np.quantile(quiet, 1 - rate)
        by = (f"{low}-{high} {passed[(low <= snrs) & (snrs < high)].mean():.3f}" for low, high in pairwise(EDGES))
        seen = (f"{least}: {passed[in_an_on >= least].mean():.4f}" for least in (3, 5, 10))
        print(f"{name}, {100 * rate:g}% false: {passed.mean():.4f}; by SNR {', '.join(by)}; in an ON {', '.join(seen)}")


def ideal(in_an_on: np.ndarray, rate: float, lines: int) -> float:
    """Return the recall of a matched filter on the sum of three ONs in Gaussian noise, over a number of lines."""
    least = norm.isf(-np.expm1(np.log1p(-rate) / lines))
    return float(norm.cdf(3**0.5 * in_an_on - least).mean())


def signals(unseen: dict[str, Found]) -> tuple[np.ndarray, np.ndarray]:
    """Return the SNR of each signal in the generator's definition, and the matched filter's in one ON."""
    snrs, widths = np.concatenate([unseen[kind].signals for kind in TRUE]).T
    return snrs, snrs / np.sqrt(6 * ROWS) * np.sqrt(ROWS * GAUSSIAN * np.maximum(widths / HZ, 1))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:])
