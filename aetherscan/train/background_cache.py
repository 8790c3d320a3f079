"""TODO."""

import math
from collections.abc import Sequence
from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from numba import njit

from aetherscan.cadence.geometry import Geometry
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.search.cutouts import COARSEST, shade, shade_table, to_uint8, track_snippet
from aetherscan.search.dedoppler import LEVELS
from aetherscan.search.follow import DRIFT, START
from aetherscan.search.on_off import find_tracks
from aetherscan.simulate.injection import FWHM_TO_SIGMA, Emitter, add_line, row_edges_s
from aetherscan.simulate.interference import random_signal
from aetherscan.train.backgrounds import Source
from aetherscan.train.random_skies import ExampleSettings, draw_other
from aetherscan.train.streams import Stream, generator

MOST_FOUND, MOST_LINES = 32, 256
"""Of a background: snippets that are cut out, and tracks that are remembered."""
TRACKS = 256
"""Of tones, and as many of interference, that are drawn for a background; brightness and place are drawn each time."""


class BackgroundArrays(NamedTuple):
    """Backgrounds beside each other, and what may be injected into each; compiled code takes no other kind of class."""

    sigmas: Float32[np.ndarray, "places obs time freq"]
    noise: Float32[np.ndarray, "places obs level time"]  # of its rows' sums
    shades: UInt8[np.ndarray, "places obs time shades"]  # every bin of every binning, the finest first
    found: UInt8[np.ndarray, "places found obs time bins"]  # what a search finds, as it shows it
    counts: Int64[np.ndarray, "places 1"]  # of them
    lines: Float64[np.ndarray, "places lines"]  # tracks half-way through the cadence; infinite where there is none
    middles: Float64[np.ndarray, "places obs"]  # as in `Geometry`
    edges: Float64[np.ndarray, "places tracks obs edges"]  # channels of a line, from its first, where rows meet
    brightness: Float64[np.ndarray, "places tracks obs time"]  # of a line, in the sigmas of each row
    widths: Float64[np.ndarray, "places tracks"]  # sigma, in channels
    snrs: Float64[np.ndarray, "places tracks obs"]  # for tones, of one whose SNR is 1


def plan_of(settings: ExampleSettings, places: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return type and shape of each array of a shelf."""
    rows, chans, tracks = settings.rows, settings.chans, 2 * TRACKS
    each: dict[str, tuple[str, tuple[int, ...]]] = {
        "sigmas": ("f4", (6, rows, chans)),
        "noise": ("f4", (6, LEVELS, rows)),
        "shades": ("u1", (6, rows, 2 * chans)),
        "found": ("u1", (MOST_FOUND, 6, rows, settings.bins)),
        "counts": ("i8", (1,)),
        "lines": ("f8", (MOST_LINES,)),
        "middles": ("f8", (6,)),
        "edges": ("f8", (tracks, 6, rows + 1)),
        "brightness": ("f8", (tracks, 6, rows)),
        "widths": ("f8", (tracks,)),
        "snrs": ("f8", (tracks, 6)),
    }
    return {name: (kind, (places, *shape)) for name, (kind, shape) in each.items()}


def fill(shelf: BackgroundArrays, place: int, source: Source, number: int) -> None:
    """Search a background, and put it in its place with what may be injected into it."""
    settings, (equalized, cadence) = source.settings, source.equalized(number)
    tracks, rejections, _ = find_tracks(
        equalized, (0, settings.chans), cadence, SearchSettings(max_drift_hz_s=settings.max_drift_hz_s)
    )
    tracks = np.concatenate([tracks[rejections == ""], tracks[rejections == "in_an_off"]])
    lines = tracks[:MOST_LINES, START] + tracks[:MOST_LINES, DRIFT] * cadence.middles.mean()
    shelf.lines[place] = np.inf
    shelf.lines[place, : len(lines)] = lines
    shelf.counts[place] = min(len(tracks), MOST_FOUND)
    shape = (settings.rows, settings.bins)
    shown = [track_snippet(equalized, track, cadence, shape) for track in tracks[:MOST_FOUND]]
    shelf.found[place, : len(shown)] = to_uint8(shown, shape)
    shelf.sigmas[place], shelf.noise[place], shelf.middles[place] = equalized.sigmas, equalized.noise, cadence.middles
    shade_all(equalized.sigmas, equalized.noise, *shade_table(), shelf.shades[place])
    rng = generator(source.seed, Stream.LINES, source.split, number)
    header, strength = cadence.headers[0], strength_of(equalized)
    starts_s = (cadence.middles - settings.rows / 2) * header.tsamp
    edges_s = starts_s[:, None] + header.tsamp * np.arange(settings.rows + 1)
    for k in range(2 * TRACKS):
        drift = settings.max_drift_hz_s
        one = random_signal(rng, 0.0, 1.0, drift) if k < TRACKS else draw_other(rng, 0.0, drift)
        track = one.track_mhz(edges_s.ravel()) / header.foff
        shelf.edges[place, k] = track.reshape(edges_s.shape)
        shine = one.shine((edges_s[:, :-1] + header.tsamp / 2).ravel())
        shelf.brightness[place, k] = shine.reshape(strength.shape) * strength
        shelf.widths[place, k] = max(one.width_hz / cadence.hz * FWHM_TO_SIGMA, 1e-3)
        shelf.snrs[place, k] = one.snr


def strength_of(equalized: NormalizedBlock) -> Float32[np.ndarray, "obs time"]:
    """Return how bright a steady line is in each row, in its noise and at most 1: a burst's rows hide it."""
    strength = equalized.weights[:, 0] * equalized.noise[:, 0] ** 2
    return strength / np.maximum(strength.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)


def inject(equalized: NormalizedBlock, emitters: Sequence[Emitter], cadence: Geometry) -> None:
    """Put emitters into a background, in place; their SNR is in its noise."""
    header, strength = cadence.headers[0], strength_of(equalized).astype(np.float64)
    rows = strength.shape[1]
    for i, middle in enumerate(cadence.middles):
        times = row_edges_s((middle - rows / 2) * header.tsamp, rows, header.tsamp)
        for one in emitters:
            add_line(
                equalized.sigmas[i], (one.track_mhz(times) - header.fch1) / header.foff,
                width=one.width_hz / cadence.hz, snr=one.snr[i], noise=np.ones(rows),
                brightness=one.shine(times[:-1] + header.tsamp / 2) * strength[i],
            )  # fmt: skip


@njit(cache=True, nogil=True)
@no_type_check
def shade_all(
    sigmas: Float32[np.ndarray, "obs time freq"],
    noise: Float32[np.ndarray, "obs level time"],
    begins: UInt8[np.ndarray, " cells"],
    ends: Float32[np.ndarray, " shades"],
    out: UInt8[np.ndarray, "obs time bins"],
) -> None:
    """Fill `out` with every bin of every binning as it is shown, the finest first."""
    for i in range(sigmas.shape[0]):
        for t in range(sigmas.shape[1]):
            row = sigmas[i, t]
            for level in range(COARSEST + 1):
                width = 1 << level
                unit = np.float32(1 / (math.sqrt(width) * noise[i, level, t]))
                first = 2 * row.size - (2 * row.size >> level)
                for b in range(row.size >> level):
                    total = np.float32(0)
                    for k in range(b * width, (b + 1) * width):
                        total += row[k]
                    out[i, t, first + b] = shade(total * unit, begins, ends)
