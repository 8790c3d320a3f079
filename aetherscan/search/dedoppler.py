"""Propose drifting lines in one ON, and in all ONs of a cadence together, with Taylor trees of sums in few bits.

The tree is that of Taylor (1974), A&AS 15, 367, at every binning by a power of two. A line that drifts k channels per
row smears its power over k channels, so a fast drift loses no SNR in bins k channels wide, and a wide signal gains.
Each binning needs drifts of up to about two bins per row: those above one are searched in sheared rows. A line may lie
across two bins, so every sum is taken over two neighbors; at full resolution single bins are searched too.

One line of a tree with drift d starts in bin f. A signal that keeps its drift starts in another ON at
``f + round(d * gap)``. The gap between ONs is a few times their length, so that the drifts closest to d start in a few
bins there: the brightest of those lines counts. The sum over the ONs (the joint search) has sqrt(ONs) times the SNR of
one ON.

Sums are in units of the scatter of the rows (`row_weights`), as integers of some steps to a sigma of one ON. Pixels are
clipped at `PIXEL_CEILING` sigma and bins of a row at `ROW_CEILING`, so that a carrier crossed by the line, or one hot
pixel, is not mistaken for a line. One instruction adds twice as many 8-bit integers as 16-bit ones, which serve only
where there are so many rows that steps of 8 bits would be coarser than the noise of a row. A sum above the limit of its
type stays at the limit; of such lines the sums over quarters of the rows, which are below it, tell the brightest.
"""

import math
from typing import Any, NamedTuple, no_type_check

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64

from aetherscan.kernels import njit

STEPS: dict[type[np.signedinteger[Any]], float] = {np.int8: 8.0, np.int16: 128.0}
"""Steps to a sigma at most."""
FEW_ROWS = 32
"""Rows of an ON up to which 8 bits serve: a sigma of a row is 1.4 steps, and rounding costs 2% of the SNR."""
HIGHEST_THRESHOLD, USUAL_SNR = 0.87, 5.5
"""Highest threshold as a share of the limit of a sum, and the SNR up to which the number of steps allows for it."""
PIXEL_CEILING, ROW_CEILING = 4.0, 8.0
LEAST_SHARE, LEAST_SNR = 0.4, 1.5
"""Every ON must have this share of the mean SNR of the ONs, and at least this SNR, in a joint hit."""
TILE = 4096
"""Bins processed together, so that their trees fit into the cache of a core."""
GROUP = 64
"""Bins of a tile that are passed over at once if none of them reaches the threshold."""
HIT = np.dtype([("channel", "f8"), ("drift", "f8"), ("width", "f8"), ("snr", "f8")])
"""A line: center at the middle of the reference ON (channel), drift (channels per row), width (channels), SNR."""
MOST_HITS = 200_000
"""Hits kept from a block, the brightest: a hundred times as many as the densest known band has."""


class Trees(NamedTuple):
    """Where the lines of each drift begin in the trees of a binning, by shear and direction, in columns of a tile.

    Rising lines (direction 0) begin at the start of each ON. The rows of falling lines are taken in reverse, so that
    these begin at its end. Sheared rows begin with the drifts at which those at half the binning end.
    """

    drifts: Float64[np.ndarray, "shear lines"]  # bins per row
    counts: Int64[np.ndarray, " shear"]  # drifts that are searched
    shifts: Int64[np.ndarray, "shear direction ons lines"]  # column of the line from the first bin
    reaches: Int64[np.ndarray, " ons"]  # bins to either side in which it may begin
    lefts: Int64[np.ndarray, " ons"]  # first column, in bins from the first of the tile
    offsets: Int64[np.ndarray, "shear lines"]  # columns by which each row is sheared
    orders: Int64[np.ndarray, "direction ons lines"]  # rows
    columns: int


def lay_out(lengths: Int64[np.ndarray, " ons"], gaps: Float64[np.ndarray, " ons"], max_drift: float) -> Trees:
    """Return where lines begin in the trees of ONs.

    Args:
        lengths: rows of each ON, the reference first.
        gaps: rows from the start of the reference to the start of each ON.
        max_drift: bins per row.
    """
    ons, lines = len(lengths), max(4, 1 << (int(lengths.max()) - 1).bit_length())
    shears, drifts = np.array([0.0, 1 + 1.5 / (lines - 1)]), np.arange(lines) / (lines - 1)
    counts = np.clip(((max_drift - shears) * (lines - 1)).astype(np.int64) + 2, 0, lines)
    counts[counts < 2] = 0
    steps = shears[:, None] + np.minimum(drifts, drifts[np.maximum(counts, 1) - 1, None]) * (counts > 0)[:, None]
    backward = -(gaps + lengths - lengths[0])
    searched = np.where((counts > 0)[:, None], steps, 0)
    shifts = np.round(searched[:, None, None] * np.array([gaps, backward])[..., None]).astype(np.int64)
    reaches = np.maximum(1, np.ceil(np.abs(gaps) / (lines - 1) / 2 - 0.5)).astype(np.int64)
    reaches[0] = 0
    lefts = shifts.min(axis=(0, 1, 3)) - reaches
    span = int((shifts.max(axis=(0, 1, 3)) + reaches - lefts).max())
    rows = np.arange(lines)
    reverse = np.array([np.where(rows < length, length - 1 - rows, rows) for length in lengths])
    return Trees(
        drifts=steps,
        counts=counts,
        shifts=shifts - lefts[:, None],
        reaches=reaches,
        lefts=lefts,
        offsets=np.round(shears[:, None] * rows).astype(np.int64),
        orders=np.stack([np.tile(rows, (ons, 1)), reverse]),
        columns=TILE + span + lines + 4,
    )


# LLVM vectorizes a loop over small integers only in a function of its own, with arrays that do not overlap.


@njit(cache=True, nogil=True)
@no_type_check
def _to_integers(
    row: Float32[np.ndarray, " n"], top: float, scale: float, half: float, out: Int[np.ndarray, " n"]
) -> None:
    """Fill `out` with `row` times `scale`, clipped at `top` either way; `half` is half a step above an offset."""
    for f in range(out.size):
        out[f] = np.int32(min(max(row[f], -top), top) * scale + half) - 16384


@njit(cache=True, nogil=True)
@no_type_check
def _add(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"], out: Int[np.ndarray, " n"]) -> None:
    low, high = np.iinfo(out.dtype).min, np.iinfo(out.dtype).max
    for f in range(out.size):
        out[f] = min(max(np.int32(a[f]) + np.int32(b[f]), low), high)  # one instruction adds and limits


@njit(cache=True, nogil=True)
@no_type_check
def _raise(a: Int[np.ndarray, " n"], out: Int[np.ndarray, " n"]) -> None:
    """Raise `out` to `a` where that is more."""
    for f in range(out.size):
        out[f] = max(out[f], a[f])


@njit(cache=True, nogil=True)
@no_type_check
def _add_brightest(
    a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"], c: Int[np.ndarray, " n"], out: Int[np.ndarray, " n"]
) -> None:
    """Add the largest of three to `out`."""
    low, high = np.iinfo(out.dtype).min, np.iinfo(out.dtype).max
    for f in range(out.size):
        near = max(max(a[f], b[f]), c[f])  # noqa: PLW3301  numba vectorizes no maximum of three
        out[f] = min(max(np.int32(out[f]) + np.int32(near), low), high)


@njit(cache=True, nogil=True)
@no_type_check
def _largest(a: Int[np.ndarray, " n"]) -> int:
    top = a[0]
    for f in range(a.size):
        top = max(top, a[f])
    return top


@njit(cache=True, nogil=True)
@no_type_check
def _next_above(a: Int[np.ndarray, " n"], first: int, threshold: float) -> int:
    """Return the first place from `first` on where `a` reaches the threshold; its size if there is none."""
    for start in range(first, a.size, GROUP):
        group = a[start : start + GROUP]
        if _largest(group) >= threshold:
            for k in range(group.size):
                if group[k] >= threshold:
                    return start + k
    return a.size


@njit(cache=True, nogil=True)
@no_type_check
def _load(
    binned: Float32[np.ndarray, "time bins"],
    unit: Float32[np.ndarray, " time"],
    ceiling: float,
    first: int,
    single: Int[np.ndarray, "lines columns"],
    double: Int[np.ndarray, "lines columns"],
) -> None:
    """Fill the leaves of a tree with weighted rows from bin `first` on; zero beyond the band.

    Args:
        binned: rows of one ON.
        unit: of each row: steps to a sigma, times its weight.
        ceiling: at which a bin is clipped, either way.
        first: bin of the first column.
        single: receives the bins.
        double: receives the sum of each bin and the next.
    """
    rows, bins = binned.shape
    columns = single.shape[1]
    low, high = min(max(-first, 0), columns), min(max(bins - first, 0), columns)
    for t in range(rows):
        single[t, :low] = 0
        single[t, high:] = 0
        row, filled = binned[t, first + low : first + high], single[t, low:high]
        _to_integers(row, np.float32(ceiling), np.float32(unit[t]), np.float32(16384.5), filled)
        _add(single[t, :-1], single[t, 1:], double[t, :-1])


@njit(cache=True, nogil=True)
@no_type_check
def _pairs(
    leaves: Int[np.ndarray, "lines _"],
    order: Int64[np.ndarray, " lines"],
    offsets: Int64[np.ndarray, " lines"],
    n: int,
    out: Int[np.ndarray, "lines columns"],
) -> None:
    """Fill `out` with lines over pairs of rows: row `order[t]` of `leaves`, from column `offsets[t]` on."""
    for t in range(0, out.shape[0], 2):
        a, b = offsets[t], offsets[t + 1]
        first, second = leaves[order[t]], leaves[order[t + 1]]
        _add(first[a : a + n], second[b : b + n], out[t, :n])
        _add(first[a : a + n], second[b + 1 : b + 1 + n], out[t + 1, :n])


@njit(cache=True, nogil=True)
@no_type_check
def _join(lines: Int[np.ndarray, "lines columns"], half: int, n: int, out: Int[np.ndarray, "lines columns"]) -> None:
    """Join lines over `half` rows to lines over twice as many."""
    for group in range(0, out.shape[0], 2 * half):
        for drift in range(2 * half):
            late = (drift + 1) // 2
            early_line, late_line = lines[group + drift // 2], lines[group + half + drift // 2]
            _add(early_line[:n], late_line[late : late + n], out[group + drift, :n])


@njit(cache=True, nogil=True)
@no_type_check
def _quarter(
    leaves: Int[np.ndarray, "lines _"],
    order: Int64[np.ndarray, " rows"],
    offsets: Int64[np.ndarray, " rows"],
    tree: Int[np.ndarray, "rows columns"],
    spare: Int[np.ndarray, "rows columns"],
) -> None:
    """Fill `tree` with lines over some of the rows, by drift; the arguments are those of `_quarters`."""
    rows, columns = tree.shape
    if rows == 1:
        tree[0] = leaves[order[0], offsets[0] : offsets[0] + columns]
        return
    half, n = 2, columns - 1
    stages = 0
    while (half << stages) < rows:
        stages += 1
    if stages % 2 == 0:
        _pairs(leaves, order, offsets, n, tree)
    else:
        _pairs(leaves, order, offsets, n, spare)
        _join(spare, half, n - half, tree)
        half, n = 2 * half, n - half
    while half < rows:
        _join(tree, half, n - half, spare)
        _join(spare, 2 * half, n - 3 * half, tree)
        half, n = 4 * half, n - 3 * half


@njit(cache=True, nogil=True)
@no_type_check
def _quarters(
    leaves: Int[np.ndarray, "lines _"],
    order: Int64[np.ndarray, " lines"],
    offsets: Int64[np.ndarray, " lines"],
    tree: Int[np.ndarray, "lines columns"],
    spare: Int[np.ndarray, "rows columns"],
) -> None:
    """Fill `tree` with lines over each quarter of the rows; group g of the result holds those of quarter g, by drift.

    Args:
        leaves: rows.
        order: in which they are read.
        offsets: column in which each begins.
        tree: receives the lines.
        spare: scratch space for a quarter.
    """
    rows = order.size // 4
    for g in range(0, order.size, rows):  # one after the other: the rows of one fit into the fastest cache
        _quarter(leaves, order[g : g + rows], offsets[g : g + rows], tree[g : g + rows], spare)


@njit(cache=True, nogil=True)
@no_type_check
def _half_line(
    tree: Int[np.ndarray, "lines columns"], group: int, slope: int, first: int, out: Int[np.ndarray, " n"]
) -> None:
    """Fill `out` with lines over one half of the rows.

    Args:
        tree: lines over quarters.
        group: first line of the half.
        slope: drift over the half, in bins.
        first: column in which the first line begins.
        out: receives the lines.
    """
    late, n, quarter = first + (slope + 1) // 2, out.size, tree.shape[0] // 4
    early_line, late_line = tree[group + slope // 2], tree[group + quarter + slope // 2]
    _add(early_line[first : first + n], late_line[late : late + n], out)


@njit(cache=True, nogil=True)
@no_type_check
def _peaks(
    trees: Int[np.ndarray, "ons lines columns"],
    shifts: Int64[np.ndarray, "ons drifts"],
    reaches: Int64[np.ndarray, " ons"],
    best: Int[np.ndarray, " tile"],
    joint: Int[np.ndarray, " tile"],
) -> None:
    """Fill `best` and `joint` with the brightest line from each bin: in the first ON, and in all together.

    These are the last two stages of the trees, without their storage.

    Args:
        trees: lines over quarters of the rows.
        shifts: column in which the line from the tile's first bin begins.
        reaches: bins to either side of it in which it may begin.
        best: receives the sums of the first ON.
        joint: receives those of all.
    """
    ons, drifts = shifts.shape
    tile, late_half = best.size, trees.shape[1] // 2
    longest = 0
    for i in range(ons):
        for d in range(1, drifts):
            longest = max(longest, abs(shifts[i, d] - shifts[i, d - 1]))
    room = tile + 2 * reaches.max() + 2 + longest
    early, late = np.empty((ons, room), best.dtype), np.empty((ons, room), best.dtype)
    line, total, near = np.empty(room, best.dtype), np.empty(tile, best.dtype), np.empty(tile, best.dtype)
    begins = np.empty(ons, np.int64)
    best[:], joint[:] = np.iinfo(best.dtype).min, np.iinfo(best.dtype).min
    for d in range(drifts):
        for i in range(ons):
            reach, n = reaches[i], tile + 2 * reaches[i]
            if d % 2 == 0:  # both halves serve this drift and the next
                following = shifts[i, min(d + 1, drifts - 1)]
                begins[i] = min(shifts[i, d], following) - reach
                wide = n + 1 + abs(following - shifts[i, d])
                _half_line(trees[i], 0, d // 2, begins[i], early[i, :wide])
                _half_line(trees[i], late_half, d // 2, begins[i] + d // 2, late[i, :wide])
            at = shifts[i, d] - reach - begins[i]
            later = at + d % 2
            if i == 0:
                _add(early[i, at : at + n], late[i, later : later + n], total)
                _raise(total, best)
                continue
            _add(early[i, at : at + n], late[i, later : later + n], line[:n])
            if reach == 1:
                _add_brightest(line[:tile], line[1 : tile + 1], line[2 : tile + 2], total)
                continue
            near[:] = line[:tile]
            for k in range(1, n - tile + 1):
                _raise(line[k : k + tile], near)
            _add_brightest(near, near, near, total)
        if ons > 1:
            _raise(total, joint)


@njit(cache=True, nogil=True)
@no_type_check
def _line_at(tree: Int[np.ndarray, "lines columns"], slope: int, column: int) -> int:
    """Return the sum of the line of drift `slope` that starts in `column`."""
    half, quarter = slope // 2, tree.shape[0] // 4
    late = column + (slope + 1) // 2
    return (
        np.int64(tree[half // 2, column])
        + tree[quarter + half // 2, column + (half + 1) // 2]
        + tree[2 * quarter + half // 2, late]
        + tree[3 * quarter + half // 2, late + (half + 1) // 2]
    )


@njit(cache=True, nogil=True)
@no_type_check
def _brightest(
    trees: Int[np.ndarray, "ons lines columns"],
    shifts: Int64[np.ndarray, "ons drifts"],
    reaches: Int64[np.ndarray, " ons"],
    at: int,
) -> tuple[int, int, int]:
    """Return (sum, drift, lowest sum of an ON) of the brightest line from bin `at` of a tile, as `_peaks` does."""
    top, slope, lowest = -1, 0, 0
    for d in range(shifts.shape[1]):
        total, least = 0, 2**31
        for i in range(shifts.shape[0]):
            near = -(2**31)
            for k in range(-reaches[i], reaches[i] + 1):
                near = max(near, _line_at(trees[i], d, shifts[i, d] + at + k))
            total += near
            least = min(least, near)
        if total > top:
            top, slope, lowest = total, d, least
    return top, slope, lowest


@njit(cache=True, nogil=True)
@no_type_check
def _tile_hits(
    peak: Int[np.ndarray, " tile"],
    trees: Int[np.ndarray, "ons lines columns"],
    shifts: Int64[np.ndarray, "ons drifts"],
    reaches: Int64[np.ndarray, " ons"],
    sigma: float,
    min_snr: float,
    hits: np.ndarray,
    count: int,
) -> int:
    """Append the local maxima of `peak` to `hits`: bin of the tile and drift by number. Return the new count.

    Neighbors at the limit of their type are one maximum, at the bin whose quarters have the largest sum.

    Args:
        peak: brightest sum from each bin.
        trees: of the ONs that were summed.
        shifts: as in `_peaks`.
        reaches: as in `_peaks`.
        sigma: steps to a sigma of one ON.
        min_snr: lowest SNR of a hit.
        hits: records of `HIT`.
        count: number of hits so far, also of those for which there was no room.
    """
    ons, limit = trees.shape[0], np.iinfo(peak.dtype).max
    norm = sigma * math.sqrt(ons)
    threshold = min(HIGHEST_THRESHOLD * limit, min_snr * norm)
    after = 0
    while after < peak.size:
        f = _next_above(peak, after, threshold)
        after = f + 1
        while after < peak.size and peak[f] == limit and peak[after] == limit:
            after += 1
        if f == peak.size or (f and peak[f - 1] > peak[f]) or (after < peak.size and peak[after] >= peak[f]):
            continue
        at, line = f, _brightest(trees, shifts, reaches, f)
        for other in range(f + 1, after):
            found = _brightest(trees, shifts, reaches, other)
            if found[0] > line[0]:
                at, line = other, found
        top, slope, least = line
        if top < min_snr * norm or (ons > 1 and least < max(LEAST_SNR * sigma, LEAST_SHARE * top / ons)):
            continue
        if count < hits.size:
            hits[count]["channel"], hits[count]["drift"], hits[count]["snr"] = at, slope, top / norm
        count += 1
    return count


@njit(cache=True, nogil=True)
@no_type_check
def _level_hits(
    binned: Float32[np.ndarray, "obs time bins"],
    positions: Int64[np.ndarray, " ons"],
    lengths: Int64[np.ndarray, " ons"],
    units: Float32[np.ndarray, "ons time"],
    ceiling: float,
    sigma: float,
    dtype: np.dtype,
    factor: int,
    layout: Trees,
    min_snrs: tuple[float, float],
    hits: np.ndarray,
    counts: Int64[np.ndarray, " 2"],
) -> None:
    """Append the hits at one binning to `hits`: those of the first ON to the first row, of all ONs to the second.

    Args:
        binned: rows in bins of `factor` channels.
        positions: of the ONs among the observations.
        lengths: rows of each ON.
        units: of each row: steps to a sigma, times its weight.
        ceiling: at which a bin is clipped.
        sigma: steps to a sigma, with the noise of rounding.
        dtype: of the sums.
        factor: channels of a bin.
        layout: of the trees.
        min_snrs: lowest SNR of a hit in the first ON, and in all together.
        hits: (2, room) records of `HIT`.
        counts: number of hits, also of those for which there was no room.
    """
    ons, bins, lines = positions.size, binned.shape[2], layout.offsets.shape[1]
    single = np.zeros((ons, lines, layout.columns + layout.offsets[1, -1] + 1), dtype)
    double = np.zeros_like(single)
    trees, spare = np.empty((ons, lines, layout.columns), dtype), np.empty((lines // 4, layout.columns), dtype)
    best, joint = np.empty(TILE, dtype), np.empty(TILE, dtype)
    for start in range(0, bins, TILE):
        for i in range(ons):
            rows = binned[positions[i], : lengths[i]]
            _load(rows, units[i], ceiling, start + layout.lefts[i], single[i], double[i])
        # Two bins, two bins of sheared rows, and single bins at full resolution: a line that drifts by more than half a
        # bin per row has less than three quarters of its power in a single one.
        for shear, wide in ((0, 2), (1, 2), (0, 1)):
            drifts = layout.counts[shear] if wide == 2 else min(layout.counts[shear], lines // 2)
            if drifts == 0 or (wide == 1 and factor > 1):
                continue
            for direction in range(2):
                for i in range(ons):
                    leaves = double[i] if wide == 2 else single[i]
                    _quarters(leaves, layout.orders[direction, i], layout.offsets[shear], trees[i], spare)
                shifts = layout.shifts[shear, direction, :, :drifts].copy()
                _peaks(trees, shifts, layout.reaches, best, joint)
                for kind in range(2 if ons > 1 else 1):
                    peak, summed, before = (joint, ons, counts[1]) if kind else (best, 1, counts[0])
                    counts[kind] = _tile_hits(
                        peak, trees[:summed], shifts[:summed], layout.reaches,
                        sigma * math.sqrt(wide), min_snrs[kind], hits[kind], before,
                    )  # fmt: skip
                    for hit in hits[kind, before : counts[kind]]:
                        drift = layout.drifts[shear, int(hit["drift"])]
                        middle = start + hit["channel"] + wide / 2 + drift * (lengths[0] - 1) / 2
                        hit["channel"] = middle * factor - 0.5
                        hit["drift"], hit["width"] = drift * factor * (1 - 2 * direction), factor * wide


@njit(cache=True, nogil=True)
@no_type_check
def _halve(
    binned: Float32[np.ndarray, "obs time bins"],
    positions: Int64[np.ndarray, " ons"],
    lengths: Int64[np.ndarray, " ons"],
    ceiling: float,
    out: Float32[np.ndarray, "ons time half"],
) -> None:
    """Fill `out` with the sums of pairs of neighboring bins of the ONs, each clipped at `ceiling`."""
    top = np.float32(ceiling)
    for i in range(positions.size):
        for t in range(lengths[i]):
            row, sums = binned[positions[i], t], out[i, t]
            for f in range(sums.size):
                sums[f] = min(row[2 * f], top) + min(row[2 * f + 1], top)


def find_hits(
    sigmas: Float32[np.ndarray, "obs time freq"],
    weights: Float32[np.ndarray, "obs level time"],
    ons: Int64[np.ndarray, " ons"],
    lengths: Int64[np.ndarray, " obs"],
    starts: Float64[np.ndarray, " obs"],
    *,
    max_drift: float,
    min_snrs: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Return the hits of the reference ON, the joint hits, and the number of peaks of either kind.

    A peak is a sum above the threshold with no brighter sum beside it. One line gives several, at several binnings. The
    brightest at each place is kept, brightest first. Beyond `MOST_HITS` peaks only the brightest are examined.

    Args:
        sigmas: power in units of each row's noise.
        weights: of each row at each binning (`row_weights`), which also sets the number of binnings searched.
        ons: positions of the ONs, the reference first.
        lengths: rows of each observation.
        starts: start of each observation, in rows.
        max_drift: channels per row, in either direction.
        min_snrs: SNR of a line at its best binning in the reference ON, and in all ONs together.
    """
    lengths, gaps, positions = lengths[ons], starts[ons] - starts[ons[0]], ons
    levels = weights.shape[1]
    # Of two neighboring bins one at most is a peak, for each direction and kind of sum.
    room = sum((4 if level else 6) * ((sigmas.shape[2] >> level) + TILE) // 2 for level in range(levels))
    hits, counts = np.empty((2, room), HIT), np.zeros(2, np.int64)
    binned, clip, least = sigmas, PIXEL_CEILING, (float(min_snrs[0]), float(min_snrs[1]))  # compiled for floats only
    kind = np.int8 if lengths.max() <= FEW_ROWS else np.int16
    steps = _steps(kind, max(min(least[0], USUAL_SNR), min(least[1], USUAL_SNR) * math.sqrt(len(ons))))
    sigma, dtype = math.sqrt(steps**2 + lengths.max() / 12), np.dtype(kind)
    for level in range(levels):
        factor, own = 1 << level, weights[ons, level]
        if level:
            halves = np.empty((len(ons), sigmas.shape[1], binned.shape[2] // 2), np.float32)
            _halve(binned, positions, lengths, clip, halves)
            binned, positions, clip = halves, np.arange(len(ons)), np.inf
        ceiling = ROW_CEILING if level else PIXEL_CEILING
        layout, root = lay_out(lengths, gaps, max_drift / factor), math.sqrt(factor)
        units = (own * (steps / root)).astype(np.float32)
        _level_hits(
            binned, positions, lengths, units, ceiling * root, sigma, dtype, factor, layout, least, hits, counts
        )
    # Joint hits drift alike over the whole cadence, and overlap only if they do so close to the middle.
    alone, joint = (
        _brightest_first(some[:count], reach)
        for some, count, reach in zip(hits, counts, (int(lengths[0]), int(lengths[0]) // 4), strict=True)
    )
    return alone, joint, (int(counts[0]), int(counts[1]))


def _steps(kind: type[np.signedinteger[Any]], threshold: float) -> float:
    """Return the steps to a sigma of one ON, for a threshold in sigma of one ON on sums over two bins."""
    return min(STEPS[kind], HIGHEST_THRESHOLD * np.iinfo(kind).max / (threshold * math.sqrt(2)))


def _brightest_first(hits: np.ndarray, rows: int) -> np.ndarray:
    order = np.lexsort((hits["drift"], hits["channel"], -hits["snr"]))[:MOST_HITS]
    return _distinct(hits[order], rows)


@njit(cache=True, nogil=True)
@no_type_check
def _distinct(hits: np.ndarray, rows: int) -> np.ndarray:
    """Return the brightest of every group of overlapping hits, which sum the same power in different ways.

    Two hits overlap if, somewhere in the middle `rows` of the observation, they are closer than their widths together.
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
