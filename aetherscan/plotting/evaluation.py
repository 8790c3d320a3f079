"""Draw the figures of an evaluation: recall, calibration, thresholds and cost."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes

from aetherscan.plotting.style import INK, QUIET, SIGNAL, TRACK

Curve = Float64[np.ndarray, "_ 4"]
"""SNR, recall, and the lower and upper bound of its interval."""
RECALL_LIMITS = (-0.03, 1.03)
SNR_TICKS = (3, 4, 5, 6, 8, 10, 15, 20, 30, 60)
COMPARED = (SIGNAL, "C0", "C1", "C2", "C4", "C5")
"""Colors of at most six searches."""
BESIDE = 1.012
"""Factor in SNR from one curve to the next, so that their intervals do not cover each other."""


def draw_recall(panels: Sequence[Axes], tones: Curve, others: Mapping[str, Curve]) -> bool:
    """Draw recall against SNR, of tones in the zoo and of other scenarios; return whether there is a curve."""
    _draw_curve(panels[0], tones, "tones", SIGNAL)
    for i, (scenario, curve) in enumerate(others.items()):
        _draw_curve(panels[1], curve, scenario, f"C{i}", BESIDE ** (i - len(others) / 2))
    for axes, title in zip(panels, ("tones in the zoo", "other scenarios"), strict=True):
        axes.set(xlabel="SNR in each ON", ylabel="recall", ylim=RECALL_LIMITS, title=title)
        axes.set_xscale("log")
        axes.set_xticks(SNR_TICKS, map(str, SNR_TICKS))
        axes.minorticks_off()
        axes.grid(color="#eee")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="lower right")
    return bool(len(tones) or others)


def _draw_curve(axes: Axes, curve: Curve, label: str, color: str, beside: float = 1.0) -> None:
    if len(curve):
        snr, recall, low, high = curve.T
        bounds = (recall - low, high - recall)
        axes.errorbar(snr * beside, recall, yerr=bounds, label=label, color=color, marker="o", ms=4, capsize=2, lw=1.2)


def draw_comparison(
    panels: Sequence[Axes], curves: Mapping[str, Curve], alarms: Mapping[str, tuple[float, float, float]]
) -> None:
    """Draw the recall of several searches against SNR, and their alarms per 100 MHz, each with its interval.

    Args:
        panels: two.
        curves: by search: SNR, recall and its interval.
        alarms: by search: alarms per 100 MHz and their interval; searches without alarms of their own are left out.
    """
    colors = dict(zip(curves, COMPARED, strict=False))
    for i, (name, curve) in enumerate(curves.items()):
        _draw_curve(panels[0], curve, name, colors[name], BESIDE ** (i - len(curves) / 2))
    panels[0].set(xlabel="SNR in each ON", ylabel="recall", ylim=RECALL_LIMITS, xscale="log")
    panels[0].set_xticks(SNR_TICKS, map(str, SNR_TICKS))
    panels[0].minorticks_off()
    panels[0].legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    for name, (rate, low, high) in reversed(list(alarms.items())):
        panels[1].errorbar(rate, name, xerr=[[rate - low], [high - rate]], color=colors[name], marker="o", capsize=3)
    panels[1].set(xlabel="alarms per 100 MHz", xscale="symlog", xlim=(-0.2, None), ylim=(-0.5, len(alarms) - 0.5))
    for axes in panels:
        axes.grid(color="#eee")


def draw_sensitivity(panels: Sequence[Axes], curves: Mapping[str, Mapping[str, Curve]]) -> bool:
    """Draw recall against the power of a transmitter, a panel for each telescope and a curve for each distance.

    Args:
        panels: one for each telescope.
        curves: telescope: distance: EIRP in W, recall and its interval.

    Returns:
        Whether there is a curve.
    """
    for axes, (telescope, by_distance) in zip(panels, curves.items(), strict=True):
        for i, (distance, curve) in enumerate(by_distance.items()):
            _draw_curve(axes, curve, distance, f"C{i}")
        axes.set(xlabel="EIRP of a line of one channel, W", ylabel="recall", ylim=RECALL_LIMITS, title=telescope)
        axes.set_xscale("log")
        axes.grid(color="#eee")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8, loc="lower right", title="distance")
    return any(len(curve) for by_distance in curves.values() for curve in by_distance.values())


def draw_recall_grid(panels: Sequence[Axes], grids: Mapping[str, Mapping[tuple[str, str], tuple[int, int]]]) -> bool:
    """Draw recall by SNR and by another label as colored cells, each with its counts.

    Args:
        panels: one for each grid.
        grids: label: (SNR, bin such as '0.1-0.5 Hz/s'): tones found, tones.

    Returns:
        Whether there is a cell.
    """
    for axes, (label, counts) in zip(panels, grids.items(), strict=True):
        snrs = sorted({snr for snr, _ in counts}, key=float)
        bins = sorted({name for _, name in counts}, key=lambda name: float(name.split("-")[0]))
        recall = np.full((len(bins), len(snrs)), np.nan)
        for (snr, name), (found, total) in counts.items():
            row, column = bins.index(name), snrs.index(snr)
            recall[row, column] = found / total
            color = "white" if found / total > 0.6 else INK
            axes.text(column, row, f"{found}/{total}", ha="center", va="center", fontsize=6.5, color=color)
        if counts:
            axes.imshow(recall, vmin=0, vmax=1, cmap="Blues", aspect="auto")
        axes.set(xlabel="SNR in each ON", title=f"recall by {label}")
        axes.set_xticks(range(len(snrs)), snrs)
        axes.set_yticks(range(len(bins)), bins)
    return any(grids.values())


def draw_calibration(
    axes: Axes,
    mean: Float64[np.ndarray, " bins"],
    fraction: Float64[np.ndarray, " bins"],
    low: Float64[np.ndarray, " bins"],
    high: Float64[np.ndarray, " bins"],
    counts: Float64[np.ndarray, " bins"],
) -> None:
    """Draw the fraction of detections that are signals against their probability.

    Args:
        axes: to draw on.
        mean: mean probability of each bin.
        fraction: fraction of the bin's detections that are signals.
        low: lower bound of the fraction's interval.
        high: upper bound of the fraction's interval.
        counts: detections in each bin.
    """
    axes.plot([0, 1], [0, 1], ":", color=QUIET)
    axes.errorbar(mean, fraction, yerr=(fraction - low, high - fraction), fmt="o", color=SIGNAL)
    for x, y, count in zip(mean, fraction, counts, strict=True):
        axes.annotate(f"{count:.0f}", (x, y), (4, 4), textcoords="offset points", fontsize=7)
    axes.set(xlabel="probability", ylabel="fraction of detections that are signals")
    axes.set(xlim=(0, 1.02), ylim=RECALL_LIMITS)


def draw_threshold_curve(
    axes: Axes,
    alarms: Float64[np.ndarray, " thresholds"],
    bright_recall: Float64[np.ndarray, " thresholds"],
    faint_recall: Float64[np.ndarray, " thresholds"],
) -> None:
    """Draw recall against alarms at several thresholds.

    Args:
        axes: to draw on.
        alarms: per 100 MHz of the zoo.
        bright_recall: recall of tones of SNR 10 and more.
        faint_recall: recall of tones of SNR 8.
    """
    for recall, label, color in ((bright_recall, "SNR >= 10", SIGNAL), (faint_recall, "SNR 8", TRACK)):
        axes.plot(alarms, recall, ".-", color=color, label=label)
    axes.set(xlabel="alarms per 100 MHz of the zoo", ylabel="recall", ylim=RECALL_LIMITS)
    axes.set(xscale="symlog", xlim=(0, None))
    axes.legend(fontsize=8, loc="lower right")


def draw_costs(axes: Axes, costs: Mapping[str, Mapping[str, float]]) -> bool:
    """Draw seconds per 100 MHz, given by scenario and stage, as stacked bars; return whether there is a bar."""
    stages = list(dict.fromkeys(stage for by_stage in costs.values() for stage in by_stage))
    left = np.zeros(len(costs))
    for i, stage in enumerate(stages):
        seconds = np.array([by_stage.get(stage, 0.0) for by_stage in costs.values()])
        axes.barh(list(costs), seconds, left=left, color=f"C{i}", label=stage)
        left += seconds
    if stages:
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.invert_yaxis()
    axes.set(xlabel="seconds of work per 100 MHz of a cadence")
    return bool(stages)
