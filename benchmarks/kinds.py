"""Measure how well latents and measurements name the kind of a followed line, on skies of their own.

Run from the repository root: `python benchmarks/kinds.py RELEASE [PATCHES]`. PATCHES simulated patches of band (default
120) are drawn for each of three sets, with independent random streams: forests of 300 trees are fitted to the first,
calibrated on the second by a power of their probabilities, and judged on the third. A line counts that passes the gates
or that only an OFF vetoes; its kind is that of the simulated emitter on which it lies. Printed are the share of lines
that are named rightly, its 95% interval, the calibration error (mean difference of probability and share over ten
ranges of probability), and the table of confusion of the best inputs.
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.stats import binomtest
from sklearn.ensemble import RandomForestClassifier

from aetherscan.cadence.geometry import geometry_of
from aetherscan.detector.detector import Latents, load_detector
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import normalize_block
from aetherscan.search.cutouts import UINT8_MAX, to_uint8, track_snippet
from aetherscan.search.features import measurements
from aetherscan.search.on_off import find_tracks
from aetherscan.simulate.sky import Sky
from aetherscan.train.examples import kind_of
from aetherscan.train.random_skies import ExampleSettings, draw_emitters, draw_power, patch_header
from aetherscan.train.streams import Stream, generator

SEED, TREES, PROCESSES, PATCHES_PER_TASK = 1, 300, 2, 10
SETS = (Stream.FOREST_FIT, Stream.FOREST_CALIBRATE, Stream.FOREST_MEASURE)
INPUTS = {"latents": (True, False), "measurements": (False, True), "both": (True, True)}
SHAPE = (16, 512)
Lines = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Snippets, measurements and kinds of followed lines."""


def lines_of(numbers: Sequence[int], stream: Stream) -> Lines:
    """Return the followed lines of some patches that lie on an emitter."""
    settings, parts = ExampleSettings(), []
    cadence = geometry_of(Sky(header=patch_header(settings)).headers())
    gates = SearchSettings(max_drift_hz_s=settings.max_drift_hz_s).gates
    for number in numbers:
        rng = generator(SEED, stream, number)
        signals, interference = draw_emitters(rng, settings)
        block = normalize_block(draw_power(rng, [*signals, *interference], settings), cadence)
        tracks, rejections, _ = find_tracks(block, cadence, gates)
        tracks = tracks[np.isin(rejections, ("", "in_an_off"))]
        kinds = np.array(
            [kind_of(track, [*signals, *interference], cadence) or "none" for track in tracks], dtype="U16"
        )
        snippets = to_uint8([track_snippet(block, track, cadence, SHAPE) for track in tracks], SHAPE)
        parts.append((snippets, measurements(tracks, cadence), kinds))
    snippets, measured, kinds = map(np.concatenate, zip(*parts, strict=True))
    named = kinds != "none"
    return snippets[named], measured[named], kinds[named]


def drawn(stream: Stream, patches: int) -> Lines:
    """Return the followed lines of many patches, drawn by several processes."""
    tasks = [range(first, min(patches, first + PATCHES_PER_TASK)) for first in range(0, patches, PATCHES_PER_TASK)]
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(partial(lines_of, stream=stream), tasks))
    snippets, measured, kinds = map(np.concatenate, zip(*parts, strict=True))
    return snippets, measured, kinds


def columns(latents: Latents, measured: np.ndarray, inputs: tuple[bool, bool]) -> np.ndarray:
    """Return the columns that a forest reads."""
    both = (latents.mean.reshape(len(measured), -1), measured)
    return np.concatenate([part for part, used in zip(both, inputs, strict=True) if used], axis=1)


def powered(shares: np.ndarray, power: float) -> np.ndarray:
    """Return the probabilities that a power of the shares of trees gives."""
    raised = np.maximum(shares, 1 / (2 * TREES)) ** power
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def calibration_error(chosen: np.ndarray, right: np.ndarray) -> float:
    """Return the mean difference of probability and share of right names, over ten ranges of probability."""
    ranges = np.minimum((chosen * 10).astype(int), 9)
    groups = [ranges == group for group in range(10) if (ranges == group).any()]
    return float(sum(abs(chosen[group].mean() - right[group].mean()) * group.mean() for group in groups))


def main(folder: str, patches: str = "120") -> None:
    detector = load_detector(Path(folder), PROCESSES)
    sets = [drawn(stream, int(patches)) for stream in SETS]
    latents = [detector.encode_snippets(part[0].astype(np.float32) / UINT8_MAX) for part in sets]
    names = sorted({*sets[0][2]})
    print(f"lines: {', '.join(str(len(part[2])) for part in sets)}; kinds: {len(names)}", flush=True)
    for title, inputs in INPUTS.items():
        fit, calibrate, judge = (columns(own, part[1], inputs) for own, part in zip(latents, sets, strict=True))
        forest = RandomForestClassifier(TREES, random_state=SEED, n_jobs=PROCESSES, min_samples_leaf=2)
        forest.fit(fit, sets[0][2])
        shares, known = forest.predict_proba(calibrate), np.searchsorted(forest.classes_, sets[1][2])
        rows = np.arange(len(known))
        losses = {power: -np.log(powered(shares, power)[rows, known]).mean() for power in np.linspace(0.5, 4, 36)}
        probability = powered(forest.predict_proba(judge), min(losses, key=lambda power: losses[power]))
        named = forest.classes_[probability.argmax(axis=1)]
        right = named == sets[2][2]
        low, high = binomtest(int(right.sum()), len(right)).proportion_ci()
        error = calibration_error(probability.max(axis=1), right)
        print(
            f"{title:13} {right.mean():.3f} ({low:.3f}-{high:.3f}) named rightly, calibration error {error:.3f}",
            flush=True,
        )
    print("\nTrue kind by row, share of its lines by the name given, with both; last column: lines")
    print(f"{'':13}{''.join(f'{name[:8]:>9}' for name in names)}{'lines':>7}")
    for kind in names:
        given = named[sets[2][2] == kind]
        print(f"{kind:13}{''.join(f'{np.mean(given == name):9.2f}' for name in names)}{len(given):7}")


if __name__ == "__main__":
    main(*sys.argv[1:])
