"""Draw a candidate as a waterfall through the six observations of its cadence."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.markers import CARETDOWN, CARETUP
from matplotlib.ticker import MaxNLocator

from aetherscan.cadence.roles import printable
from aetherscan.header import SECONDS_PER_DAY
from aetherscan.io import Observation
from aetherscan.io.binning import bin_rows
from aetherscan.plotting.style import INK, QUIET, SIGNAL, TRACK
from aetherscan.search.bandpass import normalize_bandpass
from aetherscan.search.candidates import Candidate

PIXELS = 320
"""Approximate number of bins across a panel."""
MARGIN_HZ = 700.0


def waterfall_png(
    observations: Sequence[Observation], candidate: Candidate, on: tuple[int, ...] = (0, 2, 4), dpi: int = 110
) -> bytes:
    """Return a PNG of the observations around a candidate, one above the other in time order.

    Power is in units of each row's own noise. Carets at a panel's upper and lower edge mark where the candidate's
    track enters and leaves the observation.

    Args:
        observations: open, in time order.
        candidate: the band drawn covers its track and a margin on either side.
        on: positions of the ONs.
        dpi: resolution of the picture, in dots per inch.
    """
    observations = bin_rows(observations)
    headers = [observation.header for observation in observations]
    starts_s = [(header.tstart - headers[on[0]].tstart) * SECONDS_PER_DAY for header in headers]
    ends_s = [at_s + header.duration_s for at_s, header in zip(starts_s, headers, strict=True)]
    travel_hz = [_track_hz(candidate, at_s) for at_s in (*starts_s, *ends_s)]
    margin_hz = MARGIN_HZ + 3 * candidate.bandwidth_hz
    low_hz, high_hz = min(travel_hz) - margin_hz, max(travel_hz) + margin_hz
    height = 1.8 + 1.1 * len(headers)
    figure = Figure(figsize=(7.2, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(headers), 1, sharex=True, gridspec_kw={"hspace": 0.09})
    for i, (panel, observation) in enumerate(zip(panels, observations, strict=True)):
        header = observation.header
        edges = sorted(header.channel(candidate.frequency_mhz + hz * 1e-6) for hz in (low_hz, high_hz))
        start, stop = max(0, int(edges[0])), min(header.nchans, int(edges[1]) + 1)
        factor = max(1, (stop - start) // PIXELS)
        sigmas = np.empty((header.ntime, stop - start), dtype=np.float32)
        normalize_bandpass(observation.read(start, stop), 0, sigmas)
        bins = sigmas[:, : sigmas.shape[1] // factor * factor].reshape(header.ntime, -1, factor)
        edges_hz = [(header.frequency(c - 0.5) - candidate.frequency_mhz) * 1e6 for c in (start, stop)]
        panel.imshow(
            bins.sum(axis=2) / factor**0.5,
            aspect="auto",
            interpolation="nearest",
            cmap="magma",
            vmin=-1.5,
            vmax=8.0,
            extent=(edges_hz[0], edges_hz[1], header.duration_s, 0.0),
        )
        for at_s, caret in ((0.0, CARETDOWN), (header.duration_s, CARETUP)):
            track_hz = _track_hz(candidate, starts_s[i] + at_s)
            panel.plot(track_hz, at_s, marker=caret, color=TRACK, markersize=5, clip_on=False, zorder=5)
        role, color = ("ON", SIGNAL) if i in on else ("OFF", QUIET)
        label = f"{role}\n{printable(header.source_name)[:14]}\nSNR {candidate.snr[i]:.1f}"
        panel.set_ylabel(label, color=color, rotation=0, labelpad=34, fontsize=9, va="center", parse_math=False)
        panel.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        panel.tick_params(labelsize=8, colors=INK)
        panel.set_xlim(low_hz, high_hz)
    panels[-1].set_xlabel(f"Hz from {candidate.frequency_mhz:.6f} MHz     (rows: seconds)", color=INK)
    bend = f" {candidate.curvature_hz_s2:+.1e} Hz/s²" if candidate.curvature_hz_s2 else ""
    probability = "not scored" if candidate.probability is None else f"P {candidate.probability:.2f}"
    figure.suptitle(
        f"{printable(candidate.target)[:40]}   {candidate.frequency_mhz:.6f} MHz\n"
        f"drift {candidate.drift_rate_hz_s:+.3f} Hz/s{bend}   width {candidate.bandwidth_hz:.1f} Hz   "
        f"{probability}   MJD {candidate.tstart_mjd:.5f}",
        fontsize=11, color=INK, y=1 - 0.21 / height, parse_math=False,
    )  # fmt: skip
    figure.subplots_adjust(left=0.16, right=0.97, top=1 - 0.71 / height, bottom=0.5 / height)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _track_hz(candidate: Candidate, at_s: float) -> float:
    """Return how far a candidate is from its frequency, at a time after the start of the first ON."""
    return candidate.drift_rate_hz_s * at_s + candidate.curvature_hz_s2 / 2 * at_s**2
