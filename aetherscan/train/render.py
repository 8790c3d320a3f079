"""TODO."""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8
from numba import njit

from aetherscan.cadence.geometry import ON_POSITIONS as ON
from aetherscan.search.cutouts import (
    WINDOW_LEVEL,
    shade,
    snippet_level,
)
from aetherscan.simulate.injection import FWHM_TO_SIGMA, line_shares
from aetherscan.train.background_cache import BackgroundArrays


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


QUARTERS = 4
QUIET, INTERFERENCE, SIGNAL, BOTH = range(QUARTERS)
BLOCK = 32
"""Examples that are made at a time, from random numbers of their own."""
APART, OFF_CENTRE, TILTED, WIDER = 0.2, 0.55, 1.4, (0.08, 0.18)
"""How wrongly tracks are measured, over 513 tones that searches found: channels, and boxes over SNR, from the middle;
boxes over SNR from the first observation to the last; and the logarithm of the box, mean and scatter."""
FAINTEST = 4.0
"""SNR at which a track is measured worst."""
FOUND = 0.5
"""Share of what interference is centred on that the search found in the backgrounds."""
DRAWS = 11
"""Random numbers that decide an example, beside those that say how wrongly it is measured."""


@njit(cache=True, nogil=True)
@no_type_check
def _begin(
    shelf: BackgroundArrays, place: int, line: int, snr: float, chance: Float64[np.ndarray, "3"], bins: int
) -> tuple[Float64[np.ndarray, " obs"], int]:
    """Return where a snippet begins in each observation that shows a line as a search would, and its binning."""
    at, middles = shelf.middles[place], _middles(shelf.edges[place, line])
    drift = (middles[ON[2]] - middles[ON[0]]) / (at[ON[2]] - at[ON[0]])
    box = math.hypot(shelf.widths[place, line] / FWHM_TO_SIGMA, drift)
    unsure = box / max(snr, FAINTEST)
    level = snippet_level(max(1.0, box * math.exp(WIDER[0] + WIDER[1] * chance[2])))
    tilt = drift + TILTED * unsure * chance[0] / (at[-1] - at[0])
    centre = (middles[ON[0]] + middles[ON[1]] + middles[ON[2]]) / 3 + math.hypot(APART, OFF_CENTRE * unsure) * chance[1]
    return centre + tilt * (at - (at[ON[0]] + at[ON[1]] + at[ON[2]]) / 3) - (bins << level) / 2, level


@njit(cache=True, nogil=True)
@no_type_check
def _begin_window(
    edges: Float64[np.ndarray, "obs edges"], chance: float, bins: int
) -> tuple[Float64[np.ndarray, " obs"], int]:
    """Return where a window begins that holds a line in the middle of each ON, if any does, and its binning."""
    middles, width = _middles(edges), bins << WINDOW_LEVEL
    low = max(middles[ON[0]], middles[ON[1]], middles[ON[2]]) - width
    high = min(middles[ON[0]], middles[ON[1]], middles[ON[2]])
    if low > high:
        low, high = middles.mean() - width, middles.mean()
    return np.full(middles.size, low + chance * (high - low)), WINDOW_LEVEL


@njit(cache=True, nogil=True)
@no_type_check
def _middles(edges: Float64[np.ndarray, "obs edges"]) -> Float64[np.ndarray, " obs"]:
    """Return where a line is in the middle of each observation."""
    middles = np.empty(edges.shape[0])
    for i in range(middles.size):
        middles[i] = edges[i].mean()
    return middles


@njit(cache=True, nogil=True)
@no_type_check
def show(
    shelf: BackgroundArrays,
    table: tuple[UInt8[np.ndarray, " cells"], Float32[np.ndarray, " shades"]],
    places: Int64[np.ndarray, " batch"],
    chances: Float64[np.ndarray, "batch draws"],
    errors: Float64[np.ndarray, "batch 3"],
    snr: Float64[np.ndarray, "2"],
    windows: float,
    out: UInt8[np.ndarray, "batch obs time bins"],
) -> None:
    """Fill `out` with examples, a quarter of each kind.

    Args:
        shelf: of backgrounds.
        table: of shades.
        places: background of each example.
        chances: uniform in 0..1.
        errors: normal, of scatter 1.
        snr: logarithms of the lowest and the highest.
        windows: share of them.
        out: all of it is overwritten.
    """
    bins, tracks, chans = out.shape[-1], shelf.widths.shape[1] // 2, shelf.sigmas.shape[-1]
    for n in range(places.size):
        place, quarter, chance, window = places[n], n % QUARTERS, chances[n], chances[n, 0] < windows
        count = shelf.counts[place, 0]
        if quarter == INTERFERENCE and not window and count and chance[1] < FOUND:
            out[n] = shelf.found[place, int(chance[2] * count)]
            continue
        tone, other = int(chance[3] * tracks), tracks + int(chance[4] * tracks)
        focus, brighter = (
            (other, 1.0) if quarter == INTERFERENCE else (tone, math.exp(snr[0] + chance[5] * (snr[1] - snr[0])))
        )
        if window:
            lefts, level = _begin_window(shelf.edges[place, focus], chance[6], bins)
        else:
            strength = shelf.snrs[place, focus]
            mean = brighter * (strength[ON[0]] + strength[ON[1]] + strength[ON[2]]) / 3
            lefts, level = _begin(shelf, place, focus, mean, errors[n], bins)
        width = bins << level
        anchor, quiet = 0.0, -1.0  # the quietest of a few places, unless something else is to be near
        for candidate in chance[7:10] if quarter in (QUIET, SIGNAL) else chance[7:8]:
            middle = width / 2 + candidate * (chans - width)
            alone = np.abs(shelf.lines[place] - middle).min()
            if alone > quiet:
                anchor, quiet = middle - lefts.mean() - width / 2, alone
        beside = lefts.mean() + chance[10] * width - shelf.edges[place, other].mean()
        chosen = np.array([tone, other])[1 if quarter == INTERFERENCE else 0 : (0, 2, 1, 2)[quarter]]
        begins = np.floor(lefts + anchor + 0.5)
        firsts = np.empty(begins.size, dtype=np.int64)
        edges = shelf.edges[place][chosen]
        for i in range(firsts.size):
            firsts[i] = min(max(0, int(np.rint(begins[i] / (1 << level)))), (chans - width) >> level) << level
            for e in range(chosen.size):
                edges[e, i] += anchor + (0.0 if chosen[e] == focus else beside) - begins[i]
        snrs = shelf.snrs[place][chosen]
        for e in range(chosen.size):
            if chosen[e] == tone:
                snrs[e] *= brighter
        compose(
            shelf.sigmas[place], shelf.noise[place], shelf.shades[place], table, firsts, level, edges,
            shelf.widths[place][chosen], shelf.brightness[place][chosen], snrs, out[n],
        )  # fmt: skip
