"""Measure recall against the training cost of an encoder: forests on the latents of several encoders, on equal skies.

Run from the repository root: `python benchmarks/learning.py FOLDER...`, with folders of releases or of checkpoints
(`models/checkpoints/test_v1/round_03`). Forests of 300 trees are fitted for each encoder on the search results of 400
simulated patches of sky. Recall is of signals of SNR 10 and more in 300 further patches, at 5% and 1% false
positives: in windows; of followed lines by their latents alone; and of followed lines by latents and measurements.
The measurements alone are tested too.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from aetherscan.detector.detector import Encode, load_encoder
from aetherscan.detector.saved_forest import tree_share
from aetherscan.options.search import MODES
from aetherscan.train.examples import Examples, draw
from aetherscan.train.forest import labelled_features
from aetherscan.train.onnx_export import convert
from aetherscan.train.random_forest import fit_forest
from aetherscan.train.random_skies import ExampleSettings
from aetherscan.train.streams import Stream

SKY = ExampleSettings(tones=7, unsteady=0, windows=6)
SEED, KNOWN, UNSEEN, TREES, LEAST_SNR, RATES = 31, 400, 300, 300, 10.0, (0.05, 0.01)
Both = tuple[Examples, Examples]


def cost(folder: Path) -> str:
    """Return the number of cadences and the seconds that an encoder was trained with, if its folder holds them."""
    if (folder / "state.json").exists():
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        settings, history = state["settings"], state["history"]
        seen = len(history) * settings["num_samples_beta_vae"] * settings["train_val_split"]
        return f"{seen:>9,.0f} cadences, {sum(row['seconds'] for row in history):>6,.0f} s"
    encoder = json.loads((folder / "release.json").read_text(encoding="utf-8")).get("encoder")
    return f"{encoder['cadences']:>9,} cadences, {encoder['seconds']:>6,} s" if encoder else " see its card"


def recalls(features: list[np.ndarray], both: Both) -> str:
    """Fit a forest on the features of the training examples; return its recall on the test examples at each rate."""
    known, unseen = both
    scores = tree_share(fit_forest(features[0], known.labels, 1, TREES), features[1])
    strong = (unseen.labels == 1) & (unseen.snrs >= LEAST_SNR)
    quiet = scores[unseen.labels == 0]
    return " ".join(f"{np.mean(scores[strong] > np.quantile(quiet, 1 - rate)):6.3f}" for rate in RATES)


def means(encode: Encode, both: Both) -> list[np.ndarray]:
    """Return the posteriors' means, a row for each example."""
    return [labelled_features(encode, part).latents.mean.reshape(len(part.labels), -1) for part in both]


def drawn(stream: Stream, patches: int) -> dict[str, Examples]:
    """Return the examples of simulated patches by search mode."""
    parts = list(draw(SEED, stream, range(patches), SKY, 2))
    return {mode: Examples.join([part[mode] for part in parts]) for mode in MODES}


def main(*folders: str) -> None:
    both = [drawn(Stream.FOREST_FIT, KNOWN), drawn(Stream.FOREST_MEASURE, UNSEEN)]
    tracks, windows = ((both[0][mode], both[1][mode]) for mode in MODES)
    measured = [part.measurements for part in tracks]
    print(f"{'':40}{'windows':>16}{'tracks':>16}{'and measured':>16}   at {RATES} false")
    print(f"{'measurements alone':72}{recalls(measured, tracks):>16}")
    for folder in map(Path, folders):
        with TemporaryDirectory() as place:
            convert(folder / "encoder.keras", served := Path(place) / "encoder.onnx")
            encode = load_encoder(served, (16, 512), 2)
        seen, followed = means(encode, windows), means(encode, tracks)
        joined = [np.concatenate(pair, axis=1) for pair in zip(followed, measured, strict=True)]
        columns = (recalls(seen, windows), recalls(followed, tracks), recalls(joined, tracks))
        print(f"{folder.name:12}{cost(folder):28}" + "".join(f"{column:>16}" for column in columns), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
