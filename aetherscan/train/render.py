"""Render training examples from backgrounds in memory, byte for byte as a search would cut them out.

A binned snippet starts on a whole bin of its binning level, because the background's bins are stored. Injected lines
keep their position to a fraction of a channel; only the background is shifted, by up to half a bin.
"""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from aetherscan.cadence.geometry import ON_POSITIONS as ON
from aetherscan.kernels import njit
from aetherscan.search.cutouts import WINDOW_LEVEL, quantize, snippet_level
from aetherscan.simulate.injection import FWHM_TO_SIGMA, line_shares
from aetherscan.train.background_cache import BackgroundArrays

CLASSES = 4
BACKGROUND, INTERFERENCE, SIGNAL, SIGNAL_AND_INTERFERENCE = range(CLASSES)
CENTER_ERROR, UNCERTAIN_CENTER, SLOPE_ERROR, WIDTH_ERROR = 0.2, 0.55, 1.4, (0.08, 0.18)
"""Errors of measured tracks, from 513 injected signals that searches found: of the center, a constant in channels and a
part in units of box / SNR; of the drift over the cadence, in box / SNR; of the logarithm of the width, mean and sigma.
The box is the hypotenuse of a line's width and its drift in one row."""
FAINTEST = 4.0
"""SNR below which the errors grow no further."""
DETECTED = 0.5
"""Fraction of the interference examples that are lines which a search found in the background."""
DRAWS = 11
"""Uniform random numbers that an example takes, beside the three normal ones of its measurement errors."""


@njit(cache=True, nogil=True)
@no_type_check
def render_snippet(
    sigmas: Float32[np.ndarray, "obs time freq"],
    noise: Float32[np.ndarray, "obs level time"],
    stored: UInt8[np.ndarray, "obs time all_levels"],
    table: tuple[UInt8[np.ndarray, " cells"], Float32[np.ndarray, " values"]],
    firsts: Int64[np.ndarray, " obs"],
    level: int,
    edges: Float64[np.ndarray, "lines obs edges"],
    widths: Float64[np.ndarray, " lines"],
    brightness: Float64[np.ndarray, "lines obs time"],
    snrs: Float64[np.ndarray, "lines obs"],
    out: UInt8[np.ndarray, "obs time bins"],
) -> None:
    """Render a snippet of a background with lines injected into its native channels.

    Args:
        sigmas: channels of the background, in sigma.
        noise: sigma of the rows' sums at each binning level.
        stored: bins of the background at all levels (`quantize_levels`).
        table: for quantization.
        firsts: first channel of the snippet in each observation, a multiple of 2**level.
        level: binning, as a power of two.
        edges: channels of each line at the edges of the rows, relative to `firsts`.
        widths: sigma of each line, in channels.
        brightness: of each line in each row, relative to the row's sigma.
        snrs: of each line in each observation.
        out: overwritten with the snippet.
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
        out[i] = stored[i, :, column : column + bins]
        for e in range(lines):
            norm = line_shares(edges[e, i], widths[e], brightness[e, i], shares[e], spans[e])
            amplitudes[e] = snrs[e, i] / math.sqrt(norm) if norm > 0 else 0.0
            if amplitudes[e] == 0:
                spans[e] = 0
        for t in range(rows):
            row = sigmas[i, t, firsts[i] : firsts[i] + bins * width]
            unit = np.float32(1 / (math.sqrt(width) * noise[i, level, t]))
            for e in range(lines):  # a bin that two lines touch is computed twice, each time with both
                for b in range(max(0, spans[e, t, 0] >> level), min(bins, ((spans[e, t, 1] - 1) >> level) + 1)):
                    total = _bin(row, b, width, amplitudes, shares[:, t], spans[:, t])
                    out[i, t, b] = quantize(total * unit, table[0], table[1])


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
    """Return the sum of a bin's channels and the lines in them, rounded after each addition as an array would be."""
    total = np.float32(0)
    for k in range(b * width, (b + 1) * width):
        pixel = row[k]
        for e in range(amplitudes.size):
            if spans[e, 0] <= k < spans[e, 1]:
                pixel = np.float32(pixel + amplitudes[e] * shares[e, k - spans[e, 0]])
        total += pixel
    return total


@njit(cache=True, nogil=True)
@no_type_check
def _track_starts(
    arrays: BackgroundArrays, place: int, line: int, snr: float, errors: Float64[np.ndarray, "3"], bins: int
) -> tuple[Float64[np.ndarray, " obs"], int]:
    """Return the first channel, in each observation, and the binning level of a snippet that follows a line.

    Args:
        arrays: backgrounds and their lines.
        place: of the background.
        line: number of the line.
        snr: of the line; the fainter, the larger the errors.
        errors: of tilt, center and width, in units of their sigma.
        bins: of the snippet.
    """
    at, middles = arrays.middles[place], _middles(arrays.edges[place, line])
    drift = (middles[ON[2]] - middles[ON[0]]) / (at[ON[2]] - at[ON[0]])
    box = math.hypot(arrays.widths[place, line] / FWHM_TO_SIGMA, drift)
    uncertainty = box / max(snr, FAINTEST)
    level = snippet_level(max(1.0, box * math.exp(WIDTH_ERROR[0] + WIDTH_ERROR[1] * errors[2])))
    slope = drift + SLOPE_ERROR * uncertainty * errors[0] / (at[-1] - at[0])
    scatter = math.hypot(CENTER_ERROR, UNCERTAIN_CENTER * uncertainty)
    center = (middles[ON[0]] + middles[ON[1]] + middles[ON[2]]) / 3 + scatter * errors[1]
    return center + slope * (at - (at[ON[0]] + at[ON[1]] + at[ON[2]]) / 3) - (bins << level) / 2, level


@njit(cache=True, nogil=True)
@no_type_check
def _window_starts(
    edges: Float64[np.ndarray, "obs edges"], chance: float, bins: int
) -> tuple[Float64[np.ndarray, " obs"], int]:
    """Return the first channel of a window that holds a line in the middle of every ON, if possible, and its level."""
    middles, width = _middles(edges), bins << WINDOW_LEVEL
    low = max(middles[ON[0]], middles[ON[1]], middles[ON[2]]) - width
    high = min(middles[ON[0]], middles[ON[1]], middles[ON[2]])
    if low > high:
        low, high = middles.mean() - width, middles.mean()
    return np.full(middles.size, low + chance * (high - low)), WINDOW_LEVEL


@njit(cache=True, nogil=True)
@no_type_check
def _middles(edges: Float64[np.ndarray, "obs edges"]) -> Float64[np.ndarray, " obs"]:
    """Return the channel of a line in the middle of each observation."""
    middles = np.empty(edges.shape[0])
    for i in range(middles.size):
        middles[i] = edges[i].mean()
    return middles


@njit(cache=True, nogil=True)
@no_type_check
def render_examples(
    arrays: BackgroundArrays,
    table: tuple[UInt8[np.ndarray, " cells"], Float32[np.ndarray, " values"]],
    places: Int64[np.ndarray, " batch"],
    chances: Float64[np.ndarray, "batch draws"],
    errors: Float64[np.ndarray, "batch 3"],
    snr: Float64[np.ndarray, "2"],
    windows: float,
    out: UInt8[np.ndarray, "batch obs time bins"],
) -> None:
    """Render examples, the four classes in turn.

    Args:
        arrays: backgrounds and their lines.
        table: for quantization.
        places: index of each example's background.
        chances: random numbers, uniform in 0..1.
        errors: random numbers, normal with sigma 1.
        snr: logarithms of the lowest and the highest SNR of a signal.
        windows: fraction of the examples that are cut like the windows of `--mode windows`.
        out: overwritten with the examples.
    """
    bins, lines, chans = out.shape[-1], arrays.widths.shape[1] // 2, arrays.sigmas.shape[-1]
    for n in range(places.size):
        place, kind, chance, window = places[n], n % CLASSES, chances[n], chances[n, 0] < windows
        count = arrays.counts[place, 0]
        if kind == INTERFERENCE and not window and count and chance[1] < DETECTED:
            out[n] = arrays.detections[place, int(chance[2] * count)]
            continue
        signal, other = int(chance[3] * lines), lines + int(chance[4] * lines)
        line, factor = (
            (other, 1.0) if kind == INTERFERENCE else (signal, math.exp(snr[0] + chance[5] * (snr[1] - snr[0])))
        )
        if window:
            starts, level = _window_starts(arrays.edges[place, line], chance[6], bins)
        else:
            strength = arrays.snrs[place, line]
            mean = factor * (strength[ON[0]] + strength[ON[1]] + strength[ON[2]]) / 3
            starts, level = _track_starts(arrays, place, line, mean, errors[n], bins)
        width = bins << level
        shift, clearance = 0.0, -1.0  # the place farthest from any line, unless interference is wanted
        for candidate in chance[7:10] if kind in (BACKGROUND, SIGNAL) else chance[7:8]:
            middle = width / 2 + candidate * (chans - width)
            distance = np.abs(arrays.tracks[place] - middle).min()
            if distance > clearance:
                shift, clearance = middle - starts.mean() - width / 2, distance
        beside = starts.mean() + chance[10] * width - arrays.edges[place, other].mean()
        chosen = np.array([signal, other])[1 if kind == INTERFERENCE else 0 : (0, 2, 1, 2)[kind]]
        lefts = np.floor(starts + shift + 0.5)
        firsts = np.empty(lefts.size, dtype=np.int64)
        edges = arrays.edges[place][chosen]
        for i in range(firsts.size):
            firsts[i] = min(max(0, int(np.rint(lefts[i] / (1 << level)))), (chans - width) >> level) << level
            for e in range(chosen.size):
                edges[e, i] += shift + (0.0 if chosen[e] == line else beside) - lefts[i]
        snrs = arrays.snrs[place][chosen]
        for e in range(chosen.size):
            if chosen[e] == signal:
                snrs[e] *= factor
        render_snippet(
            arrays.sigmas[place], arrays.noise[place], arrays.bins[place], table, firsts, level, edges,
            arrays.widths[place][chosen], arrays.brightness[place][chosen], snrs, out[n],
        )  # fmt: skip
