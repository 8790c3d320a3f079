"""Fit, calibrate and measure the forest of kinds: what an emitter looks like, as its track was measured.

The forest reads the measurements of every line that a search follows and either lets pass or rejects because an OFF
shows it. Three sets of patches, each from a random stream of its own, fit the forest, calibrate it and measure it. The
kind of a line is that of the emitter of the patch on which it lies; `SIGNAL` is a signal from the target, `NOISE` a
line on which no emitter lies. The latents are left out: they add nothing to the measurements that `benchmarks/kinds.py`
resolves.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Shaped
from scipy.stats import binomtest

from aetherscan.cadence.geometry import Geometry
from aetherscan.detector.detector import kind_probabilities
from aetherscan.detector.release import KINDS, MEASUREMENTS, SIGNAL
from aetherscan.detector.strangeness import learn_signals
from aetherscan.errors import TrainingError
from aetherscan.options.train import TrainSettings
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.search.features import measurements
from aetherscan.search.on_off import WITH_A_KIND
from aetherscan.train.backgrounds import Source
from aetherscan.train.examples import KIND, draw_sky, followed, in_processes, kind_of
from aetherscan.train.random_forest import fit_forest, save_forest
from aetherscan.train.random_skies import ExampleSettings
from aetherscan.train.streams import Stream, generator

NOISE = "noise"
NAMED = {"tone": SIGNAL, "": NOISE}
"""Kinds by the name of the emitter, where they differ."""
LEAVES, LEAST_LINES, MAX_FEATURES = 128, 2, 0.5
"""Most leaves of a tree, fewest lines of a leaf, and share of the measurements that a split may read."""
POWERS = np.linspace(0.5, 4, 36)
STREAMS = {"fit": Stream.KINDS_FIT, "calibrate": Stream.KINDS_CALIBRATE, "measure": Stream.KINDS_MEASURE}
LEAST_SIGNALS = 30
"""Fewest signals among the lines that calibrate from which a release knows what signals look like."""
RANGES = 10
"""Ranges of probability in which the card compares probability and share of right names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Followed lines."""

    measurements: Float32[np.ndarray, "lines measurements"]
    kinds: Shaped[np.ndarray, " lines"]
    passed: Shaped[np.ndarray, " lines"]  # whether the gates let it pass; an OFF shows the others

    @staticmethod
    def join(parts: Sequence["Lines"]) -> "Lines":
        """Concatenate lines."""
        return Lines(
            measurements=np.concatenate([part.measurements for part in parts]),
            kinds=np.concatenate([part.kinds for part in parts]),
            passed=np.concatenate([part.passed for part in parts]),
        )


def draw_lines(
    rng: np.random.Generator, settings: ExampleSettings, background: tuple[NormalizedBlock, Geometry] | None = None
) -> Lines:
    """Draw the lines of one patch. Of a real background, those are left out that nothing injected explains."""
    normalized, cadence, signals, interference = draw_sky(rng, settings, background)
    tracks, rejections = followed(normalized, cadence, settings)
    tracks, rejections = (part[np.isin(rejections, WITH_A_KIND)] for part in (tracks, rejections))
    kinds = [kind_of(track, [*signals, *interference], cadence) for track in tracks]
    known = np.array([bool(kind) or background is None for kind in kinds], dtype=bool)
    return Lines(
        measurements=measurements(tracks, cadence)[known],
        kinds=np.array([NAMED.get(kind, kind) for kind in kinds], dtype=KIND)[known],
        passed=(rejections == "")[known],
    )


def draw_line_patches(
    patches: Sequence[int], seed: int, stream: Stream, settings: ExampleSettings, source: Source | None
) -> Lines:
    """Return the lines of some patches, each drawn from its own generator.

    Args:
        patches: numbers of the patches.
        seed: of the training.
        stream: from which the patches are drawn.
        settings: of the patches.
        source: of real backgrounds, or None.
    """
    return Lines.join([
        draw_lines(generator(seed, stream, i), settings, source.normalized(i) if source else None) for i in patches
    ])  # fmt: skip


def kind_patches(settings: TrainSettings) -> dict[str, int]:
    """Return the number of patches of each set: fewer than those of the other forests, as a patch has more lines."""
    few = max(1, settings.judge_patches // 10)
    return {"fit": max(1, settings.forest_patches // 6), "calibrate": few, "measure": few}


def line_sets(
    settings: TrainSettings,
    examples: ExampleSettings,
    real: tuple[Source, ...] | None = None,
    *,
    measure_seed: int | None = None,
) -> dict[str, Lines]:
    """Draw the lines that fit, calibrate and measure the forest, from patches of their own.

    Args:
        settings: of the training.
        examples: what patches contain.
        real: real backgrounds for training and for validation; None: simulated skies.
        measure_seed: of the patches that measure it; None: that of the training.

    Raises:
        TrainingError: a set has no line.
    """
    training, validation = real or (None, None)
    seeds = {"measure": settings.seed if measure_seed is None else measure_seed}
    sets = {}
    for name, count in kind_patches(settings).items():
        source, seed = (training if name == "fit" else validation), seeds.get(name, settings.seed)
        task = partial(draw_line_patches, seed=seed, stream=STREAMS[name], settings=examples, source=source)
        sets[name] = Lines.join(list(in_processes(task, range(count), settings.processes)))
        if not len(sets[name].kinds):
            option = "forest_patches" if name == "fit" else "judge_patches"
            raise TrainingError(f"forest of kinds: expected lines to {name} it, found none: raise {option}")
    return sets


def train_kinds(folder: Path, sets: dict[str, Lines], settings: TrainSettings) -> dict[str, Any]:
    """Fit, calibrate and measure the forest of kinds; return its part of the card.

    Args:
        folder: of the release, in which the forest is written.
        sets: lines of separate patches: `fit`, `calibrate` and `measure`.
        settings: of the training.
    """
    fit, calibrate = sets["fit"], sets["calibrate"]
    names, classes = np.unique(fit.kinds, return_inverse=True)
    forest = fit_forest(
        fit.measurements, classes.astype(np.float32), settings.seed if settings.rf_seed is None else settings.rf_seed,
        settings.rf_n_estimators, max_leaf_nodes=LEAVES, min_samples_leaf=LEAST_LINES,
        max_features=MAX_FEATURES, n_jobs=settings.rf_n_jobs,
    )  # fmt: skip
    save_forest(folder / f"{KINDS}.skops", forest)
    shares = forest.predict_proba(calibrate.measurements)
    power = best_power(shares, names, calibrate.kinds)
    probabilities = kind_probabilities(forest.predict_proba(sets["measure"].measurements), power)
    signals = (calibrate.kinds == SIGNAL) & calibrate.passed
    unlikely = 1 - kind_probabilities(shares[signals], power)[:, names == SIGNAL].sum(axis=1)
    known = SIGNAL in names and signals.sum() >= LEAST_SIGNALS
    return {
        "names": names.tolist(),
        "power": power,
        "measurements": list(MEASUREMENTS),
        "patches": kind_patches(settings),
        "learned": dict(Counter(fit.kinds.tolist())),
        "calibrated": len(calibrate.kinds),
        "signals": asdict(learn_signals(calibrate.measurements[signals], unlikely)) if known else None,
        "metrics": kind_metrics(probabilities, names, sets["measure"]),
    }


def best_power(shares: Float64[np.ndarray, "lines kinds"], names: np.ndarray, kinds: np.ndarray) -> float:
    """Return the power of the shares of trees under which lines that the forest was not fitted to are most likely.

    Args:
        shares: of the trees, for each line and kind.
        names: of the kinds.
        kinds: of the lines; those of a kind without a name are not used.
    """
    known = np.isin(kinds, names)
    rows, columns = np.flatnonzero(known), np.searchsorted(names, kinds[known])
    losses = [-np.log(kind_probabilities(shares, power)[rows, columns]).sum() for power in POWERS]
    return round(float(POWERS[int(np.argmin(losses))]), 4)


def kind_metrics(probabilities: Float64[np.ndarray, "lines kinds"], names: np.ndarray, lines: Lines) -> dict[str, Any]:
    """Return how many lines are named rightly, how well the probability says so, and which kind is named which.

    Args:
        probabilities: of each kind.
        names: of the kinds.
        lines: with their true kinds.
    """
    given, chosen = names[probabilities.argmax(axis=1)], probabilities.max(axis=1)
    right = given == lines.kinds
    ranges = np.minimum((chosen * RANGES).astype(int), RANGES - 1)
    reliability = [
        {"lines": int(inside.sum()), "probability": round(float(chosen[inside].mean()), 4),
         "right": round(float(right[inside].mean()), 4)}
        for inside in (ranges == number for number in range(RANGES)) if inside.any()
    ]  # fmt: skip
    error = sum(row["lines"] * abs(row["probability"] - row["right"]) for row in reliability) / len(right)
    return {
        "right": _share(right),
        "right_passed": _share(right[lines.passed]),
        "calibration_error": round(float(error), 4),
        "reliability": reliability,
        "confusion": {
            kind: dict(Counter(given[lines.kinds == kind].tolist())) for kind in np.unique(lines.kinds).tolist()
        },
    }


def _share(right: np.ndarray) -> dict[str, Any]:
    """Return the share of lines that are named rightly, with its 95% interval."""
    if not len(right):
        return {"lines": 0, "share": None, "interval": None}
    interval = binomtest(int(right.sum()), len(right)).proportion_ci()
    return {
        "lines": len(right),
        "share": round(float(right.mean()), 4),
        "interval": [round(interval.low, 4), round(interval.high, 4)],
    }


def metrics_text(metrics: dict[str, Any], names: Iterable[str]) -> str:
    """Describe metrics of `kind_metrics`: two sentences, and the table of confusion.

    Args:
        metrics: the metrics.
        names: of the kinds.
    """
    names = [*names]
    rows = [
        ["kind, lines", *(name.replace("_", " ") for name in names)],
        ["---"] * (1 + len(names)),
        *(
            [f"{kind.replace('_', ' ')}, {sum(given.values()):,}", *(_cell(given, name) for name in names)]
            for kind, given in metrics["confusion"].items()
        ),
    ]
    reliability = ", ".join(f"{row['probability']:.2f} {row['right']:.2f}" for row in metrics["reliability"])
    return f"""Of all lines {_share_text(metrics["right"])} are named rightly, of those that the gates let pass
{_share_text(metrics["right_passed"])}. Probability and share of right names, by tenths of probability: {reliability};
mean difference {metrics["calibration_error"]:.3f}. The table gives for each true kind the shares of the names given.

{"".join(f"| {' | '.join(row)} |{chr(10)}" for row in rows)}"""


def _share_text(share: dict[str, Any]) -> str:
    if not share["lines"]:
        return "none of 0"
    low, high = share["interval"]
    return f"{share['share']:.3f} ({low:.3f} to {high:.3f}, {share['lines']:,} lines)"


def _cell(given: dict[str, int], name: str) -> str:
    return f"{given[name] / sum(given.values()):.2f}" if name in given else ""
