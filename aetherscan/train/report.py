"""A training as pictures, and as one page that stands alone: losses, latents, recovery, and what each stage cost."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from aetherscan.detector.detector import on_and_off
from aetherscan.detector.release import Release
from aetherscan.plotting.html import picture, table, write_html
from aetherscan.plotting.style import QUIET, SIGNAL
from aetherscan.train.forest import SNR_EDGES, LabelledFeatures

Rows = Sequence[Mapping[str, Any]]


def write_training(folder: Path, release: Release, history: Rows, stages: Rows, seen: LabelledFeatures) -> None:
    """Write `training.html`, and its pictures as PNG files, into `folder`."""
    modes = release.card["modes"]
    parts = [
        f"<h1>Training of {escape(release.name)}</h1>",
        picture("Losses", 3, lambda axes: _draw_losses(axes, history), folder / "losses.png"),
        picture("Latents", 2, lambda axes: _draw_latents(axes, seen), folder / "latents.png"),
        picture("Recovery", len(modes), lambda axes: _draw_recovery(axes, modes), folder / "recovery.png"),
    ]
    for mode, of in modes.items():
        names = list(of["compared"][0])[1:]
        rows = [[" + ".join(one["reads"]), *(f"{one[name]:.3f}" for name in names)] for one in of["compared"]]
        parts += [f"<h2>What a forest may read: {escape(mode)}</h2>", table(["reads", *names], rows)]
    names = list(dict.fromkeys(name for one in stages for name in one))
    rows = [[_cell(one.get(name, "")) for name in names] for one in stages]
    write_html(folder / "training.html", escape(release.name), [*parts, "<h2>Stages</h2>", table(names, rows)])


def _cell(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else escape(value)


def _draw_losses(panels: Sequence[Axes], history: Rows) -> bool:
    epochs = np.arange(1, len(history) + 1)
    for axes, names in zip(panels, (("loss",), ("kl", "kl_most", "clustering"), ("learning_rate",)), strict=True):
        for i, name in enumerate(names):
            axes.plot(epochs, [row[name] for row in history], marker=".", color=f"C{i}", label=name)
            if f"val_{name}" in (history or [{}])[0]:
                axes.plot(epochs, [row[f"val_{name}"] for row in history], ".:", color=f"C{i}", label=f"val_{name}")
        for epoch, (row, following) in enumerate(pairwise(history), 1):
            if row["round"] != following["round"]:
                axes.axvline(epoch + 0.5, color="#ddd", lw=0.8)
        axes.set(xlabel="epoch", yscale="log")
        axes.legend(fontsize=8)
    return bool(history)


def _draw_latents(panels: Sequence[Axes], shown: LabelledFeatures) -> bool:
    """Draw ONs' and OFFs' mean latents on the two axes along which they scatter most."""
    ons, offs = np.split(on_and_off(shown.latents), 2, axis=1)
    both = np.concatenate([ons, offs])
    centre = both.mean(axis=0)
    axes_of = np.linalg.svd(both - centre, full_matrices=False)[2][:2].T
    signal = shown.labels == 1
    for axes, which, title in zip(panels, (signal, ~signal), ("signals", "what is no signal"), strict=True):
        for name, points, color in (("ONs", ons, SIGNAL), ("OFFs", offs, QUIET)):
            x, y = ((points[which] - centre) @ axes_of).T
            axes.plot(x, y, ".", ms=3, alpha=0.5, color=color, label=name)
        axes.set(title=title, xlabel="first principal axis", ylabel="second")
        axes.legend(fontsize=8)
    return len(ons) > 1


def _draw_recovery(panels: Sequence[Axes], modes: Mapping[str, Any]) -> bool:
    for axes, (mode, of) in zip(panels, modes.items(), strict=True):
        for name, by_snr in of["metrics"].items():
            if name.startswith("recall_at_"):
                at = [np.sqrt(np.prod([float(edge) for edge in snr.split("-")])) for snr in by_snr]
                rate = 100 * float(name.removeprefix("recall_at_"))
                axes.plot(at, list(by_snr.values()), "o-", ms=4, label=f"{rate:g}% false a window")
        axes.set(title=mode, xlabel="SNR of the faintest ON", ylabel="recall", ylim=(-0.03, 1.03), xscale="log")
        axes.set_xticks(SNR_EDGES, map(str, SNR_EDGES))
        axes.minorticks_off()
        axes.legend(fontsize=8)
    return True
