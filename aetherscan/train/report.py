"""Report of a training: one self-contained HTML page with losses, latents, recall and the cost of each stage."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from aetherscan.detector.detector import Latents
from aetherscan.detector.release import Release
from aetherscan.plotting.html import heading, picture, table, write_html
from aetherscan.plotting.training import LOSSES, draw_latents, draw_losses, draw_recall
from aetherscan.train.forest import SNR_EDGES, LabelledFeatures

Rows = Sequence[Mapping[str, Any]]


def write_training(folder: Path, release: Release, history: Rows, stages: Rows, examples: LabelledFeatures) -> None:
    """Write `training.html`, and its figures as PNG files.

    Args:
        folder: of the report.
        release: that was trained.
        history: every epoch.
        stages: every stage, with its cost.
        examples: whose latents are drawn.
    """
    metrics = {mode: values["metrics"] for mode, values in release.card["modes"].items()}
    ons, offs = np.split(on_and_off(examples.latents), 2, axis=1)
    signal = examples.labels == 1
    names = list(dict.fromkeys(name for stage in stages for name in stage))
    rows = [[_cell(stage.get(name, "")) for name in names] for stage in stages]
    parts = [
        heading(f"Training of {release.name}", 1),
        picture("Losses", len(LOSSES), lambda axes: draw_losses(axes, history), folder / "losses.png"),
        picture("Latents", 2, lambda axes: draw_latents(axes, ons, offs, signal), folder / "latents.png"),
        picture("Recall", len(metrics), lambda axes: draw_recall(axes, metrics, SNR_EDGES), folder / "recall.png"),
        heading("Stages"),
        table(names, rows),
    ]
    write_html(folder / "training.html", release.name, parts)


def _cell(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def on_and_off(latents: Latents) -> Float64[np.ndarray, "batch features"]:
    """Return the mean latents of the ONs, then those of the OFFs, as columns."""
    mean = latents.mean.astype(np.float64)
    return np.concatenate([mean[:, ::2].mean(axis=1), mean[:, 1::2].mean(axis=1)], axis=1)
