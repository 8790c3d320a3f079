"""Search stamps: windows of band cut out beforehand, each searched like a whole band. Aetherscan calls them plates.

An .npy file holds (n, 6, rows, channels) of power in ABACAD order: 4,096 channels at native resolution, or 512 bins of
eight channels each, as the first Aetherscan code stores them. The logarithm of power works as well. A stamp is
normalized by itself. Its probability is that of its most probable line, and 0 if no line passes the gates. With
`--mode windows` it is the probability of the whole window, as in the papers. A stamp holds much less noise than a band,
so fainter lines may pass, and a line that crosses the track in an OFF is left to the forest.

The file gives neither sky position nor frequency, so a stamp has a probability but no frequency, drift rate or SNR. Nor
does it give the start times. A stamp is searched with scans 341 s apart, as at Green Bank, and again with scans that
follow one another without a pause, as the first Aetherscan code injects signals; the higher probability counts.

A stamp is dead if one of its observations holds no power: less than half of it is a number, its median is not positive,
or all its pixels are equal. It has no probability, and trains nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from aetherscan.cadence.geometry import Geometry, geometry_of
from aetherscan.detector.detector import Detector
from aetherscan.detector.release import MEASUREMENTS, OBSERVATIONS
from aetherscan.errors import FormatError
from aetherscan.header import SCAN_STEP_S, SECONDS_PER_DAY, gbt_header
from aetherscan.options.search import Gates
from aetherscan.search.bandpass import normalize_block
from aetherscan.search.cutouts import WINDOW_LEVEL, track_snippet, window_snippet
from aetherscan.search.features import measurements
from aetherscan.search.on_off import find_tracks, merge

COLUMNS = ("file", "plate", "probability", "spread", "prediction")
LEVELS = (WINDOW_LEVEL, 0)
"""Binnings of a snippet, in channels of the file, as powers of two."""
COARSE = 2**18
"""Channels of the coarse channel that stamps are from, wide enough that the middle of a stamp is no DC spike."""
GATES = Gates(max_drift_hz_s=7.0, hit_snr=4.0, min_on_snr=2.5, min_together_snr=6.5, min_joint_snr=6.5, max_off_snr=14)


def score_stamps(path: Path, detector: Detector, threshold: float, batch: int) -> Iterator[dict[str, Any]]:
    """Yield a row of `COLUMNS` for each stamp in a file; a dead one has None for probability, spread and prediction.

    Args:
        path: .npy file of stamps.
        detector: whose mode is used.
        threshold: probability from which a stamp is predicted to be a signal.
        batch: stamps to score at a time.

    Raises:
        FormatError: the file holds no stamps.
    """
    shape = detector.release.snippet
    stamps = open_stamps(path, shape, LEVELS)
    timings = stamp_geometries(shape, stamps.shape[-1])
    for first in range(0, len(stamps), batch):
        arrays = [as_power(stamp) for stamp in stamps[first : first + batch]]
        dead = [bool(fault_of(stamp)) for stamp in arrays]
        width = 0 if detector.mode == "windows" else len(MEASUREMENTS)
        nothing = list[Float32[np.ndarray, "obs rows bins"]](), np.empty((0, width), np.float32)
        if detector.mode == "windows":
            lines = [
                nothing if fault else ([stamp_window(stamp, timings[0], shape)], np.empty((1, 0), np.float32))
                for stamp, fault in zip(arrays, dead, strict=True)
            ]
        else:
            lines = [
                nothing if fault else stamp_lines(stamp, timings, shape)
                for stamp, fault in zip(arrays, dead, strict=True)
            ]
        features = np.concatenate([measured for _, measured in lines])
        latents = detector.encode_snippets(snippet for snippets, _ in lines for snippet in snippets)
        scores = np.column_stack([detector.score(latents, features), detector.spread(latents, features)])
        ends = np.cumsum([len(measured) for _, measured in lines])
        for number, (of_stamp, fault) in enumerate(zip(np.split(scores, ends[:-1]), dead, strict=True), first):
            probability, spread = max(of_stamp.tolist(), key=itemgetter(0), default=(0.0, 0.0))
            scored = (None, None, None) if fault else (probability, spread, int(probability >= threshold))
            yield dict(zip(COLUMNS, (path.name, number, *scored), strict=True))


def as_power(stamp: np.ndarray) -> Float32[np.ndarray, "..."]:
    """Return a stamp as an array of its own, in float32; larger numbers become infinite."""
    with np.errstate(over="ignore"):
        return np.array(stamp, dtype=np.float32, order="C")


def fault_of(stamp: Float32[np.ndarray, "obs time freq"]) -> str:
    """Return why a stamp is dead, or an empty string."""
    for pixels in stamp.reshape(len(stamp), -1):
        measured = pixels[np.isfinite(pixels)]
        if 2 * measured.size < pixels.size:
            return "NaN or infinite values"
        median = np.median(measured)
        if median < 0:
            return "negative values"
        if median == 0:
            return "zeros"
        if measured.min() == measured.max():
            return "equal values"
    return ""


def faults(stamps: np.ndarray, indices: Iterable[int]) -> dict[int, str]:
    """Return why stamps of a file are dead, by index; those that are not dead are left out."""
    found = {index: fault_of(as_power(stamps[index])) for index in indices}
    return {index: fault for index, fault in found.items() if fault}


def dead_line(path: Path, dead: Mapping[int, str], count: int, what: str = "stamps", number: str = "stamp") -> str:
    """Say how many of the stamps of a file are dead, and which the first of each kind is.

    Args:
        path: of the file.
        dead: why each is dead, by its number.
        count: of all that were looked at.
        what: they are, in the plural.
        number: what their numbers count.
    """
    firsts = {fault: index for index, fault in reversed(list(dead.items()))}
    kinds = Counter(dead.values())
    named = ", ".join(f"{kinds[fault]} with {fault} (the first is {number} {firsts[fault]})" for fault in kinds)
    return f"{path}: {len(dead)} of {count} {what} hold no power and are not used: {named}"


def stamp_geometries(shape: tuple[int, int], chans: int) -> list[Geometry]:
    """Return the geometry of stamps with `chans` channels, for each assumption about the start times of the scans."""
    binning = (shape[1] << WINDOW_LEVEL) // chans
    header = gbt_header(chans, rows=shape[0])
    header = replace(header, foff=header.foff * binning, nfpc=COARSE // binning)
    steps_s = (SCAN_STEP_S, header.duration_s)
    return [
        geometry_of([replace(header, tstart=header.tstart + i * step_s / SECONDS_PER_DAY) for i in range(OBSERVATIONS)])
        for step_s in steps_s
    ]


def stamp_lines(
    stamp: Float32[np.ndarray, "obs time freq"], timings: Sequence[Geometry], shape: tuple[int, int]
) -> tuple[list[Float32[np.ndarray, "obs rows bins"]], Float32[np.ndarray, "tracks measurements"]]:
    """Return the snippet and the measurements of each line in a stamp that passes the gates, for any of `timings`."""
    snippets, features = (
        list[Float32[np.ndarray, "obs rows bins"]](),
        list[Float32[np.ndarray, "tracks measurements"]](),
    )
    block = normalize_block(stamp, timings[0])
    for cadence in timings:
        tracks, rejections, _ = find_tracks(block, cadence, GATES)
        tracks = tracks[rejections == ""]
        tracks = tracks[merge(tracks, cadence)]
        snippets += [track_snippet(block, track, cadence, shape) for track in tracks]
        features.append(measurements(tracks, cadence))
    return snippets, np.concatenate(features)


def stamp_window(
    stamp: Float32[np.ndarray, "obs time freq"], cadence: Geometry, shape: tuple[int, int]
) -> Float32[np.ndarray, "obs rows bins"]:
    """Return the encoder's input for a whole stamp."""
    level = (stamp.shape[-1] // shape[1]).bit_length() - 1
    return window_snippet(normalize_block(stamp, cadence), 0, cadence, shape, level)


def open_stamps(path: Path, shape: tuple[int, int], levels: Sequence[int] = (WINDOW_LEVEL,)) -> np.ndarray:
    """Return the stamps in a file, read from it as they are used.

    Args:
        path: .npy file.
        shape: rows and bins of a snippet.
        levels: binnings, as powers of two, that reduce a stamp to a snippet; each allows one width.

    Raises:
        FormatError: the file holds no stamps, or stamps of another shape.
    """
    expected = "expected stamps in an .npy file of numbers"
    widths = [shape[1] << level for level in levels]
    try:
        stamps = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy's parser raises errors of many kinds for a header that is no header
        found = "other bytes, or pickled objects" if "pickle" in str(error) else _line(error)
        raise FormatError(f"{path}: {expected}, found {found}") from error
    if not isinstance(stamps, np.ndarray):
        stamps.close()
        raise FormatError(f"{path}: {expected}, found an .npz file")
    if stamps.shape[1:] not in [(OBSERVATIONS, shape[0], width) for width in widths] or stamps.dtype.kind not in "fiu":
        shapes = " or ".join(f"(n, {OBSERVATIONS}, {shape[0]}, {width})" for width in widths)
        raise FormatError(f"{path}: expected numbers of shape {shapes}, found {stamps.dtype} of {stamps.shape}")
    if not len(stamps):
        raise FormatError(f"{path}: expected at least one stamp, found none")
    return stamps


def _line(error: Exception) -> str:
    """Return the message of an error on one line, without what NumPy adds for programmers."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
