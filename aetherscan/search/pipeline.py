"""The whole search of a cadence, read aloud: stretches of band -> hits in the ONs -> tracks -> scores -> candidates.

Every stretch is equalized, the lines in its ONs proposed at every binning, each followed through the six observations
and measured there. What is not in all three ONs, or is in an OFF, goes no further; what is left is shown to the encoder
and the forest, centred and at the binning that suits it, with its measurements beside it. `--mode windows` keeps the
papers' way of choosing: every window of 4,096 channels, half overlapping, goes through the encoder and the forest, and
only tracks in a window that passes are told of. They are measured all the same.

Nothing is dropped without a name: `counts` has what every stage took in and why it let go of what it let go.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from queue import SimpleQueue
from threading import Lock

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from aetherscan.cadence.geometry import ON_POSITIONS, Geometry, geometry_of
from aetherscan.detector.detector import Detector, Latents
from aetherscan.io import Observation
from aetherscan.options.search import SearchSettings
from aetherscan.search.bandpass import NormalizedBlock, normalize_block
from aetherscan.search.blocks import STRETCH, Block, blocks, halo
from aetherscan.search.candidates import Candidate
from aetherscan.search.cutouts import WINDOW_LEVEL, snippet_level, to_uint8, track_snippet, window_snippet
from aetherscan.search.features import measurements
from aetherscan.search.follow import DRIFT, START, as_track
from aetherscan.search.known_rfi import rfi_context
from aetherscan.search.on_off import find_tracks, merge


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Candidates by frequency, what every stage took in and let through, and what it cost in seconds of work."""

    candidates: tuple[Candidate, ...]
    snippets: UInt8[np.ndarray, "candidates obs rows bins"]  # of their tracks, in `UINT8_MAX`, whatever the mode
    measurements: Float32[np.ndarray, "candidates measurements"]
    counts: dict[str, int]
    stage_s: dict[str, float]
    bytes_read: int


class Clock:
    """Seconds of work by stage, over all threads."""

    def __init__(self) -> None:
        self.stage_s: dict[str, float] = {}
        self._lock = Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the time inside to `stage`."""
        began = time.perf_counter()
        yield
        with self._lock:
            self.stage_s[stage] = self.stage_s.get(stage, 0.0) + time.perf_counter() - began


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of a stretch: tracks as rows of `track.FIELDS`, in channels of the file, and what the encoder saw."""

    tracks: Float64[np.ndarray, "tracks fields"]  # in every ON and in no OFF
    snippets: UInt8[np.ndarray, "tracks obs rows bins"]
    latents: Latents  # of each track's snippet, or of each window
    windows: Float64[np.ndarray, " windows"]  # where they begin, in `--mode windows`
    interference: Float64[np.ndarray, " lines"]  # where lines begin that are in every ON, and in an OFF too
    counts: Counter[str]


def search_cadence(
    observations: Sequence[Observation],
    detector: Detector,
    settings: SearchSettings | None = None,
    progress: Callable[[float], None] = lambda _: None,
    on: tuple[int, ...] = ON_POSITIONS,
) -> SearchResult:
    """Search six observations, in time order.

    Args:
        observations: open, of the same channels.
        detector: a release in memory.
        settings: how to search; the defaults where not given.
        progress: called often with the share of the band that is done.
        on: positions of the ONs: (1, 3, 5) where the target came second.

    Raises:
        CadenceError: the observations do not share a band, or are not six.
        ReadError: a file could not be read, or changed meanwhile.
        ReleaseError: the release cannot search in this mode.
    """
    settings = settings or SearchSettings()
    detector = detector.for_mode(settings.mode)
    cadence = geometry_of([observation.header for observation in observations], on)
    reach = halo(cadence.headers, cadence.max_drift(settings.max_drift_hz_s))
    clock, found, rooms = Clock(), list[Found](), SimpleQueue[Float32[np.ndarray, " pixels"]]()
    for _ in range(settings.threads):  # used again and again: a fresh large array costs more than what is done in it
        rooms.put(np.empty(6 * cadence.rows * (STRETCH * 16 // max(cadence.rows, 16) + 2 * reach), np.float32))
    work = partial(_search_stretch, cadence=cadence, detector=detector, settings=settings, clock=clock, rooms=rooms)
    with ThreadPoolExecutor(settings.threads) as pool:
        threads = pool if settings.threads > 1 else None
        ahead = blocks(observations, reach, block=settings.block_channels, pool=threads)
        while True:
            with clock("read"):
                ready = next(ahead, None)
            if ready is None:
                break
            for stretch, one in zip(ready, threads.map(work, ready) if threads else map(work, ready), strict=True):
                found.append(one)
                progress(stretch.stop / cadence.nchans)
    return _conclude(found, cadence, detector, settings, clock)


def _search_stretch(
    stretch: Block,
    cadence: Geometry,
    detector: Detector,
    settings: SearchSettings,
    clock: Clock,
    rooms: SimpleQueue[Float32[np.ndarray, " pixels"]],
) -> Found:
    shape = detector.release.snippet
    with _borrowed(rooms) as room:
        with clock("equalize"):
            equalized = _equalized(stretch, cadence, room)
        own = (stretch.start - stretch.low, stretch.stop - stretch.low)
        tracks, rejections, counts = find_tracks(equalized, own, cadence, settings, clock)
        free = tracks[rejections == ""]
        kept = free[merge(free, cadence)]
        with clock("encode"):
            shown = cut = [track_snippet(equalized, track, cadence, shape) for track in kept]
            if settings.mode == "windows":
                windows = _windows_of(stretch, cadence, shape[1] << WINDOW_LEVEL)
                shown = [window_snippet(equalized, start - stretch.low, cadence, shape) for start in windows]
            else:
                windows = np.empty(0)
            latents = detector.encode_snippets(shown)
    counts.update(windows=len(windows), merged_into_another=len(free) - len(kept))
    kept[:, START] += stretch.low
    lines = tracks[rejections == "in_an_off", START] + stretch.low
    return Found(
        tracks=kept, snippets=to_uint8(cut, shape), latents=latents, windows=windows, interference=lines, counts=counts
    )


@contextmanager
def _borrowed(rooms: SimpleQueue[Float32[np.ndarray, " pixels"]]) -> Iterator[Float32[np.ndarray, " pixels"]]:
    room = rooms.get()
    try:
        yield room
    finally:
        rooms.put(room)


def _equalized(stretch: Block, cadence: Geometry, room: Float32[np.ndarray, " pixels"]) -> NormalizedBlock:
    """Return a stretch in units of its noise, in `room`."""
    shape = (6, cadence.rows, stretch.high - stretch.low)
    out = room[: math.prod(shape)].reshape(shape)
    return normalize_block(stretch.power, cadence, stretch.low - stretch.origin, out, stretch.low)


def _windows_of(stretch: Block, cadence: Geometry, width: int) -> Float64[np.ndarray, " windows"]:
    """Return where the windows begin that belong to a stretch: half overlapping, the last flush with the band's end."""
    step = width // 2
    last = cadence.nchans - width
    starts = np.arange(-(-stretch.start // step) * step, min(stretch.stop, last), step, dtype=np.float64)
    return np.append(starts, last) if stretch.stop == cadence.nchans else starts


def _conclude(
    found: Sequence[Found], cadence: Geometry, detector: Detector, settings: SearchSettings, clock: Clock
) -> SearchResult:
    counts = sum((one.counts for one in found), Counter[str]())
    tracks = np.concatenate([one.tracks for one in found])
    latents = Latents.join([one.latents for one in found])
    kept = merge(tracks, cadence)
    counts["merged_into_another"] += len(tracks) - len(kept)
    tracks, snippets = tracks[kept], np.concatenate([one.snippets for one in found])[kept]
    told = measured = measurements(tracks, cadence)
    with clock("score"):
        if settings.mode == "windows":
            starts = np.concatenate([one.windows for one in found])
            told = np.empty((len(starts), 0), np.float32)
            shares = detector.score(latents, told)
            kept = [_best_window(track, starts, shares, cadence, detector) for track in tracks]
            shares, told = shares[kept], told[kept]
        else:
            shares = detector.score(latents.of(kept), told)
        latents = latents.of(kept)
        threshold = detector.threshold if settings.threshold is None else settings.threshold
        passed = np.flatnonzero(shares >= threshold)
        spreads = detector.spread(latents.of(passed), told[passed])
        strangeness = detector.strangeness(latents.of(passed))
    counts["below_threshold"], counts["candidates"] = len(tracks) - len(passed), len(passed)
    lines = np.sort(cadence.mhz(np.concatenate([tracks[:, START], *(one.interference for one in found)])))
    candidates = [
        _candidate(tracks[i], (shares[i], spread, strange), latents.mean[i], lines, cadence, detector, settings)
        for i, spread, strange in zip(passed, spreads, strangeness, strict=True)
    ]
    order = sorted(range(len(passed)), key=lambda i: candidates[i].frequency_mhz)
    return SearchResult(
        candidates=tuple(candidates[i] for i in order),
        snippets=snippets[passed[order]],
        measurements=measured[passed[order]],
        counts=dict(counts),
        stage_s=clock.stage_s,
        bytes_read=sum(header.nchans * header.ntime * 4 for header in cadence.headers),
    )


def _best_window(
    track: Float64[np.ndarray, " fields"],
    starts: Float64[np.ndarray, " windows"],
    shares: Float64[np.ndarray, " windows"],
    cadence: Geometry,
    detector: Detector,
) -> int:
    """Return which window shows a signal best, of those that hold the track half-way through the cadence."""
    middle = track[START] + track[DRIFT] * cadence.middles.mean()
    width = detector.release.snippet[1] << WINDOW_LEVEL
    first, last = np.searchsorted(starts, [middle - width, middle], side="right")
    first = min(first, len(starts) - 1)
    return int(first + np.argmax(shares[first : max(last, first + 1)]))


def _candidate(
    row: Float64[np.ndarray, " fields"],
    scores: tuple[float, float, float],
    latents: Float32[np.ndarray, "obs latent"],
    lines: Float64[np.ndarray, " lines"],
    cadence: Geometry,
    detector: Detector,
    settings: SearchSettings,
) -> Candidate:
    track, header = as_track(row), cadence.headers[cadence.on[0]]
    probability, spread, strangeness = map(float, scores)
    start = cadence.middles[cadence.on[0]] - cadence.rows / 2
    level = WINDOW_LEVEL if settings.mode == "windows" else snippet_level(track.box)
    facts = rfi_context(float(cadence.mhz(row[START])), lines, tolerance_hz=cadence.hz * max(1.0, track.box / 4))
    return Candidate(
        frequency_mhz=float(cadence.mhz(track.channel(start))),
        drift_rate_hz_s=track.drift * cadence.headers[0].foff * 1e6 / header.tsamp,
        bandwidth_hz=track.width * cadence.hz,
        snr=track.snr,
        probability=probability,
        probability_spread=spread,
        strangeness=None if math.isnan(strangeness) else strangeness,
        proposer_score=track.hit_snr,
        latents=tuple(float(value) for value in latents.ravel()),
        binning=1 << level,
        target=header.source_name,
        tstart_mjd=header.tstart,
        release=detector.release.name,
        mode=settings.mode,
        **asdict(facts),
    )
