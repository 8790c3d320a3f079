"""Measure how much recall the two mismatches of Aetherscan's training cost, by switching them on in ours.

Run from the repository root: `python benchmarks/mismatches.py [PATCHES [RELEASE]]`, by default 400 simulated patches of
sky for training, three quarters as many for testing, and models/equinox. In training, Aetherscan scales each
observation between its own minimum and maximum; in inference, each cadence. It also trains on signals eight times as
wide as those on the sky. The release's encoder is kept. Forests are fitted on its latents of examples made in one way
and tested on examples made in another way. Recall is at a fixed rate of false positives: in windows, and of followed
lines without and with their measurements.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from aetherscan.detector.detector import Encode, encode_all, forest_features, load_encoder
from aetherscan.detector.saved_forest import tree_share
from aetherscan.search.cutouts import UINT8_MAX
from aetherscan.train import examples
from aetherscan.train.examples import Examples, draw_examples
from aetherscan.train.random_forest import fit_forest
from aetherscan.train.random_skies import ExampleSettings

WIDER, TREES, RATES = 8.0, 300, (0.05, 0.01)
SKY = ExampleSettings(tones=7, unsteady=0, windows=6)
READS = {"windows": (("mean",),), "tracks": (("mean",), ("mean", "measurements"))}


def as_ours(snippets: np.ndarray) -> np.ndarray:
    return snippets


def by_observation(snippets: np.ndarray) -> np.ndarray:
    return scaled(snippets, (-2, -1))


def by_cadence(snippets: np.ndarray) -> np.ndarray:
    return scaled(snippets, (-3, -2, -1))


def scaled(snippets: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Scale snippets between their own minimum and maximum over `axes`, as Aetherscan scales its logarithms."""
    low, high = (of(snippets, axis=axes, keepdims=True) for of in (np.min, np.max))
    return (snippets - low) / np.maximum(high - low, 1e-6)


CASES = (
    # name, factor of the signals' width in training, scaling in training, scaling in inference
    ("ours", 1.0, as_ours, as_ours),
    ("each observation scaled, both times", 1.0, by_observation, by_observation),
    ("each cadence scaled in inference", 1.0, by_observation, by_cadence),
    ("trained on signals eight times as wide", WIDER, as_ours, as_ours),
    ("both mismatches", WIDER, by_observation, by_cadence),
)


def draw_patch(index: int, stream: int, wider: float) -> tuple[Examples, Examples]:
    """Draw the examples of one patch with tones `wider` times as wide."""
    plain = examples.draw_emitters

    def widened(*given):
        tones, others = plain(*given)
        return [replace(tone, width_hz=tone.width_hz * wider) for tone in tones], others

    with mock.patch.object(examples, "draw_emitters", widened):
        return draw_examples(np.random.default_rng([stream, index]), SKY)


def drawn(stream: int, wider: float, patches: int) -> dict[str, Examples]:
    """Return the examples of simulated patches by search mode."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(partial(draw_patch, stream=stream, wider=wider), range(patches), chunksize=8))
    return {mode: Examples.join(of) for mode, of in zip(("tracks", "windows"), zip(*parts, strict=True), strict=True)}


def main(patches: int = 400, release: str = "models/equinox") -> None:
    folder = Path(__file__).resolve().parents[1] / release
    encode: Encode = load_encoder(folder / "encoder.onnx", (16, 512), 2)
    known = {wider: drawn(21, wider, patches) for wider in (1.0, WIDER)}
    unseen = drawn(22, 1.0, 3 * patches // 4)

    def features(examples: Examples, stretch, reads: tuple[str, ...]) -> np.ndarray:
        latents = encode_all(encode, (stretch(snippet.astype(np.float32) / UINT8_MAX) for snippet in examples.snippets))
        columns = examples.measurements if "measurements" in reads else examples.measurements[:, :0]
        return forest_features(["mean"], latents, columns)

    for mode, choices in READS.items():
        for reads in choices:
            judged, signal = unseen[mode], unseen[mode].labels == 1
            strong = signal & (judged.snrs >= 10)
            print(f"\n{mode}, {' and '.join(reads)}: {signal.sum():,} signals, {(~signal).sum():,} others")
            for name, wider, taught, served in CASES:
                learned = known[wider][mode]
                forest = fit_forest(features(learned, taught, reads), learned.labels, 1, TREES)
                scores = tree_share(forest, features(judged, served, reads))
                at = {rate: np.quantile(scores[~signal], 1 - rate) for rate in RATES}
                texts = (f"{np.mean(scores[signal] > t):.3f} ({np.mean(scores[strong] > t):.3f})" for t in at.values())
                rates = (f"{100 * rate:g}%" for rate in RATES)
                print(
                    f"{name:40}", "  ".join(f"at {rate} false {text}" for rate, text in zip(rates, texts, strict=True))
                )
    print("\nin brackets: of signals of SNR 10 and more in an ON")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *sys.argv[2:])
