"""Propose the drifting lines of one observation: a Taylor tree at every binning by a power of two.

A line that drifts k channels a row smears its power over k channels anyway, so a fast drift loses nothing in channels
k wide, and a wide signal gains: each level need only follow drifts up to one bin a row. See Taylor (1974) for the
tree. Every sum is looked at alone and with its neighbour's, so that a line across two bins is not lost to both.

Sums are in sigma of what rows really scatter by. Where a broadband burst carries a row, few integrations make its
noise, and neighbouring channels rise and fall together: a sum of n scatters by far more than sqrt(n). So each row has a
weight at every binning, the matched filter's for a steady line: what a row shows of it, over its variance.
Pixels count up to `CEILING` sigmas: what crosses a carrier, or holds one hot pixel, must not look like a line itself.
"""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float32
from numba import njit

LEVELS = 7
"""Binnings 1, 2, 4 ... 64."""
CEILING, NO_CEILING = np.float32(8), np.float32(np.inf)
PIECE, PIECES = 4096, 16
"""What a row's scatter is taken from: channels in a piece, and pieces across a stretch."""
PAIR = np.float32(math.sqrt(0.5))
CLEARLY_MORE = 1.3
"""A scatter taken from some hundred sums is uncertain by some per cent."""
TILE = 2048
"""Bins whose tree stays in a core's own cache."""
HIT = np.dtype([("channel", "f8"), ("drift", "f8"), ("width", "f8"), ("snr", "f8")])
"""A line in one observation: centre half-way through it, channels per row, channels, sigmas."""
MOST_HITS = 200_000
"""From one stretch of one observation: a hundred times what the densest band holds; more is counted, not kept."""


@njit(cache=True, nogil=True)
@no_type_check
def halve(binned: Float32[np.ndarray, "time bins"], ceiling: float = NO_CEILING) -> Float32[np.ndarray, "time half"]:
    """Return sums of two neighbours, neither counted beyond `ceiling`; a remainder is left off."""
    rows, bins = binned.shape[0], binned.shape[1] // 2
    out = np.empty((rows, bins), dtype=np.float32)
    for t in range(rows):
        row = binned[t]
        for f in range(bins):
            out[t, f] = min(row[2 * f], ceiling) + min(row[2 * f + 1], ceiling)
    return out


@njit(cache=True, nogil=True)
@no_type_check
def _scatter(row: Float32[np.ndarray, " bins"], unit: float) -> float:
    """Return the scatter of `row` in `unit`s from the median of its distances from zero, of 2,048 bins at most."""
    counts = np.zeros(256, dtype=np.int64)
    step = max(1, row.size // 2048)
    seen = 0
    for f in range(0, row.size, step):
        counts[min(255, int(abs(row[f]) / unit * np.float32(16)))] += 1
        seen += 1
    below, at = 0, 0
    while below + counts[at] < seen / 2:
        below += counts[at]
        at += 1
    return np.float32((at + (seen / 2 - below) / counts[at]) / 16 * 1.4826)


@njit(cache=True, nogil=True)
@no_type_check
def row_noise(sigmas: Float32[np.ndarray, "time freq"], levels: int = LEVELS) -> Float32[np.ndarray, "level time"]:
    """Return the scatter of each row's sums at every binning, in sigmas of independent noise; 1 unless clearly more."""
    rows, chans = sigmas.shape
    noise = np.empty((levels, rows), dtype=np.float32)
    pieces = min(PIECES, max(1, chans // PIECE))
    binned = np.empty((rows, min(chans, pieces * PIECE)), dtype=np.float32)
    for piece in range(pieces):
        first = piece * (chans // pieces)
        binned[:, piece * PIECE : (piece + 1) * PIECE] = sigmas[:, first : min(chans, first + PIECE)]
    for level in range(levels):
        if level:
            binned = halve(binned)
        for t in range(rows):
            scatter = _scatter(binned[t], np.float32(math.sqrt(1 << level)))
            noise[level, t] = scatter if scatter > CLEARLY_MORE else 1.0
    return noise


def row_weights(
    noise: Float32[np.ndarray, "level time"], scatter: Float32[np.ndarray, " time"]
) -> Float32[np.ndarray, "level time"]:
    """Return what each row's sum over a box counts, at every binning: weighted, the sum of all rows has unit scatter.

    Args:
        noise: of each row at each binning, as `row_noise` has it.
        scatter: each row's relative scatter, as `equalize` has it; a row without any counts nothing.
    """
    lit = scatter > 0
    if not lit.any():
        return np.zeros_like(noise)
    shown = np.where(lit, np.minimum(1, np.median(scatter[lit]) / np.where(lit, scatter, 1)), 0)
    weights = shown / noise**2
    return (weights / np.sqrt(np.sum((weights * noise) ** 2, axis=1, keepdims=True))).astype(np.float32)


@njit(cache=True, nogil=True)
@no_type_check
def _stage(
    tree: Float32[np.ndarray, "lines bins"], out: Float32[np.ndarray, "lines bins"], half: int, sign: int, gone: int
) -> None:
    """Join lines over `half` rows to lines over twice as many; `gone` bins at the far end are no longer whole."""
    lines, bins = tree.shape
    first, last = (0, bins - gone) if sign > 0 else (gone, bins)
    for block in range(0, lines, 2 * half):
        for drift in range(2 * half):
            near = tree[block + drift // 2]
            far = tree[block + half + drift // 2]
            shift = sign * ((drift + 1) // 2)
            joined = out[block + drift, first:last]
            a = near[first:last]
            b = far[first + shift : last + shift]
            for f in range(joined.size):
                joined[f] = a[f] + b[f]


@njit(cache=True, nogil=True)
@no_type_check
def _peaks(
    tree: Float32[np.ndarray, "lines bins"],
    drifts: int,
    sign: int,
    first: int,
    line: Float32[np.ndarray, " bins"],
    peak: Float32[np.ndarray, " tile"],
) -> None:
    """Fill `peak` with the brightest of the first `drifts` lines that start in each bin, alone or with a neighbour.

    The last stage of the tree, without its storage: the lines are looked at as they are made.
    """
    half = tree.shape[0] // 2
    peak[:] = -np.inf
    for drift in range(drifts):
        shift = sign * ((drift + 1) // 2)
        a = tree[drift // 2, first - 1 : first + peak.size + 1]
        b = tree[half + drift // 2, first - 1 + shift : first + peak.size + 1 + shift]
        for f in range(line.size):
            line[f] = a[f] + b[f]
        alone = line[1:-1]
        # The neighbour is the one that lies whole in the tree: after it where lines rise, before it where they fall.
        beside = line[2:] if sign > 0 else line[:-2]
        for f in range(peak.size):
            peak[f] = max(peak[f], alone[f], (alone[f] + beside[f]) * PAIR)


@njit(cache=True, nogil=True)
@no_type_check
def _load(
    binned: Float32[np.ndarray, "time bins"],
    weights: Float32[np.ndarray, " time"],
    ceiling: float,
    origin: int,
    tree: Float32[np.ndarray, "lines bins"],
) -> None:
    """Fill the leaves of `tree` with weighted rows from bin `origin`; zero beyond the band, and for missing rows."""
    rows, bins = binned.shape
    low, high = max(0, origin), min(bins, origin + tree.shape[1])
    for t in range(rows):
        tree[t, : low - origin] = 0
        tree[t, high - origin :] = 0
        leaf = tree[t, low - origin : high - origin]
        row = binned[t, low:high]
        for f in range(leaf.size):
            leaf[f] = min(row[f], ceiling) * weights[t]
    tree[rows:] = 0


@njit(cache=True, nogil=True)
@no_type_check
def _brightest(tree: Float32[np.ndarray, "lines bins"], at: int, drifts: int, sign: int) -> tuple[float, int, int]:
    """Return (snr, drift, boxes) of the brightest line that starts in bin `at`, as `_peaks` looked at them."""
    best, slope, boxes = np.float32(-1), 0, 1
    for drift in range(drifts):
        shift = sign * ((drift + 1) // 2)
        near, far = tree[drift // 2], tree[tree.shape[0] // 2 + drift // 2]
        alone = near[at] + far[at + shift]
        two = (alone + near[at + sign] + far[at + sign + shift]) * PAIR
        if alone > best:
            best, slope, boxes = alone, drift, 1
        if two > best:
            best, slope, boxes = two, drift, 2
    return best, slope, boxes


@njit(cache=True, nogil=True)
@no_type_check
def _level_hits(
    binned: Float32[np.ndarray, "time bins"],
    weights: Float32[np.ndarray, " time"],
    factor: int,
    ceiling: float,
    max_drift: float,
    min_snr: float,
    hits: np.ndarray,
    count: int,
) -> int:
    """Append the hits at one binning to `hits` from place `count`; return how many there were, kept or not."""
    rows, bins = binned.shape
    lines = 2
    while lines < rows:
        lines *= 2
    drifts = min(lines, int(max_drift / factor * (lines - 1)) + 2)
    tree = np.zeros((lines, TILE + 2 * lines + 2), dtype=np.float32)
    spare = np.zeros_like(tree)
    line, peak = np.empty(TILE + 2, dtype=np.float32), np.empty(TILE, dtype=np.float32)
    unit = weights / np.float32(math.sqrt(factor))
    for start in range(0, bins, TILE):
        for sign in (1, -1):
            first = 1 if sign > 0 else 1 + lines  # lines that rise need bins above the tile; those that fall, below it
            _load(binned, unit, ceiling, start - first, tree)
            half, gone = 1, 0
            while 2 * half < lines:
                gone += half
                _stage(tree, spare, half, sign, gone)
                tree, spare = spare, tree
                half *= 2
            _peaks(tree, drifts, sign, first, line, peak)
            for f in range(min(TILE, bins - start)):
                if peak[f] < min_snr or peak[max(f - 1, 0)] > peak[f] or (f + 1 < TILE and peak[f + 1] >= peak[f]):
                    continue
                snr, drift, boxes = _brightest(tree, first + f, drifts, sign)
                if count < hits.size:
                    middle = start + f + 0.5 + sign * ((boxes - 1) * 0.5 + drift * (rows - 1) / (lines - 1) / 2)
                    hits[count]["channel"] = middle * factor - 0.5
                    hits[count]["drift"] = sign * drift * factor / (lines - 1)
                    hits[count]["width"] = factor * boxes
                    hits[count]["snr"] = snr
                count += 1
    return count


def find_hits(
    sigmas: Float32[np.ndarray, "time freq"],
    weights: Float32[np.ndarray, "level time"],
    *,
    max_drift: float,
    min_snr: float,
) -> tuple[np.ndarray, int]:
    """Return the lines of one observation, brightest first, one for each place; and how many sums were above `min_snr`.

    Args:
        sigmas: power in units of each row's noise.
        weights: of each row at each binning (`row_weights`); as many binnings are searched.
        max_drift: channels per row, either way.
        min_snr: of the line at its best binning.
    """
    hits, count = np.zeros(MOST_HITS, dtype=HIT), 0
    binned, ceiling = sigmas, CEILING
    for level in range(len(weights)):
        if level:
            binned, ceiling = halve(binned, ceiling), NO_CEILING
        count = _level_hits(binned, weights[level], 1 << level, ceiling, max_drift, min_snr, hits, count)
    found = hits[: min(count, MOST_HITS)]
    order = np.lexsort((found["drift"], found["channel"], -found["snr"]))
    return _distinct(found[order], sigmas.shape[0]), count


@njit(cache=True, nogil=True)
@no_type_check
def _distinct(hits: np.ndarray, rows: int) -> np.ndarray:
    """Return the brightest of every group of hits that lie on one another: the same power summed another way.

    Two lines overlap where they come nearer, somewhere in the observation, than their widths together.
    """
    kept = np.empty(hits.size, dtype=np.int64)
    count = 0
    for i in range(hits.size):
        hit = hits[i]
        alone = True
        for j in range(count):
            other = hits[kept[j]]
            reach = hit["width"] + other["width"] + abs(hit["drift"] - other["drift"]) * rows / 2
            if abs(hit["channel"] - other["channel"]) <= reach:
                alone = False
                break
        if alone:
            kept[count] = i
            count += 1
    return hits[kept[:count]]
