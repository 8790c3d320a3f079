"""Figures of a training: losses by epoch, latents of ONs and OFFs, recall by SNR."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from aetherscan.plotting.style import QUIET, SIGNAL

LOSSES = (("loss",), ("reconstruction",), ("kl", "kl_most", "clustering"), ("learning_rate",))
"""Curves of each panel of `draw_losses`."""


def draw_losses(panels: Sequence[Axes], history: Sequence[Mapping[str, Any]]) -> bool:
    """Draw losses and learning rate by epoch; return whether there was an epoch."""
    epochs = np.arange(1, len(history) + 1)
    for axes, names in zip(panels, LOSSES, strict=True):
        for i, name in enumerate(names):
            axes.plot(epochs, [row[name] for row in history], marker=".", color=f"C{i}", label=name)
            if f"val_{name}" in (history or [{}])[0]:
                axes.plot(epochs, [row[f"val_{name}"] for row in history], ".:", color=f"C{i}", label=f"val_{name}")
        for epoch, (row, following) in enumerate(pairwise(history), 1):
            if row["round"] != following["round"]:
                axes.axvline(epoch + 0.5, color="#ddd", lw=0.8)
        axes.set(xlabel="epoch", yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(fontsize=8)
    return bool(history)


def draw_latents(
    panels: Sequence[Axes],
    ons: Float64[np.ndarray, "rows latent"],
    offs: Float64[np.ndarray, "rows latent"],
    signal: Bool[np.ndarray, " rows"],
) -> None:
    """Draw mean latents on the two axes of largest variance; a single latent has one axis, and 0 on the other.

    Args:
        panels: for the signals, and for the other examples.
        ons: mean latents of the ONs of each example.
        offs: mean latents of its OFFs.
        signal: whether the example is a signal.
    """
    both = np.concatenate([ons, offs])
    centre = both.mean(axis=0)
    principal = np.linalg.svd(np.pad(both - centre, ((0, 0), (0, 1))), full_matrices=False)[2][:2, :-1].T
    for axes, chosen, title in zip(panels, (signal, ~signal), ("signals", "other examples"), strict=True):
        for name, points, color in (("ONs", ons, SIGNAL), ("OFFs", offs, QUIET)):
            x, y = ((points[chosen] - centre) @ principal).T
            axes.plot(x, y, ".", ms=3, alpha=0.5, color=color, label=name)
        axes.set(title=title, xlabel="first principal axis", ylabel="second")
        axes.legend(fontsize=8)


def draw_recall(panels: Sequence[Axes], metrics: Mapping[str, Mapping[str, Any]], snr_edges: Sequence[float]) -> None:
    """Draw recall by SNR at each rate of false alarms.

    Args:
        panels: one for each search mode.
        metrics: of each search mode: recall by SNR range under `recall_at_RATE`.
        snr_edges: SNRs at which the ranges begin and end.
    """
    for axes, (mode, values) in zip(panels, metrics.items(), strict=True):
        for name, by_snr in values.items():
            if name.startswith("recall_at_"):
                snrs = [np.sqrt(np.prod([float(edge) for edge in bounds.split("-")])) for bounds in by_snr]
                rate = 100 * float(name.removeprefix("recall_at_"))
                axes.plot(snrs, list(by_snr.values()), "o-", ms=4, label=f"{rate:g}% false alarms per window")
        axes.set(title=mode, xlabel="SNR of the faintest ON", ylabel="recall", ylim=(-0.03, 1.03), xscale="log")
        axes.set_xticks(snr_edges, map(str, snr_edges))
        axes.minorticks_off()
        axes.legend(fontsize=8)
