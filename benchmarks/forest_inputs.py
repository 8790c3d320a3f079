"""Compare what the forest of each search mode may read: parts of the posterior, measurements, a random draw.

Run from the repository root: `python benchmarks/forest_inputs.py RELEASE [PATCHES]`. Forests of 200 trees are fitted to
what the search finds in PATCHES simulated patches (default 400) and compared on as many others by their recall at the
rates of false alarms per window with at least three expected. A release reads `measurements` for tracks, and `mean` for
windows.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from aetherscan.detector.detector import Latents, forest_features, load_detector
from aetherscan.detector.saved_forest import tree_share
from aetherscan.train.examples import draw
from aetherscan.train.forest import LabelledFeatures, collect_features, thresholds
from aetherscan.train.random_forest import fit_forest
from aetherscan.train.random_skies import ExampleSettings
from aetherscan.train.streams import Stream, generator

SEED, TREES, PROCESSES, WINDOW = 1, 200, 2, 4096
INPUTS = {
    "tracks": (
        ("measurements",), ("mean",), ("mean", "log_var"), ("mean", "measurements"),
        ("mean", "log_var", "measurements"), ("draw",), ("draw", "measurements"),
    ),
    "windows": (("mean",), ("mean", "log_var"), ("draw",)),
}  # fmt: skip


def columns(examples: LabelledFeatures, inputs: tuple[str, ...]) -> np.ndarray:
    """Return the columns of some inputs; `draw` is a random draw of the posterior, as Aetherscan's forest reads."""
    latents, parts = examples.latents, [name for name in inputs if name in ("mean", "log_var")]
    if "draw" in inputs:
        rng = generator(SEED, Stream.POSTERIOR, len(examples.labels))
        noise = rng.standard_normal(latents.mean.shape, dtype=np.float32)
        latents, parts = Latents(mean=latents.mean + np.exp(latents.log_var / 2) * noise, log_var=noise), ["mean"]
    measured = examples.measurements if "measurements" in inputs else examples.measurements[:, :0]
    return forest_features(parts, latents, measured)


def main(folder: str, patches: str = "400") -> None:
    detector, settings, count = load_detector(Path(folder), PROCESSES), ExampleSettings(), int(patches)
    fit, other = (
        collect_features(
            detector.encode, draw(SEED, stream, range(count), settings, PROCESSES), count * settings.chans / WINDOW
        )
        for stream in (Stream.FOREST_FIT, Stream.FOREST_CALIBRATE)
    )
    for mode, choices in INPUTS.items():
        signal = other[mode].labels == 1
        for inputs in choices:
            forest = fit_forest(columns(fit[mode], inputs), fit[mode].labels, SEED, TREES)
            scores = tree_share(forest, columns(other[mode], inputs))
            limits = thresholds(scores[~signal], other[mode].windows)
            recalls = (f"{np.mean(scores[signal] > limit):.3f} at {rate:g}" for rate, limit in limits.items())
            print(f"{mode:8} {' + '.join(inputs):30} recall {', '.join(recalls)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
