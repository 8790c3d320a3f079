"""Train a release: beta-VAE, then forest, on snippets drawn as they are needed.

The signals start bright and get fainter over the first half of the epochs (the seeds' curriculum, in one piece); the
learning rate falls along a cosine. The forest is fitted, and the release measured, on snippets nobody has seen.
"""

import json
import os
import subprocess
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
from jaxtyping import Float32, Float64

from aetherscan.detector import Encode, encode_all, load_encoder
from aetherscan.examples import ExampleSettings, draw_batch
from aetherscan.forest import TREES, fit_forest, save_forest, share
from aetherscan.onnx_export import export_onnx
from aetherscan.release import Release, write_card
from aetherscan.vae import BetaVAE, build_decoder, build_encoder

EASY_SNR = 40.0
PASSED = 0.05
"""Share of snippets without a signal that may pass the release's threshold: what passes is measured, not reported."""
RATES = (PASSED, 1e-2, 1e-3)
SNR_EDGES = (8, 12, 16, 24, 36, 60, 150)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How much to train on, and from which seed."""

    seed: int = 1
    cadences: int = 60_000
    batch: int = 32
    epochs: int = 20
    forest_cadences: int = 20_000
    judge_cadences: int = 20_000
    trees: int = TREES
    learning_rate: float = 1e-3


class Examples(keras.utils.PyDataset):
    """Batches for one curriculum; `epoch` moves it on."""

    def __init__(self, settings: TrainSettings, examples: ExampleSettings) -> None:
        super().__init__(workers=2, max_queue_size=8)
        self.settings, self.examples, self.epoch = settings, examples, 0

    def __len__(self) -> int:
        """Batches an epoch."""
        return max(1, self.settings.cadences // self.settings.epochs // self.settings.batch)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Return snippets and labels of batch `index` of this epoch."""
        ease = max(0.0, 1 - 2 * self.epoch / self.settings.epochs)
        faintest, brightest = self.examples.signal_snr
        easier = replace(self.examples, signal_snr=(faintest + ease * (EASY_SNR - faintest), brightest))
        rng = np.random.default_rng([self.settings.seed, 0, self.epoch, index])
        snippets, labels, _ = draw_batch(rng, self.settings.batch, easier)
        return snippets, labels

    def on_epoch_end(self) -> None:
        """Move the curriculum on."""
        self.epoch += 1


def draw_latents(
    encode: Encode, count: int, stream: int, seed: int, examples: ExampleSettings
) -> tuple[Float32[np.ndarray, "rows features"], Float32[np.ndarray, " rows"], Float64[np.ndarray, " rows"]]:
    """Return latents, labels and SNRs of `count` fresh snippets of random stream `stream`."""
    parts = []
    for index, start in enumerate(range(0, count, 256)):
        rng = np.random.default_rng([seed, stream, index])
        snippets, labels, snrs = draw_batch(rng, min(256, count - start), examples)
        parts.append((encode_all(encode, snippets).mean.reshape(len(snippets), -1), labels, snrs))
    latents, labels, snrs = (np.concatenate(column) for column in zip(*parts, strict=True))
    return latents, labels, snrs


def judge(
    scores: Float64[np.ndarray, " rows"], labels: Float32[np.ndarray, " rows"], snrs: Float64[np.ndarray, " rows"]
) -> dict[str, Any]:
    """Return the threshold that passes the permitted share, and recall by SNR of the weakest ON at several shares."""
    quiet = scores[labels == 0]
    thresholds = {rate: float(np.quantile(quiet, 1 - rate)) for rate in RATES}
    bins = [(low, high, (snrs >= low) & (snrs < high)) for low, high in pairwise(SNR_EDGES)]
    recall = {
        f"recall_at_{rate:g}": {
            f"{low}-{high}": round(float(np.mean(scores[inside] > threshold)), 4)
            for low, high, inside in bins
            if inside.any()
        }
        for rate, threshold in thresholds.items()
    }
    return {"threshold": thresholds[PASSED], "without_signal": len(quiet), **recall}


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
    examples = examples or ExampleSettings()
    keras.utils.set_random_seed(settings.seed)
    commit = code_commit()
    batches = Examples(settings, examples)
    model = BetaVAE(build_encoder(seed=settings.seed), build_decoder(seed=settings.seed), seed=settings.seed)
    rate = keras.optimizers.schedules.CosineDecay(settings.learning_rate, len(batches) * settings.epochs, alpha=0.01)
    model.compile(optimizer=keras.optimizers.Adam(rate, clipnorm=1e3), jit_compile=False)
    log = keras.callbacks.CSVLogger(str(folder / "history.csv"))
    model.fit(batches, epochs=settings.epochs, callbacks=[log], verbose=2 if "CI" in os.environ else "auto")
    model.encoder.save(folder / "encoder.keras")

    export_onnx(model.encoder, folder / "encoder.onnx")
    encode = load_encoder(folder / "encoder.onnx", (examples.rows, examples.bins), os.cpu_count() or 1)
    latents, labels, _ = draw_latents(encode, settings.forest_cadences, 1, settings.seed, examples)
    forest = fit_forest(latents, labels, settings.seed, settings.trees)
    save_forest(folder / "forest.skops", forest)
    latents, labels, snrs = draw_latents(encode, settings.judge_cadences, 2, settings.seed, examples)
    metrics = judge(share(forest, latents), labels, snrs)
    card = {
        "name": folder.name,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "snippet": {"rows": examples.rows, "bins": examples.bins, "binning": examples.binning},
        "threshold": metrics["threshold"],
        "data": {"source": "simulated by aetherscan.examples", **asdict(examples)},
        "training": asdict(settings),
        "metrics": metrics,
        "packages": {"keras": keras.__version__, "backend": keras.backend.backend()},
    }
    release = write_card(folder, card)
    (folder / "CARD.md").write_text(describe(release), encoding="utf-8")
    return release


def describe(release: Release) -> str:
    """Return CARD.md: what a release was trained on and measured at, for people."""
    card = release.card
    rates = [key for key in card["metrics"] if key.startswith("recall_at_")]
    rows = [
        f"| {snr} | " + " | ".join(f"{card['metrics'][rate][snr]:.3f}" for rate in rates) + " |"
        for snr in card["metrics"][rates[0]]
    ]
    columns = " | ".join(f"recall, 1 false in {1 / float(rate.removeprefix('recall_at_')):g}" for rate in rates)
    head = f"| SNR of the weakest ON | {columns} |\n|---|{'---|' * len(rates)}"
    data, training, snippet = card["data"], card["training"], card["snippet"]
    return f"""# {release.name}

Made {card["made"]} from commit {card["commit"]} with {card["packages"]["backend"]}, seed {training["seed"]}.

Trained on {training["cadences"]:,} simulated cadences, each drawn once;
the forest on {training["forest_cadences"]:,} more.
Snippets of {snippet["rows"]} rows x {snippet["bins"]} bins of {snippet["binning"]} channels.

Measured on {training["judge_cadences"]:,} further snippets of the same kind, half of them without a signal.
This says how well the network tells such snippets apart; it is not a recall on the sky.

{chr(10).join([head, *rows])}

```json
{json.dumps({"data": data, "training": training}, indent=1)}
```
"""
