"""Draw a candidate as a waterfall through the observations of its cadence.

The picture is read first as a thumbnail about 360 pixels wide, so it has few words, in large type: what was found, and
for each scan whether it is an ON or an OFF, when it started (UTC) and how strong the track is in it.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from aetherscan.cadence.roles import printable
from aetherscan.header import ABSENT, SECONDS_PER_DAY, Header, utc_of
from aetherscan.io import Observation
from aetherscan.io.binning import bin_rows
from aetherscan.plotting.style import FOOT_IN, HEAD_IN, INK, MASKED, PANELS, QUIET, SIGNAL, TRACK
from aetherscan.search.bandpass import normalize_bandpass
from aetherscan.search.candidates import Candidate

__all__ = ["Figure", "draw_waterfall", "track_hz", "waterfall_png"]

BINS = 230
"""Approximate number of bins across a panel: a bin of a thin line stays visible in a thumbnail."""
MARGIN_HZ = 700.0
LOWEST = -1.5
"""Lower end of the color scale, sigma: noise stays dark."""
HIGHEST = (6.0, 20.0)
"""Limits of the upper end: the scale follows the brightest pixel, but a faint copy in an OFF stays visible."""
WIDTH_IN, PANEL_IN, TEXT_IN = 7.2, 0.95, 1.7
"""Width of the picture, height of a panel, and height of the text above and below the panels, in inches."""
LARGE, SMALL = 15, 12.5
"""Sizes of type, points: 10 and 8 pixels high in a thumbnail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One observation around a candidate."""

    header: Header
    sigmas: Float32[np.ndarray, "time bins"]  # noise has a scatter of 1; NaN where nothing was measured
    edges_hz: tuple[float, float]  # of the first and the last bin, from the frequency of the candidate
    start_s: float  # after the start of the first ON


def waterfall_png(
    observations: Sequence[Observation],
    candidate: Candidate,
    on: tuple[int, ...] = (0, 2, 4),
    dpi: int = 100,
    *,
    track: bool = True,
) -> bytes:
    """Return a PNG of the figure that `draw_waterfall` draws.

    Args:
        observations: open, in time order.
        candidate: what is drawn.
        on: positions of the ONs.
        dpi: resolution of the picture, in dots per inch.
        track: whether to draw the lines beside the track.
    """
    stream = io.BytesIO()
    draw_waterfall(observations, candidate, on, dpi, track=track).savefig(stream, format="png")
    return stream.getvalue()


def draw_waterfall(
    observations: Sequence[Observation],
    candidate: Candidate,
    on: tuple[int, ...] = (0, 2, 4),
    dpi: int = 100,
    *,
    track: bool = True,
) -> Figure:
    """Draw the observations around a candidate, one above the other in time order.

    A pixel is in units of its own noise, and all panels have one color scale. Pixels that were not measured are gray.
    Dashed lines on either side of the candidate's track show where it is, or would be, in every observation.

    Args:
        observations: open, in time order.
        candidate: the band drawn covers its track and a margin on either side.
        on: positions of the ONs.
        dpi: resolution of the picture, in dots per inch.
        track: whether to draw the lines beside the track.
    """
    observations = bin_rows(observations)
    first_on = observations[on[0]].header.tstart
    starts_s = [(observation.header.tstart - first_on) * SECONDS_PER_DAY for observation in observations]
    ends_s = [at_s + observation.header.duration_s for at_s, observation in zip(starts_s, observations, strict=True)]
    travel_hz = [track_hz(candidate, at_s) for at_s in (*starts_s, *ends_s)]
    margin_hz = MARGIN_HZ + 3 * candidate.bandwidth_hz
    band_hz = (min(travel_hz) - margin_hz, max(travel_hz) + margin_hz)
    panels = [
        _panel(observation, candidate, band_hz, at_s) for observation, at_s in zip(observations, starts_s, strict=True)
    ]
    height_in = TEXT_IN + PANEL_IN * len(panels)
    figure = Figure(figsize=(WIDTH_IN, height_in), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"hspace": 0.08})[:, 0]
    left, right = PANELS
    figure.subplots_adjust(left=left, right=right, top=1 - HEAD_IN / height_in, bottom=FOOT_IN / height_in)
    highest = _highest(panels)
    for i, (axes, panel) in enumerate(zip(grid, panels, strict=True)):
        image = _draw_panel(axes, panel, highest)
        if track:
            _draw_track(axes, panel, candidate, band_hz)
        _label(axes, panel, candidate.snr[i], is_on=i in on)
        axes.set_xlim(band_hz)
    _draw_scale(figure, image, panels, height_in)
    _draw_text(figure, grid[-1], candidate, panels[on[0]].header, height_in)
    return figure


def track_hz(candidate: Candidate, at_s: float) -> float:
    """Return how far a candidate is from its frequency, at a time after the start of the first ON."""
    return candidate.drift_rate_hz_s * at_s + candidate.curvature_hz_s2 / 2 * at_s**2


def _panel(observation: Observation, candidate: Candidate, band_hz: tuple[float, float], start_s: float) -> Panel:
    header = observation.header
    ends = sorted(header.channel(candidate.frequency_mhz + hz * 1e-6) for hz in band_hz)
    start, stop = max(0, int(ends[0])), min(header.nchans, int(ends[1]) + 1)
    factor = max(1, round((stop - start) / BINS))
    stop -= (stop - start) % factor
    sigmas = np.empty((header.ntime, stop - start), dtype=np.float32)
    normalize_bandpass(observation.read(start, stop), 0, sigmas)
    bins = sigmas.reshape(header.ntime, -1, factor)
    measured = (bins != 0).sum(axis=2)  # `normalize_bandpass` writes 0 where nothing was measured
    with np.errstate(invalid="ignore"):
        scaled = bins.sum(axis=2) / np.sqrt(measured, dtype=np.float32)
    left_hz, right_hz = ((header.frequency(c - 0.5) - candidate.frequency_mhz) * 1e6 for c in (start, stop))
    return Panel(header=header, sigmas=scaled, edges_hz=(left_hz, right_hz), start_s=start_s)


def _highest(panels: Sequence[Panel]) -> float:
    """Return the upper end of the color scale of all panels, sigma."""
    brightest = max((float(np.nanmax(panel.sigmas)) for panel in panels if np.isfinite(panel.sigmas).any()), default=0)
    return float(np.clip(np.ceil(brightest), *HIGHEST))


def _draw_panel(axes: Any, panel: Panel, highest: float) -> Any:
    seconds = panel.header.duration_s
    image = axes.imshow(
        np.ma.masked_invalid(panel.sigmas),
        aspect="auto",
        interpolation="nearest",
        cmap=colormaps["magma"].with_extremes(bad=MASKED),
        vmin=LOWEST,
        vmax=highest,
        extent=(*panel.edges_hz, seconds, 0.0),
    )
    axes.set_facecolor(MASKED)
    axes.set_yticks([])
    axes.tick_params(labelsize=SMALL, colors=INK)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    if panel.header.source_name == ABSENT:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", fontsize=LARGE, color=INK)
    return image


def _draw_track(axes: Any, panel: Panel, candidate: Candidate, band_hz: tuple[float, float]) -> None:
    """Draw a line on either side of the track, so that neither covers the signal."""
    seconds = np.linspace(0, panel.header.duration_s, 25)
    hz = np.array([track_hz(candidate, panel.start_s + at_s) for at_s in seconds])
    beside_hz = candidate.bandwidth_hz + 0.018 * (band_hz[1] - band_hz[0])
    for side in (-beside_hz, beside_hz):
        axes.plot(hz + side, seconds, color=TRACK, linewidth=1.6, linestyle=(0, (3, 2)))
    axes.set_ylim(panel.header.duration_s, 0)


def _label(axes: Any, panel: Panel, snr: float, *, is_on: bool) -> None:
    role, color = ("ON", SIGNAL) if is_on else ("OFF", QUIET)
    absent = panel.header.source_name == ABSENT
    words: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "center", "parse_math": False}
    strength = "missing" if absent else f"SNR {snr:.{1 if abs(snr) < 1000 else 0}f}"
    axes.text(-0.025, 0.70, f"{role}  {utc_of(panel.header.tstart):%H:%M:%S}", fontsize=LARGE, color=color, **words)
    axes.text(-0.025, 0.30, strength, fontsize=LARGE, color=color, **words)


def _draw_scale(figure: Figure, image: Any, panels: Sequence[Panel], height_in: float) -> None:
    """Draw the color bar of all panels."""
    brighter = any(np.nanmax(panel.sigmas, initial=0) > image.norm.vmax for panel in panels)
    bottom, top = FOOT_IN / height_in, 1 - HEAD_IN / height_in
    bar = Colorbar(
        figure.add_axes((0.893, bottom, 0.022, top - bottom)), image, extend="max" if brighter else "neither"
    )
    bar.set_label("SNR of a pixel (sigma)", fontsize=SMALL, color=INK, labelpad=2)
    bar.ax.tick_params(labelsize=SMALL, colors=INK)
    bar.locator = MaxNLocator(4, integer=True)
    bar.update_ticks()


def _draw_text(figure: Figure, lowest: Any, candidate: Candidate, first_on: Header, height_in: float) -> None:
    """Write what was found above the panels, and the axes below them."""
    score = "not scored" if candidate.probability is None else f"p {candidate.probability:.2f}"
    bend = f" {candidate.curvature_hz_s2:+.1e} Hz/s²" if candidate.curvature_hz_s2 else ""
    found = f"{candidate.drift_rate_hz_s:+.3f} Hz/s{bend}   width {candidate.bandwidth_hz:.1f} Hz   {score}"
    head = f"{printable(candidate.target)[:22]}   {candidate.frequency_mhz:.6f} MHz"
    words: dict[str, Any] = {"color": INK, "va": "top", "x": 0.5, "ha": "center", "parse_math": False}
    figure.text(s=head, y=1 - 0.10 / height_in, fontsize=18, fontweight="bold", **words)
    figure.text(s=found, y=1 - 0.48 / height_in, fontsize=LARGE - len(bend) / 6, **words)
    lowest.set_xlabel(f"Hz from {candidate.frequency_mhz:.6f} MHz", fontsize=SMALL, color=INK)
    scans = f"start of each scan: {utc_of(first_on.tstart):%Y-%m-%d} UTC; time runs down, {first_on.duration_s:.0f} s"
    figure.text(s=scans, y=0.20 / height_in, fontsize=SMALL - 2.5, **words)
