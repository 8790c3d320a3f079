"""Measure whether a distance from the training signals ranks signals of shapes that no training had above usual ones.

Run from the repository root: `python -P benchmarks/strangeness.py RELEASE [PATCHES [SEED]]`. PATCHES (default 40) hold
half usual signals, drawn as for a training, and half of the shapes in `SHAPES`, all of SNR 8 to 60 and without
interference. A line counts that passes the gates and the threshold of RELEASE. As many other patches of usual signals
give the distribution of measurements of usual signals.

Printed is for each shape the probability that one of its signals is ranked above a usual one (AUC; 0.5 is chance), with
the standard error of Hanley and McNeil 1982 (doi:10.1148/radiology.143.1.7063747), by: the column `strangeness`; the
distance of all measurements from those of usual signals, and of those of the shape alone; and 1 minus the probability
of a signal, by the forest of candidates and by that of kinds.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.stats import rankdata

from aetherscan.cadence.geometry import Geometry, geometry_of
from aetherscan.detector.detector import Detector, kind_probabilities, load_detector
from aetherscan.detector.release import MEASUREMENTS, SHAPE, SIGNAL
from aetherscan.search.bandpass import NormalizedBlock, normalize_block
from aetherscan.search.features import measurements
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.interference import log_uniform
from aetherscan.simulate.sky import Sky
from aetherscan.train.examples import followed, kind_of
from aetherscan.train.random_skies import ExampleSettings, draw_emitters, draw_power, patch_header

SETTINGS = ExampleSettings(tones=12, interference=0, signal_snr=(8.0, 60.0))
Draw = np.random.Generator
Rank = Callable[[NormalizedBlock, np.ndarray, Geometry], np.ndarray]
"""Returns for each track of a block a value that is high if it is strange."""


def _wandering(rng: Draw, tone: Emitter) -> list[Emitter]:
    return [replace(tone, wander_hz=rng.uniform(60, 300), wander_s=rng.uniform(300, 2000), drift_hz_s=0.0)]


def _broad(rng: Draw, tone: Emitter) -> list[Emitter]:
    return [replace(tone, width_hz=log_uniform(rng, 200, 2000))]


def _double(rng: Draw, tone: Emitter) -> list[Emitter]:
    apart = log_uniform(rng, 15, 200) * 1e-6
    return [tone, replace(tone, frequency_mhz=tone.frequency_mhz + apart)]


def _long_pulses(rng: Draw, tone: Emitter) -> list[Emitter]:
    return [replace(tone, period_s=rng.uniform(600, 1500), phase_s=rng.uniform(0, 1500))]


def _uneven(rng: Draw, tone: Emitter) -> list[Emitter]:
    return [replace(tone, snr=tuple(snr * log_uniform(rng, 0.4, 2.5) for snr in tone.snr))]


SHAPES: dict[str, Callable[[Draw, Emitter], list[Emitter]]] = {
    "wandering": _wandering, "200 to 2,000 Hz wide": _broad, "two lines": _double,
    "pulses of 10 to 25 min": _long_pulses, "ONs of unlike brightness": _uneven,
}  # fmt: skip


def lines_of(
    detector: Detector, seed: int, patches: int, *, odd: bool, others: Mapping[str, Rank] | None = None
) -> dict[str, np.ndarray]:
    """Return the name of the shape, the measurements and the ranks of each line that is a candidate."""
    cadence = geometry_of(Sky(header=patch_header(SETTINGS)).headers())
    shapes, measured = [], []
    ranks: dict[str, list[np.ndarray]] = {name: [] for name in others or {}}
    for number in range(patches):
        rng = np.random.default_rng([seed, odd, number])
        emitters, _ = draw_emitters(rng, SETTINGS)
        for i, tone in enumerate(emitters[::2] if odd else ()):
            name = list(SHAPES)[(number + i) % len(SHAPES)]
            changed = [replace(each, kind=name) for each in SHAPES[name](rng, replace(tone, period_s=0))]
            emitters[2 * i : 2 * i + 1] = changed[:1]
            emitters += changed[1:]
        block = normalize_block(draw_power(rng, emitters, SETTINGS), cadence)
        tracks, rejections = followed(block, cadence, SETTINGS)
        for track in tracks[rejections == ""]:
            shapes.append(kind_of(track, emitters, cadence))
            measured.append(measurements(track[None], cadence)[0])
        for name in ranks if (rejections == "").any() else ():
            ranks[name].append((others or {})[name](block, tracks[rejections == ""], cadence))
    table = np.stack(measured)
    probability = detector.score(detector.encode_snippets([]), table)
    kept = (probability >= detector.threshold) & (np.array(shapes) != "")
    return {
        "shape": np.array(shapes)[kept], "measured": table[kept], "probability": probability[kept],
        "strangeness": detector.strangeness(table)[kept],
        **{name: np.concatenate(rank)[kept] for name, rank in ranks.items()},
    }  # fmt: skip


def distance(table: np.ndarray, usual: np.ndarray, columns: tuple[str, ...]) -> np.ndarray:
    """Return Mahalanobis' distance of rows from usual ones, after the logarithm of each column."""
    chosen = [MEASUREMENTS.index(name) for name in columns]
    far, near = (np.arcsinh(some[:, chosen].astype(np.float64) * 10) for some in (table, usual))
    covariance = np.cov(near, rowvar=False) + 1e-3 * np.diag(near.var(axis=0) + 1e-6)
    away = far - near.mean(axis=0)
    return np.sqrt(np.einsum("ij,jk,ik->i", away, np.linalg.inv(covariance), away) / len(chosen))


def auc(odd: np.ndarray, usual: np.ndarray) -> tuple[float, float]:
    """Return the probability that an odd signal is ranked above a usual one, and its standard error."""
    ranks = rankdata(np.concatenate([odd, usual]))[: len(odd)]
    area = float((ranks.sum() - len(odd) * (len(odd) + 1) / 2) / (len(odd) * len(usual)))
    one, both = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (len(odd) - 1) * (one - area**2) + (len(usual) - 1) * (both - area**2)
    return area, float(np.sqrt(max(spread, 0) / (len(odd) * len(usual))))


def main(folder: str, patches: str = "40", seed: str = "1") -> None:
    compare(load_detector(Path(folder)), int(patches), int(seed), {})


def compare(detector: Detector, patches: int, seed: int, others: Mapping[str, Rank]) -> None:
    """Print how well each distance ranks signals of unusual shapes above usual ones, with some more ranks."""
    usual = lines_of(detector, seed, patches, odd=False)["measured"]
    lines = lines_of(detector, seed, patches, odd=True, others=others)
    table = lines["measured"]
    ranks = {
        "strangeness": lines["strangeness"],
        "measurements": distance(table, usual, MEASUREMENTS),
        "shape": distance(table, usual, SHAPE),
        "1 - p": 1 - lines["probability"],
    }
    if detector.release.kinds:
        shares = detector.kind_forest.predict_proba(table)
        of_signal = detector.release.kinds.names.index(SIGNAL)
        ranks["1 - p(kind)"] = 1 - kind_probabilities(shares, detector.release.kinds.power)[:, of_signal]
    ranks |= {name: lines[name] for name in others}
    tones = lines["shape"] == "tone"
    print(f"{int(tones.sum())} usual signals, {int((~tones).sum())} of other shapes, seed {seed}")
    print(f"| shape | signals | {' | '.join(ranks)} |\n|---|---|{'---|' * len(ranks)}")
    for name in [*SHAPES, "all"]:
        odd = ~tones if name == "all" else lines["shape"] == name
        cells = (auc(rank[odd], rank[tones]) for rank in ranks.values()) if odd.any() else ()
        print(f"| {name} | {int(odd.sum())} | {' | '.join(f'{area:.2f} ± {error:.2f}' for area, error in cells)} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
