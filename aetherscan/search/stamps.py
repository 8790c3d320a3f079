"""Plates: windows of band that were cut out already, as the papers' code keeps them, searched as if each were a band.

An .npy file holds (n, 6, rows, channels) of power, ABACAD: 4,096 channels at native resolution, or 512 of eight
channels each, as the first seed stores them; equalized, its logarithm is as good. A plate is equalized by itself. Its
probability is that of the line in it which is likeliest to be a signal, 0 where none gets as far; with `--mode windows`
that of the window as a whole, as in the papers. A plate holds so little noise that lines may be fainter than in a band,
and what crosses one in an OFF is left to the forest.

Where on the sky or in the band it was is not in the file: a plate has a probability, and no frequency, drift or SNR.
Nor is when its scans began: it is searched as if 341 s apart, as at Green Bank, and once more as if one scan followed
another without a pause, as the first seed injects; the likelier counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from aetherscan.cadence.geometry import Geometry, geometry_of
from aetherscan.detector.detector import Detector
from aetherscan.errors import FormatError
from aetherscan.header import SCAN_STEP_S, SECONDS_PER_DAY, gbt_header
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import normalize_block
from aetherscan.search.cutouts import (
    WINDOW_LEVEL,
    track_snippet,
    window_snippet,
)
from aetherscan.search.features import measurements
from aetherscan.search.on_off import find_tracks, merge

COLUMNS = ("file", "plate", "probability", "spread", "prediction")
LEVELS = (WINDOW_LEVEL, 0)
"""Channels that make one bin of a snippet, as a power of two."""
COARSE = 2**18
"""Channels of the coarse channel that plates are from: so wide that the middle of a plate is no DC spike."""
SEARCH = SearchSettings(max_drift_hz_s=7.0, hit_snr=4.0, min_on_snr=2.5, min_together_snr=6.5, max_off_snr=14.0)


def score_plates(path: Path, detector: Detector, threshold: float, batch: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each plate in `path`, `COLUMNS`; so many are scored at a time, in the detector's mode.

    Raises:
        FormatError: the file holds no plates.
    """
    shape = detector.release.snippet
    plates = open_plates(path, shape, LEVELS)
    timings = geometries(shape, plates.shape[-1])
    for first in range(0, len(plates), batch):
        arrays = [np.ascontiguousarray(plate, dtype=np.float32) for plate in plates[first : first + batch]]
        if detector.mode == "windows":
            shown = [([window_of(one, timings[0], shape)], np.empty((1, 0), np.float32)) for one in arrays]
        else:
            shown = [lines_of(one, timings, shape) for one in arrays]
        told = np.concatenate([columns for _, columns in shown])
        latents = detector.encode_snippets(snippet for snippets, _ in shown for snippet in snippets)
        scored = np.column_stack([detector.score(latents, told), detector.spread(latents, told)])
        ends = np.cumsum([len(columns) for _, columns in shown])
        for place, mine in enumerate(np.split(scored, ends[:-1]), first):
            probability, spread = max(mine.tolist(), key=itemgetter(0), default=(0.0, 0.0))
            row = (path.name, place, probability, spread, int(probability >= threshold))
            yield dict(zip(COLUMNS, row, strict=True))


def geometries(shape: tuple[int, int], chans: int) -> list[Geometry]:
    """Return what a search needs to know of plates with so many channels, by when their scans may have begun."""
    binning = (shape[1] << WINDOW_LEVEL) // chans
    header = gbt_header(chans, rows=shape[0])
    header = replace(header, foff=header.foff * binning, nfpc=COARSE // binning)
    steps = (SCAN_STEP_S, header.duration_s)
    return [
        geometry_of([replace(header, tstart=header.tstart + i * step / SECONDS_PER_DAY) for i in range(6)])
        for step in steps
    ]


def lines_of(
    plate: Float32[np.ndarray, "obs time freq"], timings: Sequence[Geometry], shape: tuple[int, int]
) -> tuple[list[Float32[np.ndarray, "obs rows bins"]], Float32[np.ndarray, "tracks measurements"]]:
    """Return snippet and measurements of each line in a plate that may be a signal, by any of `timings`."""
    snippets, told = list[Float32[np.ndarray, "obs rows bins"]](), list[Float32[np.ndarray, "tracks measurements"]]()
    equalized = normalize_block(plate, timings[0])
    for cadence in timings:
        tracks, rejections, _ = find_tracks(equalized, (0, plate.shape[-1]), cadence, SEARCH)
        tracks = tracks[rejections == ""]
        tracks = tracks[merge(tracks, cadence)]
        snippets += [track_snippet(equalized, one, cadence, shape) for one in tracks]
        told.append(measurements(tracks, cadence))
    return snippets, np.concatenate(told)


def window_of(
    plate: Float32[np.ndarray, "obs time freq"], cadence: Geometry, shape: tuple[int, int]
) -> Float32[np.ndarray, "obs rows bins"]:
    """Return what the encoder sees of a plate as a whole."""
    level = (plate.shape[-1] // shape[1]).bit_length() - 1
    return window_snippet(normalize_block(plate, cadence), 0, cadence, shape, level)


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
