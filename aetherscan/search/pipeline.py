"""Search a cadence: blocks of the band -> hits in the ONs -> tracks -> scores -> candidates.

Every block is normalized. Lines in its ONs are proposed at every binning, followed through the observations and
measured there. A track that is not in all ONs, or is in an OFF, is rejected. The others are cut out, centered, at a
binning that suits their width, and scored by the encoder and the forest together with their measurements. The forest
reads three ONs and three OFFs of about as many rows as it was trained with; in any other cadence each track that passes
the gates is a candidate without a probability.
`--mode windows` selects as the papers do: windows of 4,096 channels, half overlapping, are scored by the encoder and
the forest, and only tracks in a window that passes are candidates. They are measured in the same way. Windows without
a track cannot become candidates, so they are not encoded.

`SearchResult.counts` accounts for every hit and every track: what entered each stage and why it was rejected.
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
from jaxtyping import Float32, Float64, Int64, UInt8

from aetherscan.cadence.geometry import ON_POSITIONS, Geometry, geometry_of
from aetherscan.cadence.places import largest_separation_arcmin
from aetherscan.detector.detector import Detector, Latents
from aetherscan.errors import CadenceError
from aetherscan.header import NOT_MEASURED
from aetherscan.io import ArrayObservation, Observation
from aetherscan.io.binning import bin_rows
from aetherscan.options.search import SearchSettings
from aetherscan.search.barycenter import Pointing, pointing_of
from aetherscan.search.blocks import Block, block_pixels, overlap_channels, read_blocks
from aetherscan.search.candidates import Candidate
from aetherscan.search.cutouts import WINDOW_LEVEL, snippet_level, to_uint8, track_snippet, window_snippet
from aetherscan.search.density import density_at, interfering_lines, odds_factor
from aetherscan.search.features import APPLIES, forest_applies, measurements
from aetherscan.search.follow import START, as_track, channels_at
from aetherscan.search.known_rfi import rfi_context
from aetherscan.search.on_off import find_tracks, home_channels, merge, note_on, rejected_channels
from aetherscan.search.power import PowerSample, check_power, sample_power

SAMPLED_CHANNELS = 2**20
"""Channels from one block in which the power is sampled to the next: all of a file has the same unit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Candidates by frequency, how many hits and tracks each stage took in and rejected, and what the search cost."""

    candidates: tuple[Candidate, ...]
    snippets: UInt8[np.ndarray, "scored obs rows bins"]  # of the candidates' tracks, in either mode; none if not scored
    measurements: Float32[np.ndarray, "candidates measurements"]
    rejected_mhz: Float64[np.ndarray, " lines"]  # of lines that the ON/OFF rule or the forest rejected
    warnings: tuple[str, ...]  # about the scatter of the power
    counts: dict[str, int]
    stage_s: dict[str, float]  # seconds of work, over all threads
    bytes_read: int  # decoded, in the number format of the files


class Clock:
    """Seconds of work by stage, over all threads."""

    def __init__(self) -> None:
        self.stage_s: dict[str, float] = {}
        self._lock = Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Add the time spent inside to `stage`."""
        began = time.perf_counter()
        yield
        with self._lock:
            self.stage_s[stage] = self.stage_s.get(stage, 0.0) + time.perf_counter() - began


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockResult:
    """Tracks of one block (`follow.Track`), and their latents; all channels are those of the file."""

    tracks: Float64[np.ndarray, "tracks fields"]  # in every ON and in no OFF
    snippets: UInt8[np.ndarray, "scored obs rows bins"]  # none if the forest does not apply
    latents: Latents  # of each track's snippet, or of each window that holds a track
    windows: Int64[np.ndarray, "tracks 2"]  # first and last+1 of each track's windows among the latents, if any
    interference: Float64[np.ndarray, " lines"]  # channels at which lines begin that are in every ON and in an OFF
    vetoed: Float64[np.ndarray, "bright ons"]  # channels in the ONs of the brighter ones
    rejected: Float64[np.ndarray, " rejected"]  # channels of lines that the ON/OFF rule rejected
    power: PowerSample | None  # of one block in `SAMPLED_CHANNELS`
    counts: Counter[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What the forest says of a track."""

    probability: float | None
    spread: float | None
    strangeness: float | None
    kind: str | None
    kind_probability: float | None
    latents: tuple[float, ...]


GATES_ALONE = Score(
    probability=None, spread=None, strangeness=None, kind=None, kind_probability=None, latents=()
)  # fmt: skip
"""Score of a track that passes the gates in a cadence that the forest does not apply to."""


UNSCORED = f"probability {NOT_MEASURED}: no forest scores this cadence"
"""Note on a candidate if `announce_unscored` is false."""


def search_cadence(
    observations: Sequence[Observation],
    detector: Detector,
    settings: SearchSettings | None = None,
    progress: Callable[[float], None] = lambda _: None,
    on: tuple[int, ...] = ON_POSITIONS,
) -> SearchResult:
    """Search the observations of a cadence, in time order. Long ones are binned in time: see decision 0010.

    Args:
        observations: open, of the same channels.
        detector: a release in memory.
        settings: how to search; None for the defaults.
        progress: called often with the fraction of the band that is done.
        on: positions of the ONs: (1, 3, 5) if the target came second.

    Raises:
        PowerError: an observation is no linear power.
        CadenceError: the observations do not make a cadence, or not one that `mode` can search.
        ReadError: a file could not be read, or changed during the search.
        ReleaseError: the release cannot search in this mode.
    """
    settings = settings or SearchSettings()
    detector = detector.for_mode(settings.mode)
    threshold = detector.threshold_for(settings.threshold, settings.alarms_per_100_mhz)
    bytes_read = _bytes_read(observations, 2 if settings.polarization is None else 1)
    observations = bin_rows(observations)
    cadence = geometry_of([observation.header for observation in observations], on, settings.coarse_channels)
    scored = forest_applies(cadence, detector.release.snippet[0])
    if settings.mode == "windows" and not scored:
        found = f"{len(cadence.on)} and {len(cadence.off)} of {' '.join(map(str, cadence.lengths))} rows"
        raise CadenceError(f"--mode windows: expected {APPLIES.format(*detector.release.snippet)}, found {found}")
    overlap = overlap_channels(cadence.headers, cadence.max_drift(settings.max_drift_hz_s))
    clock, results, buffers = Clock(), list[BlockResult](), SimpleQueue[Float32[np.ndarray, " pixels"]]()
    for _ in range(settings.threads):  # reused: allocating a large array for each block takes longer than filling it
        buffers.put(np.empty(len(observations) * block_pixels(cadence.rows, overlap), np.float32))
    search = partial(
        _search_block,
        cadence=cadence, detector=detector, scored=scored, settings=settings, clock=clock, buffers=buffers,
    )  # fmt: skip
    with ThreadPoolExecutor(settings.threads) as pool:
        threads = pool if settings.threads > 1 else None
        batches = read_blocks(observations, overlap, read_channels=settings.block_channels, pool=threads)
        while True:
            with clock("read"):
                batch = next(batches, None)
            if batch is None:
                break
            for block, result in zip(batch, threads.map(search, batch) if threads else map(search, batch), strict=True):
                results.append(result)
                progress(block.stop / cadence.nchans)
    warnings = check_power(cadence.headers, [result.power for result in results if result.power])
    counts = sum((result.counts for result in results), Counter[str]())
    tracks = np.concatenate([result.tracks for result in results])
    merged = merge(tracks, cadence)
    counts["merged_into_another"] += len(tracks) - len(merged)
    tracks = tracks[merged]
    density = density_at(tracks, np.concatenate([result.vetoed for result in results]), cadence)
    measured = measurements(tracks, cadence)
    scores = list[Score | None]([GATES_ALONE] * len(tracks))
    if scored:
        scores, by_kind = _score(results, merged, measured, density, detector, threshold, clock)
        counts.update(by_kind)
    interference = [result.interference for result in results]
    lines = np.sort(cadence.mhz(np.concatenate([tracks[:, START], *interference])))
    passed = {i: score for i, score in enumerate(scores) if score is not None}
    pointing = pointing_of(cadence.headers[cadence.on[0]]) if passed else Pointing()
    candidates = {
        i: _candidate(tracks[i], score, lines, float(density[i]), cadence, pointing, detector, settings)
        for i, score in passed.items()
    }
    counts["below_threshold"], counts["candidates"] = len(tracks) - len(candidates), len(candidates)
    counts["candidates_not_announced"] = sum(NOT_MEASURED in each.note for each in candidates.values())
    below = tracks[[i for i, score in enumerate(scores) if score is None]]
    rejected = np.concatenate([*(result.rejected for result in results), home_channels(below, cadence)])
    order = sorted(candidates, key=lambda i: candidates[i].frequency_mhz)
    snippets = np.concatenate([result.snippets for result in results])
    return SearchResult(
        candidates=tuple(candidates[i] for i in order),
        snippets=snippets[merged][order] if scored else snippets[:0],
        measurements=measured[order],
        rejected_mhz=np.sort(cadence.mhz(rejected)),
        warnings=tuple(warnings),
        counts=dict(counts),
        stage_s=clock.stage_s,
        bytes_read=bytes_read,
    )


def _bytes_read(observations: Sequence[Observation], products: int) -> int:
    """Return the decoded bytes read from files, of at most `products` each; arrays in memory count 0."""
    headers = [observation.header for observation in observations if not isinstance(observation, ArrayObservation)]
    nchans = min((header.nchans for header in headers), default=0)
    return sum(nchans * header.ntime * header.nbits * min(header.nifs, products) // 8 for header in headers)


def _search_block(
    raw: Block,
    cadence: Geometry,
    detector: Detector,
    settings: SearchSettings,
    clock: Clock,
    buffers: SimpleQueue[Float32[np.ndarray, " pixels"]],
    *,
    scored: bool,
) -> BlockResult:
    """Return the tracks of a block that pass the gates, with their latents or those of the block's windows.

    Args:
        raw: power.
        cadence: its geometry.
        detector: in the mode of the search.
        settings: how to search.
        clock: measures the time spent in each stage.
        buffers: free arrays for normalized blocks.
        scored: whether the forest applies.
    """
    shape = detector.release.snippet
    with _borrowed(buffers) as buffer:
        with clock("equalize"):
            block = raw.normalize(cadence, buffer, dc_spikes=settings.dc_spikes)
            sample = None
            if raw.start % SAMPLED_CHANNELS == 0:
                power = raw.power[..., raw.column : raw.column + block.sigmas.shape[-1]]
                sample = sample_power(power, block.sigmas, block.lengths)
        tracks, rejections, counts = find_tracks(block, cadence, settings.gates, clock)
        passed = tracks[rejections == ""]
        merged = passed[merge(passed, cadence)]
        with clock("encode"):
            snippets = [track_snippet(block, track, cadence, shape) for track in merged] if scored else []
            inputs, windows = snippets, np.zeros((len(merged), 2), np.int64)
            if detector.mode == "windows":
                starts, windows = _windows_with(merged, cadence, shape[1] << WINDOW_LEVEL)
                inputs = [window_snippet(block, start, cadence, shape) for start in starts]
                counts["windows"] += len(starts)
            latents = detector.encode_snippets(inputs)
        if scored:
            vetoed = measurements(tracks[rejections == "in_an_off"], cadence)
            counts.update(_by_kind("in_an_off", detector.kinds(vetoed)[0]))
    counts["merged_into_another"] += len(passed) - len(merged)
    return BlockResult(
        tracks=merged,
        snippets=to_uint8(snippets, shape),
        latents=latents,
        windows=windows,
        interference=tracks[rejections == "in_an_off", START],
        vetoed=interfering_lines(tracks, rejections, cadence),
        rejected=rejected_channels(tracks, rejections, cadence),
        power=sample,
        counts=counts,
    )


@contextmanager
def _borrowed(buffers: SimpleQueue[Float32[np.ndarray, " pixels"]]) -> Iterator[Float32[np.ndarray, " pixels"]]:
    buffer = buffers.get()
    try:
        yield buffer
    finally:
        buffers.put(buffer)


def _windows_with(
    tracks: Float64[np.ndarray, "tracks fields"], cadence: Geometry, width: int
) -> tuple[Float64[np.ndarray, " windows"], Int64[np.ndarray, "tracks 2"]]:
    """Return the first channels of the windows that hold a track half-way through the cadence, and whose they are.

    Windows overlap by half, and the last one ends with the band.

    Args:
        tracks: rows of `follow.Track`.
        cadence: its geometry.
        width: of a window, in channels.

    Returns:
        First channels, ascending; and for each track the first and last+1 index of those that hold it.
    """
    last = cadence.nchans - width
    grid = np.append(np.arange(0, last, width // 2, dtype=np.float64), last)
    middles = channels_at(tracks, np.array([cadence.middles.mean()]))[:, 0]
    first = np.minimum(np.searchsorted(grid, middles - width, side="right"), len(grid) - 1)
    after = np.maximum(np.searchsorted(grid, middles, side="right"), first + 1)
    held = np.unique([index for a, b in zip(first, after, strict=True) for index in range(a, b)]).astype(np.int64)
    return grid[held], np.searchsorted(held, np.stack([first, after], axis=1))


def _score(
    results: Sequence[BlockResult],
    merged: Sequence[int],
    measured: Float32[np.ndarray, "tracks measurements"],
    density: Float64[np.ndarray, " tracks"],
    detector: Detector,
    threshold: float,
    clock: Clock,
) -> tuple[list[Score | None], Counter[str]]:
    """Return the score of each track, None where it is below the threshold, and the counts of these by kind.

    Args:
        results: of the blocks, in channel order.
        merged: indices of the tracks among those of all blocks.
        measured: measurements of these tracks.
        density: of the interference around each, in lines per MHz.
        detector: in the mode of the search.
        threshold: lowest probability of a candidate.
        clock: measures the time spent scoring.
    """
    latents, factors, scored = Latents.join([result.latents for result in results]), odds_factor(density), measured
    with clock("score"):
        kinds, kind_probabilities = detector.kinds(measured)
        if detector.mode == "windows":
            before = np.cumsum([0, *(len(result.latents.mean) for result in results)])
            windows = np.concatenate([each.windows + at for each, at in zip(results, before, strict=False)])[merged]
            scored = np.empty((before[-1], 0), np.float32)
            probabilities = detector.score(latents, scored)
            rows = [int(a + np.argmax(probabilities[a:b])) for a, b in windows]
            probabilities, scored, latents = probabilities[rows], scored[rows], latents.of(rows)
            factors = np.ones(len(measured))  # a window is scored whatever else it holds
        else:
            latents = latents.of(merged)
            probabilities = detector.score(latents, scored, factors)
        passed = np.flatnonzero(probabilities >= threshold)
        spreads = detector.spread(latents.of(passed), scored[passed], factors[passed])
        strangeness = detector.strangeness(measured[passed])
    scores = list[Score | None]([None] * len(measured))
    for i, spread, strange in zip(passed, spreads, strangeness, strict=True):
        scores[i] = Score(
            probability=float(probabilities[i]),
            spread=float(spread),
            strangeness=_known(strange),
            kind=kinds[i],
            kind_probability=_known(kind_probabilities[i]),
            latents=tuple(float(value) for value in latents.mean[i].ravel()),
        )
    return scores, _by_kind("below_threshold", [kind for kind, score in zip(kinds, scores, strict=True) if not score])


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _by_kind(rejection: str, kinds: Sequence[str | None]) -> Counter[str]:
    """Return how many rejected lines look like each kind, as counts by rejection reason and kind."""
    return Counter(f"{rejection}_{kind}" for kind in kinds if kind)


def _candidate(
    row: Float64[np.ndarray, " fields"],
    score: Score,
    lines: Float64[np.ndarray, " lines"],
    density: float,
    cadence: Geometry,
    pointing: Pointing,
    detector: Detector,
    settings: SearchSettings,
) -> Candidate:
    """Return a track as a candidate, in physical units.

    Args:
        row: the track, in channels and rows.
        score: `GATES_ALONE` if the forest does not apply.
        lines: frequency of every line in the ONs, MHz, ascending.
        density: of the interference around the track, in lines per MHz.
        cadence: its geometry.
        pointing: of the first ON.
        detector: that scored the track.
        settings: which candidates are not announced.
    """
    track, header = as_track(row), cadence.headers[cadence.on[0]]
    start, scored = cadence.starts[cadence.on[0]], score is not GATES_ALONE
    unannounced = "" if scored or settings.announce_unscored else UNSCORED
    level = WINDOW_LEVEL if detector.mode == "windows" else snippet_level(track.box)
    around = rfi_context(float(cadence.mhz(row[START])), lines, tolerance_hz=cadence.hz * max(1.0, track.box / 4))
    mhz = float(cadence.mhz(track.channel(start)))
    drift = track.drift_at(start) * cadence.headers[0].foff * 1e6 / header.tsamp
    at_barycenter = pointing.at_barycenter(mhz, drift)
    together = sum(track.snr[i] for i in cadence.on) / len(cadence.on) ** 0.5
    return Candidate(
        frequency_mhz=mhz,
        drift_rate_hz_s=drift,
        curvature_hz_s2=track.curvature * cadence.headers[0].foff * 1e6 / header.tsamp**2 + 0.0,  # never -0.0
        bandwidth_hz=track.width * cadence.hz,
        snr=track.snr,
        valid=track.valid,
        note=note_on(row, cadence, settings.min_valid) or unannounced,
        probability=score.probability,
        probability_spread=score.spread,
        strangeness=score.strangeness,
        kind=score.kind,
        kind_probability=score.kind_probability,
        scored_by="forest" if scored else "gates",
        proposer_score=track.hit_snr,
        latents=score.latents,
        binning=1 << level if scored else None,
        target=header.source_name,
        tstart_mjd=header.tstart,
        on_separation_arcmin=largest_separation_arcmin([cadence.headers[i] for i in cadence.on]),
        ra_deg=pointing.ra_deg,
        dec_deg=pointing.dec_deg,
        telescope=pointing.telescope,
        barycentric_mhz=at_barycenter[0],
        barycentric_drift_hz_s=at_barycenter[1],
        drift_nhz=drift / (mhz / 1e3),
        joint_snr=float(together) if all(track.valid[i] for i in cadence.on) else None,
        valid_share=float(np.mean(track.valid)),
        rfi_density=density,
        release=detector.release.name,
        mode=detector.mode,
        **asdict(around),
    )
