"""Print what each term of the loss weighs under both objectives, from the loss itself.

Run from the repository root: `python benchmarks/objectives.py`. The loss is computed for a reconstruction of 0.5
everywhere, for a shifted posterior, and for ONs and OFFs a known distance apart; each weight is the ratio of loss and
term. Reconstruction is the mean binary cross-entropy of a pixel, KL divergence the mean of an observation, and
clustering the mean over cadences with a signal plus the mean over those without.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from aetherscan.cadence.geometry import ON_POSITIONS
from aetherscan.options.train import TrainSettings
from aetherscan.train.encoder import Plan, build

CADENCES, LATENTS, APART = 4, 8, 3.0
LABELS = np.array([1, 0] * (CADENCES // 2), np.float32)


def weights(settings: TrainSettings) -> dict[str, float]:
    """Return the loss per unit of each term."""
    model = build(settings, Plan.of(settings))
    snippets = np.zeros((CADENCES, 6, settings.time_bins, settings.bins), np.uint8)
    zeros = np.zeros((CADENCES * 6, LATENTS), np.float32)
    on = np.tile(np.isin(np.arange(6), ON_POSITIONS), CADENCES)[:, None]

    def loss(made: float, mean: np.ndarray, labels: np.ndarray, draws: np.ndarray | None = None) -> float:
        image = np.full((len(zeros) // model.every, settings.time_bins, settings.bins, 1), made, np.float32)
        draws = mean if draws is None else draws
        posterior = {"image": image, "z_mean": mean, "z_log_var": zeros, "z": draws[:: model.every]}
        return float(model.compute_loss(x=snippets, y=labels, y_pred=posterior))

    others, shifted = np.zeros(CADENCES, np.float32), np.ones_like(zeros)
    none = loss(1e-7, zeros, others)
    apart = np.where(on, APART / LATENTS**0.5, 0).astype(np.float32) * shifted
    kl = 0.5 * float((apart**2).sum(axis=1).mean())
    clusters = 9 / APART**2 + 9 * APART**2
    per_kl = (loss(1e-7, shifted, others) - none) / (0.5 * LATENTS)
    return {
        "reconstruction": (loss(0.5, zeros, others) - none) / np.log(2),
        "KL divergence": per_kl,
        "clustering": (loss(1e-7, apart, LABELS) - none - per_kl * kl) / clusters,
    }


def main() -> None:
    ours, seed = weights(TrainSettings()), weights(TrainSettings(objective="seed"))
    print(f"{'weight of':16}{'sentinel':>10}{'seed':>10}{'ratio':>10}")
    for term in ours:
        print(f"{term:16}{ours[term]:10.4g}{seed[term]:10.4g}{ours[term] / seed[term]:10.3g}")
    for term in ("reconstruction", "KL divergence"):
        ratio = ours[term] / ours["clustering"] * seed["clustering"] / seed[term]
        print(f"{term} relative to clustering: {ratio:.3g} times as much as in Aetherscan")


if __name__ == "__main__":
    main()
