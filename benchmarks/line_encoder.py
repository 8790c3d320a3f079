"""Judge whether a small network on upright cut-outs of lines names kinds and recognizes emitters better.

Run from the repository root: `python -P benchmarks/line_encoder.py RELEASE FOLDER [PATCHES]`. FOLDER keeps the lines
and the network of `line_network.py`, so that an interrupted run goes on. The network is trained on PATCHES patches
(default 4,200), in pairs of the same emitters. Forests are fitted to 1/7 as many, calibrated on 1/28, judged on 3/28,
each set with a seed of its own. PROCESSES in the environment (default 2) limits the processes that draw.

Printed are the share of lines named rightly, with 95% intervals from resampling patches; the difference from a forest
of measurements; the shares by kind; the table of `recognition.py` for 48 nights of all emitters and for 48 of emitters
that stand still; and that of `strangeness.py`. Of three forests of measurements, one of which is fitted to all lines
that the network had, too, the lines that calibrate choose the best.

Written before the judging. The network is kept for kinds if the mean of its probabilities and those of that forest
names more lines rightly than the forest alone, by 0.01 or more and with an interval of the difference above 0. It is
kept for recognition if drift, shape and network recognize more than drift and shape, with intervals that do not
overlap, of all emitters or of those that stand still.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from scipy.special import softmax
from scipy.stats import binomtest

from aetherscan.cadence.geometry import Geometry
from aetherscan.detector.detector import kind_probabilities, load_detector
from aetherscan.detector.release import SIGNAL
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.train.kinds import LEAST_LINES, LEAVES, MAX_FEATURES, best_power
from aetherscan.train.random_forest import fit_forest
from benchmarks import recognition, strangeness
from benchmarks.kinds import calibration_error
from benchmarks.line_network import SEEDS, Lines, inputs, lines_of, trained

PARTS = {"train": 28, "fit": 4, "calibrate": 1, "judge": 3}
NIGHTS, ODD = 48, 40
KEPT = "network and measurements"


def interval(values: np.ndarray, patches: np.ndarray) -> tuple[float, float]:
    """Return the 95% interval of a mean over lines, from 2,000 resamplings of patches."""
    groups = np.unique(patches, return_inverse=True)[1]
    sums, counts = np.bincount(groups, values), np.bincount(groups)
    chosen = np.random.default_rng(1).integers(len(counts), size=(2000, len(counts)))
    low, high = np.quantile(sums[chosen].sum(axis=1) / counts[chosen].sum(axis=1), (0.025, 0.975))
    return float(low), float(high)


def probabilities(sets: dict[str, Lines], model: Any, names: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
    """Return the name of the best forest of measurements, and the probabilities of the lines to judge by all inputs."""
    made = {
        name: model.predict({key: part[key] for key in ("image", "scale")}, 256, 0)
        for name, part in sets.items()
        if name != "train"
    }
    classes = {name: np.searchsorted(names, part["kind"]).astype(np.float32) for name, part in sets.items()}

    def calibrated(shares: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        power = best_power(shares["calibrate"], names, sets["calibrate"]["kind"])
        return {name: kind_probabilities(shares[name], power) for name in ("calibrate", "judge")}

    def forest(*columns: str, learned: Sequence[str] = ("fit",), leaves: int | None = None) -> dict[str, np.ndarray]:
        read = {
            name: np.column_stack([{**part, **made.get(name, {})}[column] for column in columns])
            for name, part in sets.items() if name in (*learned, "calibrate", "judge")
        }  # fmt: skip
        fitted = fit_forest(
            np.concatenate([read[name] for name in learned]), np.concatenate([classes[name] for name in learned]), 1,
            100, np.concatenate([sets[name]["weight"] for name in learned]), max_leaf_nodes=leaves,
            min_samples_leaf=LEAST_LINES, max_features=MAX_FEATURES, n_jobs=1,
        )  # fmt: skip
        return calibrated({name: fitted.predict_proba(read[name]) for name in ("calibrate", "judge")})

    measured = {
        "measurements, as in the release": forest("measured", leaves=LEAVES),
        "measurements": forest("measured"),
        "measurements, all lines": forest("measured", learned=("fit", "train")),
    }
    base = max(measured, key=lambda title: (measured[title]["calibrate"].argmax(1) == classes["calibrate"]).mean())
    alone = calibrated({name: softmax(part["logits"], axis=1) for name, part in made.items()})
    others = {
        "latents": forest("latents"),
        "latents + measurements": forest("latents", "measured"),
        "features": forest("features"),
        "features + measurements": forest("features", "measured"),
        "network": alone,
        KEPT: {name: (alone[name] + measured[base][name]) / 2 for name in alone},
    }
    return base, {title: shares["judge"] for title, shares in (measured | others).items()}


def judge_kinds(lines: Lines, base: str, given: dict[str, np.ndarray], names: np.ndarray) -> None:
    """Print the share of lines that each input names rightly, its difference from the base, and the shares by kind."""
    named = {title: names[shares.argmax(axis=1)] for title, shares in given.items()}
    right = {title: (name == lines["kind"]).astype(float) for title, name in named.items()}
    print(f"{len(lines['kind'])} lines in {len(np.unique(lines['patch']))} patches")
    print("| by | named rightly | difference | calibration error |\n|---|---|---|---|")
    for title, values in right.items():
        low, high = interval(values, lines["patch"])
        away = values - right[base]
        least, most = interval(away, lines["patch"])
        error = calibration_error(given[title].max(axis=1), values)
        print(
            f"| {title} | {values.mean():.4f} ({low:.4f}-{high:.4f}) | {away.mean():+.4f} ({least:+.4f} to {most:+.4f})"
            f" | {error:.3f} |"
        )
    titles = (base, "latents + measurements", "features + measurements", "network", KEPT)
    print(f"\n| kind, lines | {' | '.join(titles)} |\n|---|{'---|' * len(titles)}")
    for kind in np.unique(lines["kind"]):
        own = lines["kind"] == kind
        cells = []
        for title in titles:
            low, high = binomtest(int(right[title][own].sum()), int(own.sum())).proportion_ci()
            cells.append(f"{right[title][own].mean():.3f} ({low:.2f}-{high:.2f})")
        print(f"| {kind}, {own.sum()} | {' | '.join(cells)} |")


def main(release: str, folder: str, patches: str = "4200") -> None:
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    sets = {name: lines_of(name, int(patches) * part // 28, release, place) for name, part in PARTS.items()}
    names = np.unique(sets["train"]["kind"][sets["train"]["weight"] > 0])
    print(", ".join(f"{name} {len(part['kind'])} lines" for name, part in sets.items()), flush=True)
    model = trained(sets["train"], names, place / "network.weights.h5")
    print(f"{model.count_params():,} weights, {model.count_params() * 4 / 1e6:.1f} MB", flush=True)
    judge_kinds(sets["judge"], *probabilities(sets, model, names), names)

    def strange(block: NormalizedBlock, tracks: np.ndarray, cadence: Geometry) -> np.ndarray:
        logits = model.predict(inputs(block, tracks, cadence), 256, 0)["logits"]
        return np.asarray(1 - softmax(logits, axis=1)[:, np.searchsorted(names, SIGNAL)])

    def project(block: NormalizedBlock, tracks: np.ndarray, cadence: Geometry) -> np.ndarray:
        return np.asarray(model.predict(inputs(block, tracks, cadence), 256, 0)["projection"])

    described = {"drift": recognition.drift, "shape": recognition.shape, "network": project}
    titles = ("frequency", "+ drift + shape", "+ network", "+ drift + network", "+ drift + shape + network")
    for still in (0.0, 1.0):
        recognition.compare(described, titles, NIGHTS, SEEDS["nights"], 200.0, still)
    strangeness.compare(load_detector(Path(release)), ODD, SEEDS["odd"], {"network": strange})


if __name__ == "__main__":
    main(*sys.argv[1:])
