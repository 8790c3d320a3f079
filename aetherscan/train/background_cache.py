"""Hold backgrounds in memory, searched, with the lines that may be injected into them.

Backgrounds are stored twice: as float32 channels, and as uint8 bins at every binning level. An example copies the uint8
bins and recomputes only those that an injected line touches.

Lines that a search finds in a background are cut out as examples of interference. Their positions are stored, so that
an example without interference can be taken from a place between them.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from aetherscan.cadence.geometry import Geometry
from aetherscan.kernels import njit
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import NormalizedBlock
from aetherscan.search.cutouts import COARSEST, quantization_table, quantize, to_uint8, track_snippet
from aetherscan.search.follow import channels_at
from aetherscan.search.on_off import find_tracks
from aetherscan.search.row_weights import LEVELS
from aetherscan.simulate.injection import FWHM_TO_SIGMA, Emitter, add_line, row_edges_s
from aetherscan.simulate.interference import random_signal
from aetherscan.train.backgrounds import Source
from aetherscan.train.random_skies import ExampleSettings, draw_interference
from aetherscan.train.streams import Stream, generator

MOST_DETECTIONS, MOST_TRACKS = 32, 256
"""Most snippets and most track positions that are stored of what a search finds in a background."""
LINES = 256
"""Signals drawn for each background, and as many lines of interference. SNR and position are drawn for each example."""


class BackgroundArrays(NamedTuple):
    """Backgrounds and the lines that may be injected into each. A named tuple, because Numba takes no dataclass."""

    sigmas: Float32[np.ndarray, "places obs time freq"]
    noise: Float32[np.ndarray, "places obs level time"]  # of the rows' sums at each binning
    bins: UInt8[np.ndarray, "places obs time all_levels"]  # every bin at every binning level, the finest first
    detections: UInt8[np.ndarray, "places found obs time bins"]  # snippets of what a search finds
    counts: Int64[np.ndarray, "places 1"]  # of detections
    tracks: Float64[np.ndarray, "places tracks"]  # channels at mid-cadence of what a search finds; infinite: none
    middles: Float64[np.ndarray, "places obs"]  # as in `Geometry`
    edges: Float64[np.ndarray, "places lines obs edges"]  # channels from the line's start, at the edges of the rows
    brightness: Float64[np.ndarray, "places lines obs time"]  # of a line in each row, relative to the row's sigma
    widths: Float64[np.ndarray, "places lines"]  # sigma, in channels
    snrs: Float64[np.ndarray, "places lines obs"]  # for signals, per unit of SNR


def empty_arrays(settings: ExampleSettings, places: int) -> BackgroundArrays:
    """Return arrays of zeros for so many backgrounds."""
    rows, chans, lines = settings.rows, settings.chans, 2 * LINES
    shapes: dict[str, tuple[type, tuple[int, ...]]] = {
        "sigmas": (np.float32, (6, rows, chans)),
        "noise": (np.float32, (6, LEVELS, rows)),
        "bins": (np.uint8, (6, rows, 2 * chans)),
        "detections": (np.uint8, (MOST_DETECTIONS, 6, rows, settings.bins)),
        "counts": (np.int64, (1,)),
        "tracks": (np.float64, (MOST_TRACKS,)),
        "middles": (np.float64, (6,)),
        "edges": (np.float64, (lines, 6, rows + 1)),
        "brightness": (np.float64, (lines, 6, rows)),
        "widths": (np.float64, (lines,)),
        "snrs": (np.float64, (lines, 6)),
    }
    return BackgroundArrays(**{name: np.zeros((places, *shape), kind) for name, (kind, shape) in shapes.items()})


def load_background(arrays: BackgroundArrays, source: Source, place: int, number: int) -> None:
    """Search a background, and write it into `arrays` with the lines that may be injected into it.

    Args:
        arrays: written in place.
        source: of backgrounds.
        place: index in `arrays`.
        number: of the background in `source`; it determines the lines.

    Raises:
        ReadError: a file changed since it was chosen.
    """
    settings, (background, cadence) = source.settings, source.normalized(number)
    gates = SearchSettings(max_drift_hz_s=settings.max_drift_hz_s).gates
    tracks, rejections, _ = find_tracks(background, cadence, gates)
    tracks = np.concatenate([tracks[rejections == ""], tracks[rejections == "in_an_off"]])
    positions = channels_at(tracks[:MOST_TRACKS], cadence.middles.mean())[:, 0]
    arrays.tracks[place] = np.inf
    arrays.tracks[place, : len(positions)] = positions
    arrays.counts[place] = min(len(tracks), MOST_DETECTIONS)
    shape = (settings.rows, settings.bins)
    snippets = [track_snippet(background, track, cadence, shape) for track in tracks[:MOST_DETECTIONS]]
    arrays.detections[place, : len(snippets)] = to_uint8(snippets, shape)
    arrays.sigmas[place], arrays.noise[place] = background.sigmas, background.noise
    arrays.middles[place] = cadence.middles
    quantize_levels(background.sigmas, background.noise, *quantization_table(), arrays.bins[place])
    rng = generator(source.seed, Stream.LINES, source.split, number)
    header, strength = cadence.headers[0], row_strength(background)
    starts_s = (cadence.middles - settings.rows / 2) * header.tsamp
    edges_s = starts_s[:, None] + header.tsamp * np.arange(settings.rows + 1)
    for k in range(2 * LINES):
        drift = settings.max_drift_hz_s
        emitter = random_signal(rng, 0.0, 1.0, drift) if k < LINES else draw_interference(rng, 0.0, drift)
        arrays.edges[place, k] = (emitter.track_mhz(edges_s.ravel()) / header.foff).reshape(edges_s.shape)
        brightness = emitter.brightness((edges_s[:, :-1] + header.tsamp / 2).ravel())
        arrays.brightness[place, k] = brightness.reshape(strength.shape) * strength
        arrays.widths[place, k] = max(emitter.width_hz / cadence.hz * FWHM_TO_SIGMA, 1e-3)
        arrays.snrs[place, k] = emitter.snr


def row_strength(background: NormalizedBlock) -> Float32[np.ndarray, "obs time"]:
    """Return the strength of a steady line in each row, in sigma, relative to the row where it is strongest.

    Rows of a burst have more noise, so a line is fainter in them.
    """
    strength = background.weights[:, 0] * background.noise[:, 0] ** 2
    return strength / np.maximum(strength.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)


def inject(background: NormalizedBlock, emitters: Sequence[Emitter], cadence: Geometry) -> None:
    """Add emitters to a background, in place; their SNR refers to its noise."""
    header, strength = cadence.headers[0], row_strength(background).astype(np.float64)
    rows = strength.shape[1]
    for i, middle in enumerate(cadence.middles):
        times = row_edges_s((middle - rows / 2) * header.tsamp, rows, header.tsamp)
        for emitter in emitters:
            add_line(
                background.sigmas[i], (emitter.track_mhz(times) - header.fch1) / header.foff,
                width=emitter.width_hz / cadence.hz, snr=emitter.snr[i], noise=np.ones(rows),
                brightness=emitter.brightness(times[:-1] + header.tsamp / 2) * strength[i],
            )  # fmt: skip


@njit(cache=True, nogil=True)
@no_type_check
def quantize_levels(
    sigmas: Float32[np.ndarray, "obs time freq"],
    noise: Float32[np.ndarray, "obs level time"],
    begins: UInt8[np.ndarray, " cells"],
    ends: Float32[np.ndarray, " values"],
    out: UInt8[np.ndarray, "obs time all_levels"],
) -> None:
    """Compute every bin at every binning level as uint8, the finest level first.

    Args:
        sigmas: normalized observations.
        noise: sigma of the rows' sums at each level.
        begins: first part of the quantization table.
        ends: second part of the table.
        out: overwritten with the bins.
    """
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
                    out[i, t, first + b] = quantize(total * unit, begins, ends)
