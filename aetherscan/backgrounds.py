"""Backgrounds to inject into, searched once by the code that serves and kept ready to be shown.

A background is six observations of a piece of band in units of their noise, as the search has them. It is simulated,
or put together from plates (windows of `.npy` files, each equalized alone and laid side by side), or a piece of the
band of a cadence in files. What the search finds there is no signal: it is cut out as the service would show it. All
bins of every binning are kept as the bytes that they are shown as, beside the native channels, so that an example costs
a copy of what is untouched, and work only where something is injected.

A binned snippet begins on a whole bin of its binning. What is injected keeps its own place in it to a fraction of a
channel; it is the background that lies up to half a bin beside where it was.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from numba import njit

from aetherscan.cadence import FIRST, find_cadences
from aetherscan.dedoppler import LEVELS
from aetherscan.errors import CadenceError, FormatError
from aetherscan.geometry import Geometry, geometry_of
from aetherscan.inject import FWHM_TO_SIGMA, Emitter, add_line, line_shares, row_edges_s
from aetherscan.io import open_observation
from aetherscan.normalize import in_shades, shade, shade_table
from aetherscan.patches import COARSE, ExampleSettings, draw_emitters, draw_other, draw_power, patch_header
from aetherscan.simulate import Sky, random_signal
from aetherscan.track import DRIFT, START
from aetherscan.tracks import (
    COARSEST,
    WINDOW_LEVEL,
    Equalized,
    SearchSettings,
    equalize_arrays,
    find_tracks,
    track_snippet,
)

PLATE, PLATES = 4096, ".npy"
"""Channels of a plate; the seeds' files are (plates, 6, rows, channels)."""
MOST_FOUND, MOST_LINES = 32, 256
"""Of a background: snippets that are cut out, and tracks that are remembered."""
TRACKS = 256
"""Of tones, and as many of interference, that are drawn for a background; brightness and place are drawn each time."""
QUIET_CHANNEL = COARSE // 4
"""Where in a coarse channel a plate is said to lie: away from its spike, which the plate need not have."""

Part = tuple[tuple[str, ...], list[int]]
"""What a background is made of: a file and its plates, or six files and a first channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where backgrounds come from: simulated where there are no parts; `count` of them before they come again."""

    settings: ExampleSettings
    seed: tuple[int, ...]
    count: int
    parts: tuple[Part, ...] = ()

    def equalized(self, number: int) -> tuple[Equalized, Geometry]:
        """Return a background in units of its noise, and a cadence that begins with its first channel.

        Raises:
            ReadError: a file is not what it was when it was chosen.
        """
        settings, number = self.settings, number % self.count
        cadence = geometry_of(Sky(header=replace(patch_header(settings), nchans=COARSE)).headers())
        if not self.parts:
            rng = np.random.default_rng([*self.seed, number])
            _, others = draw_emitters(rng, replace(settings, tones=0))
            return equalize_arrays(draw_power(rng, others, settings), cadence, channel=QUIET_CHANNEL), cadence
        paths, where = self.parts[number]
        if not paths[0].endswith(PLATES):
            return _piece(paths, where[0], settings)
        held = open_plates(Path(paths[0]), (settings.rows, settings.bins))
        powers = (np.array(held[k], dtype=np.float32) for k in where)
        plates = [equalize_arrays(power, cadence, channel=QUIET_CHANNEL) for power in powers]
        beside = Equalized(
            sigmas=np.concatenate([plate.sigmas for plate in plates], axis=-1),
            noise=np.median([plate.noise for plate in plates], axis=0),
            weights=np.median([plate.weights for plate in plates], axis=0),
        )
        return beside, cadence


def open_plates(path: Path, shape: tuple[int, int], levels: Sequence[int] = (WINDOW_LEVEL,)) -> np.ndarray:
    """Return the plates in `path`, read as they are used: snippets of `shape` (rows, bins), each bin 2**level channels.

    Raises:
        FormatError: they are none, or of other windows.
    """
    widths = [shape[1] << level for level in levels]
    try:
        plates = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise FormatError(f"{path}: expected plates in an .npy file of numbers, found {error}") from error
    if plates.shape[1:] not in [(6, shape[0], width) for width in widths] or plates.dtype.kind not in "fiu":
        expected = " or ".join(f"(n, 6, {shape[0]}, {width})" for width in widths)
        raise FormatError(f"{path}: expected numbers of shape {expected}, found {plates.dtype} of {plates.shape}")
    return plates


def _piece(paths: tuple[str, ...], first: int, settings: ExampleSettings) -> tuple[Equalized, Geometry]:
    with ExitStack() as opened:
        six = [opened.enter_context(open_observation(Path(path))) for path in paths]
        cadence = geometry_of([one.header for one in six])
        power = np.stack([one.read(first, first + settings.chans)[: settings.rows] for one in six])
    equalized = equalize_arrays(power, replace(cadence, rows=settings.rows), channel=first)
    headers = tuple(replace(one, fch1=one.frequency(first), nchans=settings.chans) for one in cadence.headers)
    return equalized, replace(cadence, headers=headers, rows=settings.rows)


def sources(
    files: Sequence[Path], settings: ExampleSettings, seed: int, plates: int, chunk: int, chunks: int
) -> tuple[Source, ...]:
    """Return where backgrounds to learn on come from, and others to validate on: whole files where there are several.

    Args:
        files: plates, or observations that make cadences; simulated where there are none.
        settings: of examples.
        seed: of simulated skies, and of the order of real ones.
        plates: most backgrounds of `PLATE` channels to use.
        chunk: of those, how many that lie together in a file are taken together.
        chunks: how many times, at most, from one file or cadence, evenly over it.

    Raises:
        FormatError: a file holds something else than plates.
        CadenceError: no cadence in the files, or none wide and long enough.
    """
    count = max(1, plates * PLATE // settings.chans)
    if not files:
        validated = max(1, count // 8)
        return tuple(Source(settings=settings, seed=(seed, k), count=n) for k, n in enumerate((count, validated)))
    rng, each = np.random.default_rng([seed, 2]), settings.chans // PLATE
    groups: list[list[Part]] = []
    if str(files[0]).endswith(PLATES):
        for file in files:
            chosen = rng.permutation(_spread(len(open_plates(file, (settings.rows, settings.bins))), chunk, chunks))
            whole = np.resize(chosen, (-(-len(chosen) // each), each))
            groups.append([((str(file),), row.tolist()) for row in whole])
    else:
        for paths, width in _cadences(files, settings):
            firsts = _spread(width // settings.chans, -(-chunk // each), chunks)
            groups.append([(paths, [int(k) * settings.chans]) for k in rng.permutation(firsts)])
    if len(groups) == 1:
        last = max(1, len(groups[0]) // 8)
        groups = [groups[0][:-last], groups[0][-last:]]
    last = max(1, len(groups) // 8)
    seen, kept = ([part for group in some for part in group] for some in (groups[:-last], groups[-last:]))
    if not seen:
        raise CadenceError(f"{files[0]}: expected at least two backgrounds, one to validate on, found {len(kept)}")
    orders = (rng.permutation(len(parts))[:count] for parts in (seen, kept))
    return tuple(
        Source(settings=settings, seed=(seed, k), count=len(order), parts=tuple(parts[i] for i in order))
        for k, (parts, order) in enumerate(zip((seen, kept), orders, strict=True))
    )


def _spread(count: int, step: int, most: int) -> list[int]:
    """Return the places of at most so many runs of `step`, evenly over `count` of them."""
    runs = -(-count // step)
    chosen = np.unique(np.linspace(0, runs - 1, min(most, runs)).round().astype(int))
    return [k for run in chosen for k in range(run * step, min(count, (run + 1) * step))]


def _cadences(files: Sequence[Path], settings: ExampleSettings) -> list[tuple[tuple[str, ...], int]]:
    """Return the files of each cadence that is wide and long enough, and its channels."""
    headers = []
    for file in files:
        with open_observation(file) as one:
            headers.append(one.header)
    found = []
    for cadence in find_cadences(headers).cadences:
        six = geometry_of([headers[i] for i in cadence.members])
        if cadence.on == FIRST and six.rows >= settings.rows and six.nchans >= settings.chans:
            found.append((tuple(str(files[i]) for i in cadence.members), six.nchans))
    if not found:
        expected = f"a cadence (ABACAD) of {settings.rows} rows and {settings.chans} channels or more"
        raise CadenceError(f"{files[0]} and {len(files) - 1} others: expected {expected}, found none")
    return found


class Shelf(NamedTuple):
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


def fill(shelf: Shelf, place: int, source: Source, number: int) -> None:
    """Search a background, and put it in its place with what may be injected into it."""
    settings, (equalized, cadence) = source.settings, source.equalized(number)
    tracks, fates, _ = find_tracks(
        equalized, (0, settings.chans), cadence, SearchSettings(max_drift_hz_s=settings.max_drift_hz_s)
    )
    tracks = np.concatenate([tracks[fates == ""], tracks[fates == "in_an_off"]])
    lines = tracks[:MOST_LINES, START] + tracks[:MOST_LINES, DRIFT] * cadence.middles.mean()
    shelf.lines[place] = np.inf
    shelf.lines[place, : len(lines)] = lines
    shelf.counts[place] = min(len(tracks), MOST_FOUND)
    shape = (settings.rows, settings.bins)
    shown = [track_snippet(equalized, track, cadence, shape) for track in tracks[:MOST_FOUND]]
    shelf.found[place, : len(shown)] = in_shades(shown, shape)
    shelf.sigmas[place], shelf.noise[place], shelf.middles[place] = equalized.sigmas, equalized.noise, cadence.middles
    shade_all(equalized.sigmas, equalized.noise, *shade_table(), shelf.shades[place])
    rng = np.random.default_rng([*source.seed, number, 1])
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


def strength_of(equalized: Equalized) -> Float32[np.ndarray, "obs time"]:
    """Return how bright a steady line is in each row, in its noise and at most 1: a burst's rows hide it."""
    strength = equalized.weights[:, 0] * equalized.noise[:, 0] ** 2
    return strength / np.maximum(strength.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)


def inject(equalized: Equalized, emitters: Sequence[Emitter], cadence: Geometry) -> None:
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


@njit(cache=True, nogil=True)
@no_type_check
def compose(
    sigmas: Float32[np.ndarray, "obs time freq"],
    noise: Float32[np.ndarray, "obs level time"],
    shades: UInt8[np.ndarray, "obs time shades"],
    table: tuple[UInt8[np.ndarray, " cells"], Float32[np.ndarray, " shades"]],
    firsts: Int64[np.ndarray, " obs"],
    level: int,
    edges: Float64[np.ndarray, "lines obs edges"],
    widths: Float64[np.ndarray, " lines"],
    brightness: Float64[np.ndarray, "lines obs time"],
    snrs: Float64[np.ndarray, "lines obs"],
    out: UInt8[np.ndarray, "obs time bins"],
) -> None:
    """Fill `out` with a snippet into whose native channels lines are injected, as the encoder is served it.

    Args:
        sigmas: a background.
        noise: of its rows' sums at each binning.
        shades: of all its bins (`shade_all`).
        table: of shades.
        firsts: channel with which the snippet begins in each observation, on a whole bin.
        level: binning, as a power of two.
        edges: each line's channels, counted from there, at the edges of the rows.
        widths: sigma of each line, in channels.
        brightness: of each line in each row, in the row's sigmas.
        snrs: of each line in each observation.
        out: all of it is overwritten.
    """
    lines, rows, bins, width = snrs.shape[0], out.shape[1], out.shape[2], 1 << level
    reach = 0
    for e in range(lines):
        for i in range(firsts.size):
            reach = max(reach, math.ceil(np.max(np.abs(np.diff(edges[e, i]))) + 10 * widths[e]) + 4)
    shares, spans = np.empty((lines, rows, reach)), np.empty((lines, rows, 2), dtype=np.int64)
    amplitudes = np.empty(lines)
    for i in range(firsts.size):
        column = 2 * sigmas.shape[2] - (2 * sigmas.shape[2] >> level) + (firsts[i] >> level)
        out[i] = shades[i, :, column : column + bins]
        for e in range(lines):
            norm = line_shares(edges[e, i], widths[e], brightness[e, i], shares[e], spans[e])
            amplitudes[e] = snrs[e, i] / math.sqrt(norm) if norm > 0 else 0.0
            if amplitudes[e] == 0:
                spans[e] = 0
        for t in range(rows):
            row = sigmas[i, t, firsts[i] : firsts[i] + bins * width]
            unit = np.float32(1 / (math.sqrt(width) * noise[i, level, t]))
            for e in range(lines):  # a bin that two lines touch is made twice, each time with both
                for b in range(max(0, spans[e, t, 0] >> level), min(bins, ((spans[e, t, 1] - 1) >> level) + 1)):
                    total = _bin(row, b, width, amplitudes, shares[:, t], spans[:, t])
                    out[i, t, b] = shade(total * unit, table[0], table[1])


@njit(cache=True, nogil=True)
@no_type_check
def _bin(
    row: Float32[np.ndarray, " freq"],
    b: int,
    width: int,
    amplitudes: Float64[np.ndarray, " lines"],
    shares: Float64[np.ndarray, "lines reach"],
    spans: Int64[np.ndarray, "lines 2"],
) -> float:
    """Return the sum of a bin's channels and all that is injected into them, each rounded as an array would be."""
    total = np.float32(0)
    for k in range(b * width, (b + 1) * width):
        pixel = row[k]
        for e in range(amplitudes.size):
            if spans[e, 0] <= k < spans[e, 1]:
                pixel = np.float32(pixel + amplitudes[e] * shares[e, k - spans[e, 0]])
        total += pixel
    return total
