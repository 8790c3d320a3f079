"""Train a release: beta-VAE, then its forests, on what the search finds in skies drawn for it.

Encoder, forests and their judgement each see patches of their own. The signals start bright and get fainter over the
first half of the epochs (the seeds' curriculum, in one piece); the learning rate falls along a cosine. One encoder
serves both modes of searching; each has its forest, its threshold and its calibration.
"""

import json
import os
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
from jaxtyping import Float32, Float64

from aetherscan.detector import Encode, encode_all, load_encoder
from aetherscan.examples import Examples, ExampleSettings, draw
from aetherscan.forest import calibrate, fit_forest, save_forest, share
from aetherscan.normalize import SHADES
from aetherscan.onnx_export import export_onnx
from aetherscan.recipe import TrainSettings
from aetherscan.release import Release, write_card
from aetherscan.tracks import MEASUREMENTS, MODES
from aetherscan.vae import BetaVAE, build_decoder, build_encoder

EASY_SNR = 20.0
PASSED = {"tracks": 0.04, "windows": 0.05}
"""Share of what is no signal, as drawn here, that may pass the release's threshold."""
RATES = (0.05, 0.02, 1e-2)
SNR_EDGES = (6, 8, 10, 12, 16, 24, 60)
LARGEST_SHIFT = 6
"""Bins by which a snippet is moved each time it is shown."""


def epochs_of(settings: TrainSettings) -> int:
    """Return how often every example is shown."""
    return settings.num_training_rounds * settings.epochs_per_round


class Batches(keras.utils.PyDataset):
    """Batches of an epoch in an order and with flips and shifts of its own; faint signals are left out at first."""

    def __init__(self, shown: Examples, settings: TrainSettings) -> None:
        super().__init__()
        self.shown, self.settings, self.epoch = shown, settings, 0
        self._order()

    def _order(self) -> None:
        ease = max(0.0, 1 - 2 * self.epoch / epochs_of(self.settings))
        bright = (self.shown.labels == 0) | (self.shown.snrs >= ease * EASY_SNR)
        self.rng = np.random.default_rng([self.settings.seed, 3, self.epoch])
        self.order = self.rng.permutation(np.flatnonzero(bright))

    def __len__(self) -> int:
        """Batches an epoch."""
        return max(1, len(self.order) // self.settings.per_replica_batch_size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return snippets and labels of batch `index` of this epoch."""
        chosen = self.order[
            index * self.settings.per_replica_batch_size : (index + 1) * self.settings.per_replica_batch_size
        ]
        snippets = self.shown.snippets[chosen].astype(np.float32) / SHADES
        # A band read backwards is as good a band, and nothing depends on where exactly a snippet is centred.
        snippets = snippets[..., :: int(self.rng.choice([-1, 1]))]
        return np.roll(snippets, self.rng.integers(-LARGEST_SHIFT, LARGEST_SHIFT + 1), axis=-1), self.shown.labels[
            chosen
        ]

    def on_epoch_end(self) -> None:
        """Move the curriculum on."""
        self.epoch += 1
        self._order()


def features(encode: Encode, shown: Examples) -> Float32[np.ndarray, "rows features"]:
    """Return what a forest reads of each example: six latents, and the measurements of a track."""
    latents = encode_all(encode, (snippet.astype(np.float32) / SHADES for snippet in shown.snippets)).mean
    return np.concatenate([latents.reshape(len(latents), -1), shown.measurements], axis=1)


def judge(
    scores: Float64[np.ndarray, " rows"],
    labels: Float32[np.ndarray, " rows"],
    snrs: Float32[np.ndarray, " rows"],
    passed: float,
) -> dict[str, Any]:
    """Return the threshold that passes the permitted share, and recall by SNR of the signal at several shares."""
    quiet = scores[labels == 0]
    thresholds = {rate: float(np.quantile(quiet, 1 - rate)) for rate in (*RATES, passed)}
    bins = [(low, high, (labels == 1) & (snrs >= low) & (snrs < high)) for low, high in pairwise(SNR_EDGES)]
    recall = {
        f"recall_at_{rate:g}": {
            f"{low}-{high}": round(float(np.mean(scores[inside] > thresholds[rate])), 4)
            for low, high, inside in bins
            if inside.any()
        }
        for rate in RATES
    }
    return {"threshold": thresholds[passed], "signals": int(labels.sum()), "others": len(quiet), **recall}


def code_commit() -> str:
    """Return the commit of the code that trains, with `+` where it was changed since; empty outside a checkout."""
    here = Path(__file__).parent
    try:
        shown = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"], cwd=here, check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return shown.stdout.decode().strip()


def train(folder: Path, settings: TrainSettings, examples: ExampleSettings | None = None) -> Release:
    """Train a release into `folder`, which is made; return it as served.

    Raises:
        FileExistsError: `folder` holds a release already.
    """
    if (folder / "release.json").exists():
        raise FileExistsError(f"{folder}: expected no release there, found release.json; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    examples, commit = examples or ExampleSettings(), code_commit()
    keras.utils.set_random_seed(settings.seed)
    train_encoder(folder, draw([settings.seed, 0], settings.patches, examples, settings.processes).values(), settings)
    encode = load_encoder(folder / "encoder.onnx", (examples.rows, examples.bins), settings.processes)
    known, unseen = (
        draw([settings.seed, stream], patches, examples, settings.processes)
        for stream, patches in ((1, settings.forest_patches), (2, settings.judge_patches))
    )
    modes = {mode: train_forest(folder, mode, encode, known[mode], unseen[mode], settings) for mode in MODES}
    card = {
        "name": folder.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "snippet": {"rows": examples.rows, "bins": examples.bins},
        "modes": modes,
        "data": {"source": "simulated by aetherscan.examples", **asdict(examples)},
        "training": settings.recorded(),
        "packages": {"keras": keras.__version__, "backend": keras.backend.backend()},
    }
    release = write_card(folder, card)
    (folder / "CARD.md").write_text(describe(release), encoding="utf-8")
    return release


def train_encoder(folder: Path, parts: Iterable[Examples], settings: TrainSettings) -> None:
    """Fit the beta-VAE to examples and write its encoder, as trained and as served, into `folder`."""
    shown = Examples.join([replace(part, measurements=part.measurements[:, :0]) for part in parts])
    batches = Batches(shown, settings)
    encoder = build_encoder(seed=settings.seed)
    if settings.start:
        encoder.set_weights(keras.saving.load_model(settings.start / "encoder.keras", compile=False).get_weights())
    model = BetaVAE(encoder, build_decoder(seed=settings.seed), seed=settings.seed)
    steps = len(shown.labels) // settings.per_replica_batch_size * epochs_of(settings)
    rate = keras.optimizers.schedules.CosineDecay(settings.base_learning_rate, max(1, steps), alpha=0.01)
    model.compile(optimizer=keras.optimizers.Adam(rate, clipnorm=1e3), jit_compile=False)
    log = keras.callbacks.CSVLogger(str(folder / "history.csv"))
    model.fit(batches, epochs=epochs_of(settings), callbacks=[log], verbose=2 if "CI" in os.environ else "auto")
    model.encoder.save(folder / "encoder.keras")
    export_onnx(model.encoder, folder / "encoder.onnx")


def train_forest(
    folder: Path, mode: str, encode: Encode, known: Examples, unseen: Examples, settings: TrainSettings
) -> dict[str, Any]:
    """Fit, calibrate and measure the forest of one mode; return what the card says of it.

    What a search would not show it, it is not shown here. Half of the unseen examples calibrate, the others judge.
    """
    known, unseen = (shown.only(shown.gated) for shown in (known, unseen))
    forest = fit_forest(features(encode, known), known.labels, settings.seed, settings.rf_n_estimators)
    save_forest(folder / f"{mode}.skops", forest)
    shares = share(forest, features(encode, unseen))
    calibrating = np.arange(len(shares)) % 2 == 0
    points = calibrate(shares[calibrating], unseen.labels[calibrating])
    scores = np.interp(shares, points["score"], points["probability"])[~calibrating]
    metrics = judge(scores, unseen.labels[~calibrating], unseen.snrs[~calibrating], PASSED[mode])
    return {
        "threshold": metrics.pop("threshold"),
        "measurements": list(MEASUREMENTS) if mode == "tracks" else [],
        "calibration": points,
        "metrics": metrics,
    }


def describe(release: Release) -> str:
    """Return CARD.md: what a release was trained on and measured at, for people."""
    card = release.card
    data, training, snippet = card["data"], card["training"], card["snippet"]
    passes = training["num_training_rounds"] * training["epochs_per_round"]
    return f"""# {release.name}

Made {card["made"]} from commit {card["commit"]} with {card["packages"]["backend"]}, seed {training["seed"]}.

The encoder saw what the search found in {training["patches"]:,} simulated patches of {data["chans"]:,} channels, and as
many windows, {passes} times; the forests what it found in {training["forest_patches"]:,} more.
Snippets of {snippet["rows"]} rows x {snippet["bins"]} bins.

Measured on half of {training["judge_patches"]:,} further patches of the same kind. This says how well encoder and
forest tell apart what passed every gate before them; it is not a recall on the sky, which is what
`./sentinel.py evaluate` measures.

{chr(10).join(_table(mode, card["modes"][mode]) for mode in card["modes"])}
```json
{json.dumps({"data": data, "training": training}, indent=1)}
```
"""


def _table(mode: str, card: dict[str, Any]) -> str:
    metrics = card["metrics"]
    rates = [key for key in metrics if key.startswith("recall_at_")]
    head = " | ".join(f"recall, {100 * float(rate.removeprefix('recall_at_')):g}% false" for rate in rates)
    rows = [
        f"| {snr} | " + " | ".join(f"{metrics[rate][snr]:.3f}" for rate in rates) + " |" for snr in metrics[rates[0]]
    ]
    return f"""## {mode}

Threshold {card["threshold"]:.4f}; {metrics["signals"]:,} signals, {metrics["others"]:,} others.

| SNR of the faintest ON | {head} |
|---|{"---|" * len(rates)}
{chr(10).join(rows)}
"""
