"""Propose the drifting lines of one observation with a Taylor tree at every binning by a power of two.

The tree is that of Taylor (1974), A&AS 15, 367. A line that drifts k channels per row smears its power over k channels,
so a fast drift loses no SNR in bins k channels wide, and a wide signal gains. Each binning therefore only needs drifts
of up to one bin per row. Every sum is tested alone and together with its neighbor's, because a line may lie across two
bins.

Sums are in units of the measured scatter of the rows. In a row dominated by a broadband burst, neighboring channels
rise and fall together, and a sum of n channels scatters by far more than sqrt(n). Each row therefore has a weight at
every binning, that of the matched filter for a steady line: its signal over its variance. Pixels are clipped at
`CEILING` sigma, so that a carrier crossed by the sum, or one hot pixel, is not mistaken for a line.
"""

import math
from typing import no_type_check

import numpy as np
from jaxtyping import Float32
from numba import njit

from aetherscan.header import MAD_TO_SIGMA

LEVELS = 7
"""Binnings 1, 2, 4 ... 64."""
CEILING, NO_CEILING = np.float32(8), np.float32(np.inf)
PIECE, PIECES = 4096, 16
"""Sample from which a row's scatter is measured: channels in a piece, and pieces across a block."""
PAIR = np.float32(math.sqrt(0.5))
CLEARLY_MORE = 1.3
"""Smallest scatter that is corrected for; one measured from a few hundred sums is uncertain by several percent."""
FEWEST_SUMS = 8
TILE = 2048
"""Bins processed together, so that their tree fits into the cache of a core."""
HIT = np.dtype([("channel", "f8"), ("drift", "f8"), ("width", "f8"), ("snr", "f8")])
"""A line in one observation: center at mid-observation (channel), drift (channels per row), width (channels), SNR."""
MOST_HITS = 200_000
"""Hits kept from one observation of a block, the brightest: a hundred times as many as the densest known band has."""


@njit(cache=True, nogil=True)
@no_type_check
def halve(binned: Float32[np.ndarray, "time bins"], ceiling: float = NO_CEILING) -> Float32[np.ndarray, "time half"]:
    """Return the sums of pairs of neighbors, each clipped at `ceiling`; an odd last bin is dropped."""
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
    """Return the scatter of `row` in units of `unit`: the median absolute value of at most 2,048 bins, as sigma."""
    counts = np.zeros(256, dtype=np.int64)
    step = max(1, row.size // 2048)
    count = 0
    for f in range(0, row.size, step):
        counts[min(255, int(abs(row[f]) / unit * np.float32(16)))] += 1
        count += 1
    below, at = 0, 0
    while below + counts[at] < count / 2:
        below += counts[at]
        at += 1
    return np.float32((at + (count / 2 - below) / counts[at]) / 16 * MAD_TO_SIGMA)


@njit(cache=True, nogil=True)
@no_type_check
def row_noise(sigmas: Float32[np.ndarray, "time freq"], levels: int = LEVELS) -> Float32[np.ndarray, "level time"]:
    """Return the scatter of each row's sums at every binning, over that of independent noise; 1 unless clearly more.

    Fewer than `FEWEST_SUMS` do not tell: the scatter of the binning before is taken.
    """
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
        if binned.shape[1] < FEWEST_SUMS:
            noise[level] = np.float32(1)
            if level:
                noise[level] = noise[level - 1]
            continue
        for t in range(rows):
            scatter = _scatter(binned[t], np.float32(math.sqrt(1 << level)))
            noise[level, t] = scatter if scatter > CLEARLY_MORE else 1.0
    return noise


def row_weights(
    noise: Float32[np.ndarray, "level time"], scatter: Float32[np.ndarray, " time"]
) -> Float32[np.ndarray, "level time"]:
    """Return the weight of each row's sum over a box at every binning; the weighted sum of all rows has unit scatter.

    Args:
        noise: of each row's sums at each binning (`row_noise`).
        scatter: relative scatter of each row (`normalize_bandpass`); a row with scatter 0 has weight 0.
    """
    alive = scatter > 0
    if not alive.any():
        return np.zeros_like(noise)
    signal = np.where(alive, np.minimum(1, np.median(scatter[alive]) / np.where(alive, scatter, 1)), 0)
    weights = signal / noise**2
    return (weights / np.sqrt(np.sum((weights * noise) ** 2, axis=1, keepdims=True))).astype(np.float32)


@njit(cache=True, nogil=True)
@no_type_check
def _stage(
    tree: Float32[np.ndarray, "lines bins"], out: Float32[np.ndarray, "lines bins"], half: int, sign: int, lost: int
) -> None:
    """Join lines over `half` rows to lines over twice as many rows; `lost` bins at the far end are incomplete."""
    lines, bins = tree.shape
    first, last = (0, bins - lost) if sign > 0 else (lost, bins)
    for group in range(0, lines, 2 * half):
        for drift in range(2 * half):
            early = tree[group + drift // 2]
            late = tree[group + half + drift // 2]
            shift = sign * ((drift + 1) // 2)
            joined = out[group + drift, first:last]
            a = early[first:last]
            b = late[first + shift : last + shift]
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
    """Fill `peak` with the brightest of the first `drifts` lines that start in each bin, alone or with a neighbor.

    This is the last stage of the tree, without its storage.
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
        # Take the neighbor that is complete in the tree: the next bin where lines rise, the previous where they fall.
        neighbor = line[2:] if sign > 0 else line[:-2]
        for f in range(peak.size):
            peak[f] = max(peak[f], alone[f], (alone[f] + neighbor[f]) * PAIR)


@njit(cache=True, nogil=True)
@no_type_check
def _load(
    binned: Float32[np.ndarray, "time bins"],
    weights: Float32[np.ndarray, " time"],
    ceiling: float,
    origin: int,
    tree: Float32[np.ndarray, "lines bins"],
) -> None:
    """Fill the leaves of `tree` with weighted rows from bin `origin` on; zero beyond the band and for missing rows."""
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
    """Return (snr, drift, boxes) of the brightest line that starts in bin `at`, by the sums of `_peaks`."""
    best, slope, boxes = np.float32(-1), 0, 1
    for drift in range(drifts):
        shift = sign * ((drift + 1) // 2)
        early, late = tree[drift // 2], tree[tree.shape[0] // 2 + drift // 2]
        alone = early[at] + late[at + shift]
        two = (alone + early[at + sign] + late[at + sign + shift]) * PAIR
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
    """Append the hits at one binning to `hits`, of which `count` are filled; return the new count."""
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
            first = 1 if sign > 0 else 1 + lines  # rising lines need bins above the tile, falling lines below it
            _load(binned, unit, ceiling, start - first, tree)
            half, lost = 1, 0
            while 2 * half < lines:
                lost += half
                _stage(tree, spare, half, sign, lost)
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
    """Return the lines of one observation, the brightest at each place, brightest first; and the number of peaks.

    A peak is a sum of at least `min_snr` with no brighter sum beside it. One line gives several, at several binnings.
    Beyond `MOST_HITS` peaks only the brightest are examined.

    Args:
        sigmas: power in units of each row's noise.
        weights: of each row at each binning (`row_weights`), which also sets the number of binnings searched.
        max_drift: channels per row, in either direction.
        min_snr: SNR of a line at its best binning.
    """
    # Of two neighboring bins one at most is a peak: rising and falling, that is one per bin of each binning.
    room = sum((sigmas.shape[1] >> level) + TILE for level in range(len(weights)))
    hits, count = np.empty(room, dtype=HIT), 0
    binned, ceiling = sigmas, CEILING
    for level in range(len(weights)):
        if level:
            binned, ceiling = halve(binned, ceiling), NO_CEILING
        count = _level_hits(binned, weights[level], 1 << level, ceiling, max_drift, min_snr, hits, count)
    hits = hits[:count]
    order = np.lexsort((hits["drift"], hits["channel"], -hits["snr"]))[:MOST_HITS]
    return _distinct(hits[order], sigmas.shape[0]), count


@njit(cache=True, nogil=True)
@no_type_check
def _distinct(hits: np.ndarray, rows: int) -> np.ndarray:
    """Return the brightest of every group of overlapping hits, which sum the same power in different ways.

    Two hits overlap if, somewhere in the observation, they are closer than their widths together.
    """
    kept = np.empty(hits.size, dtype=np.int64)
    count = 0
    for i in range(hits.size):
        hit = hits[i]
        overlaps = False
        for j in range(count):
            other = hits[kept[j]]
            reach = hit["width"] + other["width"] + abs(hit["drift"] - other["drift"]) * rows / 2
            if abs(hit["channel"] - other["channel"]) <= reach:
                overlaps = True
                break
        if not overlaps:
            kept[count] = i
            count += 1
    return hits[kept[:count]]
