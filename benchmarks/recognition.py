"""Measure what recognizes an emitter of an earlier pointing: its frequency, drift rate, measurements or latents.

Run from the repository root: `python -P benchmarks/recognition.py RELEASE [NIGHTS [SEED [SCATTER_HZ [STILL]]]]`, by
default 24 nights. A night has eight pointings of 0.18 MHz at different targets. Half of its lines are of emitters that
come again: 60 per MHz, of the kinds of `simulate.interference`, each in 60% of the pointings with its own width, drift
rate, curvature, wander and pulse period, while SNR (8 to 300), phase and the beam that receives it change. Its
frequency scatters by SCATTER_HZ (default 200) from pointing to pointing, its drift rate by 0.02 Hz/s. With STILL, a
share from 0 (the default) to 1, so many of all emitters stand still: their drift rates scatter by 0.05 Hz/s around 0.
The other half are of emitters that are there once. Each emitter has one line in a pointing, the brightest that the
search follows, and that the gates let pass or an OFF vetoes.

A line is compared with all lines of the earlier pointings of its night that are within `REACH_HZ`. What says how
probably two lines are of one emitter is a random forest, fitted to the pairs of a third of the nights, that reads the
differences of what the first column of the table names; the frequency alone needs none. The best match counts. The
threshold is the one that 1 in 100 lines of new emitters exceeds in the second third of the nights. Printed are, for the
last third, the share of new emitters above it (false matches), and the share of lines of known emitters that are above
it with the right emitter (recognized), with 95% intervals.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.stats import binomtest
from sklearn.ensemble import RandomForestClassifier

from aetherscan.cadence.geometry import Geometry, geometry_of
from aetherscan.detector.detector import Detector, load_detector
from aetherscan.detector.release import MEASUREMENTS
from aetherscan.search.bandpass import NormalizedBlock, normalize_block
from aetherscan.search.cutouts import track_snippet
from aetherscan.search.features import measurements
from aetherscan.search.follow import DRIFT
from aetherscan.search.on_off import home_channels, on_snr
from aetherscan.simulate.injection import Emitter
from aetherscan.simulate.interference import log_uniform, random_interference
from aetherscan.simulate.sky import Sky
from aetherscan.train.examples import followed, kind_of
from aetherscan.train.random_skies import ExampleSettings, draw_power, patch_header
from aetherscan.train.report import on_and_off

SETTINGS = ExampleSettings()
POINTINGS, PER_MHZ, PRESENT, DRIFT_SCATTER, REACH_HZ = 8, 60.0, 0.6, 0.02, 2000.0
SHAPE = tuple(MEASUREMENTS.index(name) for name in ("width_hz", "curvature_hz_s2", "residual", "steady", "hit_to_on"))
FALSE = 0.01
TITLES = ("frequency", "+ drift", "+ drift + shape", "+ drift + latents", "+ drift + shape + latents")
VECTORS = ("latents", "network")
"""Descriptions whose distance is compared, beside the difference of each column."""
Describe = Callable[[NormalizedBlock, np.ndarray, Geometry], np.ndarray]
"""Describes some tracks of a block: returns a row of columns for each track."""


def drift(_: NormalizedBlock, tracks: np.ndarray, cadence: Geometry) -> np.ndarray:
    """Return the drift rate of each track, in Hz/s."""
    header = cadence.headers[0]
    return np.asarray(tracks[:, [DRIFT]] * header.foff * 1e6 / header.tsamp)


def shape(_: NormalizedBlock, tracks: np.ndarray, cadence: Geometry) -> np.ndarray:
    """Return the measurements of the shape of each track."""
    return np.asarray(np.arcsinh(10 * measurements(tracks, cadence)[:, SHAPE]))


def latents(detector: Detector) -> Describe:
    """Return what describes a track by its latents."""

    def describe(block: NormalizedBlock, tracks: np.ndarray, cadence: Geometry) -> np.ndarray:
        snippets = [track_snippet(block, track, cadence, detector.release.snippet) for track in tracks]
        return on_and_off(detector.encode_snippets(snippets))

    return describe


def seen(rng: np.random.Generator, emitter: Emitter, scatter_hz: float, number: int) -> Emitter:
    """Return an emitter as one pointing receives it; its `kind` is its number."""
    fresh = random_interference(rng, emitter.frequency_mhz, log_uniform(rng, 8, 300), emitter.kind)
    if rng.random() < 0.3:  # in a side lobe
        fresh = random_interference(rng, emitter.frequency_mhz, log_uniform(rng, 8, 60), "side_lobe")
    return replace(
        emitter, snr=fresh.snr, phase_s=fresh.phase_s, kind=str(number),
        frequency_mhz=emitter.frequency_mhz + rng.normal(0, scatter_hz) * 1e-6,
        drift_hz_s=emitter.drift_hz_s + rng.normal(0, DRIFT_SCATTER),
    )  # fmt: skip


def night(
    described: Mapping[str, Describe], seed: int, number: int, scatter_hz: float, still: float
) -> Iterator[dict[str, np.ndarray]]:
    """Yield for each pointing its lines: emitter, frequency in Hz, and what each description gives."""
    rng, header = np.random.default_rng([seed, number]), patch_header(SETTINGS)
    cadence = geometry_of(Sky(header=header).headers())
    low, high = header.band_mhz

    def emitter() -> Emitter:
        drawn = random_interference(rng, rng.uniform(low + 0.01, high - 0.01), 20.0)
        return replace(drawn, drift_hz_s=rng.normal(0, 0.05)) if rng.random() < still else drawn

    lasting = [emitter() for _ in range(max(1, rng.poisson(PER_MHZ * (high - low))))]
    once = 1000
    for _ in range(POINTINGS):
        here = [seen(rng, each, scatter_hz, i) for i, each in enumerate(lasting) if rng.random() < PRESENT]
        for _ in range(len(here)):
            here.append(seen(rng, emitter(), scatter_hz, once))
            once += 1
        block = normalize_block(draw_power(rng, here, SETTINGS), cadence)
        tracks, rejections = followed(block, cadence, SETTINGS)
        tracks = tracks[np.isin(rejections, ["", "in_an_off"])]
        tracks = tracks[np.argsort(-on_snr(tracks, cadence), kind="stable")]
        names = np.array([kind_of(track, here, cadence) or "-1" for track in tracks], dtype=int)
        first = np.sort(np.unique(names, return_index=True)[1])
        first = first[names[first] >= 0]
        yield {
            "emitter": names[first], "hz": cadence.mhz(home_channels(tracks[first], cadence)) * 1e6,
            **{name: describe(block, tracks[first], cadence) for name, describe in described.items()},
        }  # fmt: skip


def pairs(pointings: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the differences of each line from those before it within reach: columns, and who is compared with whom."""
    widths = {name: pointings[0][name].shape[1] for name in pointings[0] if name not in ("emitter", "hz")}
    rows: dict[str, list[object]] = {name: [] for name in ("line", "known", "same", "hz", *widths)}
    line = 0
    for at, pointing in enumerate(pointings):
        for i, emitter in enumerate(pointing["emitter"]):
            earlier = [(other, j) for other in pointings[:at] for j in range(len(other["emitter"]))]
            known = any(other["emitter"][j] == emitter for other, j in earlier)
            line += 1
            rows["line"].append(line)  # a row without a match, so that a line without neighbours counts, too
            rows["known"].append(known)
            rows["same"].append(False)
            rows["hz"].append(np.inf)
            for name, width in widths.items():
                rows[name].append(np.full(width + (name in VECTORS), 99.0))
            for other, j in earlier:
                if (apart := abs(other["hz"][j] - pointing["hz"][i])) > REACH_HZ:
                    continue
                rows["line"].append(line)
                rows["known"].append(known)
                rows["same"].append(other["emitter"][j] == emitter)
                rows["hz"].append(apart)
                for name in widths:
                    away = np.abs(other[name][j] - pointing[name][i])
                    rows[name].append([np.sqrt((away**2).sum()), *away] if name in VECTORS else away)
    return {name: np.array(values) for name, values in rows.items()}


def join(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate pairs of several nights, with different numbers of lines."""
    for before, after in pairwise(parts):
        after["line"] = after["line"] + before["line"].max()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def best(table: dict[str, np.ndarray], score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return for each line its highest score, whether that match is right, and whether its emitter is known."""
    order = np.lexsort((-score, table["line"]))
    top = order[np.unique(table["line"][order], return_index=True)[1]]
    return score[top], table["same"][top], table["known"][top]


def main(folder: str, nights: str = "24", seed: str = "1", scatter_hz: str = "200", still: str = "0") -> None:
    described = {"drift": drift, "shape": shape, "latents": latents(load_detector(Path(folder)))}
    compare(described, TITLES, int(nights), int(seed), float(scatter_hz), float(still))


def compare(
    described: Mapping[str, Describe], titles: Sequence[str], nights: int, seed: int, scatter_hz: float, still: float
) -> None:
    """Print what recognizes an emitter: a row for each title, which names what is compared beside the frequency."""
    found = []
    for number in range(nights):
        found.append(pairs(list(night(described, seed, number, scatter_hz, still))))
        print(f"night {number + 1} of {nights}", file=sys.stderr, flush=True)
    fit, limit, judge = (join(found[k::3]) for k in range(3))
    print(f"{nights} nights, seed {seed}, frequencies scatter by {scatter_hz:g} Hz, {still:.0%} stand still")
    print("| compared | false matches | recognized | 95% interval |\n|---|---|---|---|")
    for title in titles:
        parts = [part.strip() for part in title.split("+")[1:]]
        scores = [-table["hz"] for table in (limit, judge)]
        if parts:
            columns = [
                np.column_stack([np.minimum(table["hz"], 1e5), *(table[part] for part in parts)])
                for table in (fit, limit, judge)
            ]
            forest = RandomForestClassifier(200, min_samples_leaf=5, random_state=1, n_jobs=1)
            forest.fit(columns[0], fit["same"])
            scores = [forest.predict_proba(each)[:, 1] for each in columns[1:]]
        top, _, known = best(limit, scores[0])
        threshold = np.quantile(top[~known], 1 - FALSE, method="higher")
        top, same, known = best(judge, scores[1])
        above = top > threshold
        right = int((above & same)[known].sum())
        low, high = binomtest(right, int(known.sum())).proportion_ci()
        false = f"{int(above[~known].sum())} of {int((~known).sum())}"
        print(
            f"| {title} | {false} | {right} of {int(known.sum())} ({right / known.sum():.2f}) | {low:.2f}-{high:.2f} |"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
